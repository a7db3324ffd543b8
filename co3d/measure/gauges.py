"""What is measured beside the time of networks: the machine at its best, and memory."""

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from ..deploy import optimize
from ..nn import Conv3d, Linear, RunningWindow, Sequential, Stream, StreamNet
from .forms import EAGER, PRECISIONS, unavailable

SIDE_CPU, SIDE_GPU = 2048, 8192  # of the square matrices whose product torch computes
CHANNELS, SIZE = 512, 64  # of the convolution over one pixel that the native engine computes
COPIED = 64 * 2**20  # bytes: more than caches hold

Clock = Callable[[], float]  # seconds


class Gauge(NamedTuple):
    """Work that the machine does well, and how much of it a call does."""

    name: str
    amount: int
    work: Callable[[], Any]


def clock_of(device: str) -> Clock:
    """The time in seconds at which a device has finished its work."""
    if torch.device(device).type == "cpu":
        return time.perf_counter

    def clock() -> float:
        torch.accelerator.synchronize()
        return time.perf_counter()

    return clock


def gauges_of(device: str, precisions: Iterable[str]) -> list[Gauge]:
    """What the machine does at best: products of matrices by precision, and a copy of memory.

    A product counts its multiply-accumulates, a copy the bytes that it reads and writes. On a CPU
    the native engine multiplies too, as torch's product leaves some CPUs half idle.
    """
    source, target = torch.zeros(2, COPIED, dtype=torch.uint8, device=device)
    gauges = [Gauge("copy", 2 * COPIED, partial(target.copy_, source))]
    kind = torch.device(device).type
    side = SIDE_CPU if kind == "cpu" else SIDE_GPU
    for precision in precisions:
        if unavailable(EAGER, precision, kind):
            continue
        a, b = torch.randn(2, side, side, device=device).to(PRECISIONS[precision])
        gauges.append(Gauge(precision, side**3, partial(torch.mm, a, b, out=a @ b)))
        if kind == "cpu":
            body = Sequential(Conv3d(CHANNELS, CHANNELS, 1), RunningWindow(1))
            net = StreamNet(body, Linear(CHANNELS, 1)).eval()
            frame = torch.randn(1, CHANNELS, SIZE, SIZE)
            stream = Stream(optimize(net, frame, PRECISIONS[precision]))
            gauges.append(Gauge(precision, (CHANNELS * SIZE) ** 2, partial(stream, frame)))
    return gauges


def memory_of(
    predict: Callable[[], Any], device: str = "cpu", before: int = 0, has_state: bool = True
) -> dict[str, float]:
    """The memory of one prediction by torch's operators in MB, by column of `benchmark`.

    A GPU's allocator keeps count itself; on a CPU the operators are watched.

    Args:
        predict: does all work of one prediction.
        before: bytes that a GPU's allocator held before the model was made.
        has_state: whether a prediction needs what the one before it made.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        predict()
        return {"peak_mem_mb": (torch.cuda.max_memory_allocated(device) - before) / 1e6}
    with Operators() as seen:
        predict()
        if has_state:  # what the first prediction made is no result of the second
            seen.begin()
            predict()
    touched = sum(seen.touched.values())
    return {"alloc_mb": (touched + seen.most) / 1e6, "moved_mb": seen.moved / 1e6}


class Operators(TorchDispatchMode):
    """Counts what torch's operators touch, hold and move since `begin`.

    Attributes:
        touched: bytes of storages that were not made inside, by operands.
        made: bytes of storages that were, as long as they exist.
        most: of the bytes in `made` at a time.
        moved: bytes of operands read and results written by all operators, each once per operator.
    """

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[StorageWeakRef, int] = {}
        self.begin()

    def begin(self) -> None:
        """Counts anew; what operators have made so far stays made."""
        self.touched: dict[StorageWeakRef, int] = {}
        self.moved = self.most = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        operands = [value for value in tree_iter((args, kwargs)) if isinstance(value, Tensor)]
        self.touched |= {ref: size for ref, size in _storages(operands) if ref not in self.made}
        results = function(*args, **(kwargs or {}))
        known = self.made.keys() | self.touched.keys()
        fresh = {ref: size for ref, size in _storages(tree_iter(results)) if ref not in known}
        alive = {ref: size for ref, size in self.made.items() if not ref.expired()}
        self.made = alive | fresh
        self.most = max(self.most, sum(self.made.values()))
        aliases = [result.alias_info for result in function._schema.returns]
        is_view = any(alias is not None and not alias.is_write for alias in aliases)
        if fresh or not is_view:
            self.moved += sum(tensor.nbytes for tensor in operands)
            self.moved += 0 if "empty" in function.__name__ else sum(fresh.values())
        return results


def _storages(values: Iterable[Any]) -> Iterator[tuple[StorageWeakRef, int]]:
    """What tensors lie in, and its bytes."""
    for value in values:
        if isinstance(value, Tensor):
            storage = value.untyped_storage()
            yield StorageWeakRef(storage), storage.nbytes()

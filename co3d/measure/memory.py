"""Memory of a prediction: what torch's operators touch, hold and move, seen one by one.

A GPU's allocator keeps its own count, which is used there. On a CPU the operators are watched.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


@dataclass(frozen=True)
class Footprint:
    """Bytes of one prediction, None where they cannot be seen.

    Attributes:
        allocated: the weights, states and inputs that torch's operators touch, and the most that
            their results hold beside them at any time. Not what an operator takes for itself and
            gives back (scratch memory, reordered weights), and nothing outside torch.
        moved: operands read and results written by all operators, each once per operator. Caches
            serve part of that.
        peak: of a GPU's allocator, over what it held before the model was made.
    """

    allocated: int | None = None
    moved: int | None = None
    peak: int | None = None


def footprint(
    predict: Callable[[], Any], device: str = "cpu", before: int = 0, stream: bool = True
) -> Footprint:
    """Watches one prediction.

    Args:
        predict: does all work of one prediction.
        before: bytes that the allocator of a GPU held before the model was made.
        stream: whether it begins with what the prediction before it left: then one more is made.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        predict()
        return Footprint(peak=torch.cuda.max_memory_allocated(device) - before)
    with Watch() as watch:
        if stream:
            predict()
            watch.begin()
        predict()
    return Footprint(watch.allocated, watch.moved)


def held_before(device: str) -> int:
    """Bytes that a GPU's allocator holds now; 0 on a CPU."""
    return torch.cuda.memory_allocated(device) if torch.device(device).type == "cuda" else 0


def largest_batch(budget: float, one: int, two: int) -> int:
    """The largest power of two that fits into `budget` bytes, at least 1.

    Batches take what 1 and 2 take, in a straight line: weights once, all else per stream or clip.
    """
    each = max(two - one, 1)
    batch = 1
    while one + (2 * batch - 1) * each <= budget:
        batch *= 2
    return batch


class Watch(TorchDispatchMode):
    """Counts what the operators inside it touch, hold and move since `begin`.

    Storages that were not made inside, by results of operators, count as touched.
    """

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[StorageWeakRef, int] = {}
        self.begin()

    def begin(self) -> None:
        """Counts anew; results of operators so far that are still there are held."""
        self.moved, self.most = 0, self._held()
        self.touched: dict[StorageWeakRef | int, int] = {}

    @property
    def allocated(self) -> int:
        """Bytes touched, and the most that results held at a time."""
        return sum(self.touched.values()) + self.most

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        operands = list(_tensors((args, kwargs)))
        self.touched |= {ref: n for ref, n in _storages(operands) if ref not in self.made}
        results = function(*args, **(kwargs or {}))
        known = self.made.keys() | self.touched.keys()
        found = _storages(_tensors(results))
        fresh = {ref: n for ref, n in found if ref not in known and not isinstance(ref, int)}
        self.made |= fresh
        self.most = max(self.most, self._held())
        if fresh or not _is_view(function):
            self.moved += sum(tensor.numel() * tensor.element_size() for tensor in operands)
            self.moved += 0 if "empty" in function.__name__ else sum(fresh.values())
        return results

    def _held(self) -> int:
        self.made = {ref: n for ref, n in self.made.items() if not ref.expired()}
        return sum(self.made.values())


def _tensors(values: Any) -> Iterator[Tensor]:
    return (value for value in tree_iter(values) if isinstance(value, Tensor))


def _storages(tensors: Iterable[Tensor]) -> Iterator[tuple[StorageWeakRef | int, int]]:
    """What tensors lie in, and its bytes. Weights in a library's own layout are known by id."""
    for tensor in tensors:
        if tensor.layout == torch.strided:
            storage = tensor.untyped_storage()
            yield StorageWeakRef(storage), storage.nbytes()
        else:
            yield id(tensor), tensor.numel() * tensor.element_size()


def _is_view(function: Any) -> bool:
    """Whether an operator only looks at its operand's memory in another way."""
    aliases = [result.alias_info for result in function._schema.returns]
    return any(alias is not None and not alias.is_write for alias in aliases)

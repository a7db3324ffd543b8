"""Memory of a prediction: what torch's operators touch, hold and move, seen one by one.

A GPU's allocator keeps its own count, which is used there. On a CPU the operators are watched.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


def allocated(device: str) -> int:
    """Bytes that a GPU's allocator holds; 0 on a CPU."""
    return torch.cuda.memory_allocated(device) if torch.device(device).type == "cuda" else 0


def memory_of(
    predict: Callable[[], Any] | None, device: str = "cpu", before: int = 0
) -> dict[str, float | None]:
    """The memory of one prediction in MB, by column of the table `benchmark`.

    Args:
        predict: does all work of one prediction; None if torch's operators do not do it.
        before: bytes that a GPU's allocator held before the model was made.
    """
    columns = dict.fromkeys(("peak_mem_mb", "alloc_mb", "moved_mb"))
    if predict is None:
        return columns
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        predict()
        return columns | {"peak_mem_mb": (torch.cuda.max_memory_allocated(device) - before) / 1e6}
    with Operators() as seen:
        predict()
        seen.begin()  # a state that the first prediction made is no result of the second
        predict()
    return columns | {"alloc_mb": seen.allocated / 1e6, "moved_mb": seen.moved / 1e6}


class Operators(TorchDispatchMode):
    """Counts what the operators inside it touch, hold and move since `begin`.

    Storages that were not made inside, by results of operators, count as touched.

    Attributes:
        moved: bytes of operands read and results written by all operators, each once per operator.
    """

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[StorageWeakRef, int] = {}
        self.begin()

    def begin(self) -> None:
        """Counts anew; results of operators so far that are still there are held."""
        self.moved, self.most = 0, self._held()
        self.touched: dict[StorageWeakRef, int] = {}

    @property
    def allocated(self) -> int:
        """Bytes touched, and the most that results held at a time."""
        return sum(self.touched.values()) + self.most

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        operands = list(_tensors((args, kwargs)))
        self.touched |= {ref: n for ref, n in _storages(operands) if ref not in self.made}
        results = function(*args, **(kwargs or {}))
        known = self.made.keys() | self.touched.keys()
        storages = _storages(_tensors(results))
        fresh = {ref: n for ref, n in storages if ref not in known}
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


def _storages(tensors: Iterable[Tensor]) -> Iterator[tuple[StorageWeakRef, int]]:
    """What tensors lie in, and its bytes."""
    for tensor in tensors:
        storage = tensor.untyped_storage()
        yield StorageWeakRef(storage), storage.nbytes()


def _is_view(function: Any) -> bool:
    """Whether an operator only looks at its operand's memory in another way."""
    aliases = [result.alias_info for result in function._schema.returns]
    return any(alias is not None and not alias.is_write for alias in aliases)

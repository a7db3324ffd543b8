"""Steps that are noted once and then only made: their calls, one after the other.

What a step calls depends on numbers alone, such as where a ring stands or how many sums there are.
When these come round again, so do the calls, and all the Python that finds them can be left out.
The notes are written in TorchScript, which torch runs without Python; what comes out is the same to
the last bit.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload, OpOverloadPacket
from torch.overrides import TorchFunctionMode

Call = tuple[str, tuple, dict[str, Any], Tensor]  # operator, arguments, result
Containers = list[dict[str, Any]]
PATIENCE = 256  # steps after which the numbers of a stream are not expected to come round


class Recorded:
    """Steps, noted for the stream that is fed; another one begins anew, so streams that take turns
    are stepped as ever.

    Args:
        push: takes a frame and the state, which it changes; gives an output or None.
        count: how many of the first parts of the state it changes.
        scratch: what else it changes.
    """

    def __init__(
        self, push: Callable[[Tensor, Any], Tensor | None], count: int, scratch: Containers
    ) -> None:
        self.push, self.count, self.scratch = push, count, scratch
        self._begin(None)

    def _begin(self, state: Any) -> None:
        self.state, self.steps = state, 0
        self.seen: set[tuple] = set()
        self.known: dict[tuple, Program] = {}
        self.last: Program | None = None

    def __call__(self, x: Tensor, state: Any) -> Tensor | None:
        """One frame in; the output that it completes, or None."""
        if state is not self.state:
            self._begin(state)
            self.containers = [*_dicts(state[: self.count]), *self.scratch]
        due = self.last and self.last.following
        if due:
            y = due(x)
            self.last = due  # not before: a step that fails is still to come
            return y
        if self.steps > PATIENCE:
            return self.push(x, state)
        return self._other(x, state)

    def _other(self, x: Tensor, state: Any) -> Tensor | None:
        """A step of which it is not yet known how it goes, or that it follows the last one."""
        numbers = _numbers(self.containers)
        before, self.last, known = self.last, None, self.known.get(numbers)
        if known:
            y = known(x)
            self._follow(before, known)
            return y
        self.steps += 1
        if numbers not in self.seen:
            self.seen.add(numbers)
            return self.push(x, state)
        old = [dict(held) for held in self.containers]
        with _Notes() as notes:
            y = self.push(x, state)
        if notes.complete:
            self.known[numbers] = Program(notes.calls, x, y, old, self.containers)
            self._follow(before, self.known[numbers])
        return y

    def _follow(self, before: "Program | None", program: "Program") -> None:
        self.last = program
        if before:
            before.following = program


class _Notes(TorchFunctionMode):
    """The calls that give a tensor. Those that tell of one, such as its shape, are not needed; any
    others cannot be noted, and then the notes are not complete."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.complete = True

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            name = _operator(func)
            self.calls.append((name, args, kwargs or {}, result))
            self.complete &= bool(name)
        elif result is None or isinstance(result, list) or _queue(result):
            self.complete = False
        return result


class Program:
    """The calls of a step, and what the step leaves in the state.

    Args:
        calls: operator, arguments and result of each.
        x, y: the frame, and the output if there was one.
        before: copies of the containers from before the step.
        after: the containers.

    Attributes:
        following: the program of the next step, once that is known.
    """

    following: "Program | None" = None

    def __init__(
        self, calls: list[Call], x: Tensor, y: Tensor | None, before: Containers, after: Containers
    ) -> None:
        pairs = list(zip(after, before, strict=True))
        self.given = [(held, key) for held, old in pairs for key in _queues(old)]
        text = _Text(x, [tensor for old in before for key in _queues(old) for tensor in old[key]])
        for call in calls:
            text.write(*call)
        results = [] if y is None else [text.name(y)]
        self.gives, self.kept = len(results), []
        for held, old in pairs:
            for key in dict.fromkeys([*_queues(old), *_queues(held)]):
                start = len(results)
                results += [text.name(tensor) for tensor in held[key]]
                self.kept.append((held, key, start, len(results)))
        numbers = [(held, _changed(old, held)) for held, old in pairs]
        self.numbers = [(held, new) for held, new in numbers if new]
        self.run, self.constants = _compiled(text.function(results)), text.constants

    def __call__(self, x: Tensor) -> Tensor | None:
        queued = [tensor for held, key in self.given for tensor in held[key]]
        results = self.run(x, self.constants, queued)
        for held, key, start, end in self.kept:
            held[key] = (*results[start:end],)
        for held, new in self.numbers:
            held.update(new)
        return results[0] if self.gives else None


class _Text:
    """Calls as a function of the frame, the constants and the tensors of the queues.

    A tensor that is neither the frame, nor in a queue, nor made from these has memory of its own:
    it is a constant, and so is a view of it.
    """

    def __init__(self, x: Tensor, queued: list[Tensor]) -> None:
        self.names = {id(x): "x"} | {id(tensor): f"q{n}" for n, tensor in enumerate(queued)}
        self.queued, self.lines = len(queued), []
        self.constants: list[Tensor] = []
        self._known: dict[int, str] = {}

    def write(self, name: str, args: tuple, kwargs: dict[str, Any], result: Tensor) -> None:
        given = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        changes = any(id(value) in self.names for value in given)
        if not changes and any(_shares(result, value) for value in given if value is not result):
            return
        words = [self.name(value) for value in args]
        words += [f"{key}={self.name(value)}" for key, value in kwargs.items()]
        call = f"{name}({', '.join(words)})"
        if not any(value is result for value in given):
            self.names[id(result)] = f"t{len(self.lines)}"
            call = f"{self.names[id(result)]} = {call}"
        self.lines.append(call)

    def name(self, value: Any) -> str:
        if isinstance(value, torch.device):
            return f"torch.device({str(value)!r})"
        if not isinstance(value, Tensor):
            return repr([*value] if isinstance(value, tuple) else value)
        if id(value) in self.names:
            return self.names[id(value)]
        if id(value) not in self._known:
            self._known[id(value)] = f"c{len(self.constants)}"
            self.constants.append(value)
        return self._known[id(value)]

    def function(self, results: list[str]) -> str:
        lines = ["def run(x: Tensor, c: List[Tensor], q: List[Tensor]) -> List[Tensor]:"]
        for kind, count in (("c", len(self.constants)), ("q", self.queued)):
            if count:
                lines.append("".join(f"{kind}{n}, " for n in range(count)) + f"= {kind}")
        lines += [*self.lines, f"return [{', '.join(results)}]"]
        return "\n    ".join(lines) + "\n"


@lru_cache(256)
def _compiled(source: str) -> Callable[[Tensor, list[Tensor], list[Tensor]], list[Tensor]]:
    """The function of this text; streams and twins of one structure share it."""
    return torch.jit.CompilationUnit(source).run


def _operator(func: Callable) -> str:
    """What TorchScript calls a function of torch; "" if it has none."""
    if isinstance(func, OpOverload):
        func = func.overloadpacket
    if isinstance(func, OpOverloadPacket):
        return "torch.ops." + func._qualified_op_name.replace("::", ".")
    name = getattr(func, "__name__", "")
    return f"torch.ops.aten.{name}" if hasattr(torch.ops.aten, name) else ""


def _changed(old: dict[str, Any], held: dict[str, Any]) -> dict[str, Any]:
    """The numbers that a step changed."""
    return {k: v for k, v in held.items() if isinstance(v, int | str) and v != old[k]}


def _shares(one: Tensor, other: Tensor) -> bool:
    """Whether one is a view of the other's memory."""
    if torch.strided != one.layout or torch.strided != other.layout or other.is_mkldnn:
        return False
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


def _queues(held: dict[str, Any]) -> list[str]:
    return [key for key, value in held.items() if _queue(value)]


def _queue(value: Any) -> tuple[Tensor, ...]:
    """The tensors of a queue, which move on from step to step; none for any other value."""
    return value if isinstance(value, tuple) and all(isinstance(t, Tensor) for t in value) else ()


def _dicts(state: Any) -> Iterator[dict[str, Any]]:
    """All dicts inside a state."""
    if isinstance(state, dict):
        yield state
    for part in state.values() if isinstance(state, dict) else state:
        if isinstance(part, dict | tuple):
            yield from _dicts(part)


def _numbers(containers: Containers) -> tuple:
    """All that the calls of the next step depend on."""
    return tuple(
        len(value) if isinstance(value, tuple) else None if isinstance(value, Tensor) else value
        for held in containers
        for value in held.values()
    )

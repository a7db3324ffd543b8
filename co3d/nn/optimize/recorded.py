"""Steps that are noted once and then only made: their calls, one after the other.

What a step calls depends on numbers alone, such as where a ring stands or how many sums there are.
When these come round again, so do the calls, and all the Python that finds them can be left out.
What comes out is the same to the last bit.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

Program = Callable[[Tensor], Tensor | None]
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
        self.known: dict[tuple, _Noted] = {}
        self.last: _Noted | None = None

    def __call__(self, x: Tensor, state: Any) -> Tensor | None:
        """One frame in; the output that it completes, or None."""
        if state is not self.state:
            self._begin(state)
            self.containers = [*_dicts(state[: self.count]), *self.scratch]
        due = self.last and self.last.following
        if due:
            self.last = due
            return due.program(x)
        if self.steps > PATIENCE:
            return self.push(x, state)
        return self._other(x, state)

    def _other(self, x: Tensor, state: Any) -> Tensor | None:
        """A step of which it is not yet known how it goes, or that it follows the last one."""
        numbers = _numbers(self.containers)
        before, self.last = self.last, self.known.get(numbers)
        if self.last:
            if before:
                before.following = self.last
            return self.last.program(x)
        self.steps += 1
        if numbers not in self.seen:
            self.seen.add(numbers)
            return self.push(x, state)
        old = [dict(held) for held in self.containers]
        with _Notes() as notes:
            y = self.push(x, state)
        if notes.complete:
            program = _Writer(x, old).written(notes.calls, self.containers, y)
            self.last = self.known[numbers] = _Noted(program)
            if before:
                before.following = self.last
        return y


class _Noted:
    """A program, and the one that follows it."""

    def __init__(self, program: Program) -> None:
        self.program, self.following = program, None


class _Notes(TorchFunctionMode):
    """The calls that give a tensor. Those that tell of one, such as its shape, are not needed; any
    others cannot be noted, and then the notes are not complete."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Callable, tuple, dict[str, Any], Tensor]] = []
        self.complete = True

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.calls.append((func, args, kwargs or {}, result))
        elif result is None or isinstance(result, list) or _queue(result):
            self.complete = False
        return result


class _Writer:
    """Writes calls as a function of a frame. A tensor that is neither the frame, nor in a queue of
    the state, nor made from these has memory of its own, so it is a constant, as is a view of it.
    """

    def __init__(self, x: Tensor, before: Containers) -> None:
        self.names, self.constants = {id(x): "x"}, {}  # by id
        self.values: dict[str, Any] = {}  # of constants
        self.lines: list[str] = []
        self.before = before
        for n, held in enumerate(before):
            for key, value in held.items():
                for place, tensor in enumerate(_queue(value)):
                    self._let(tensor, f"held{n}[{key!r}][{place}]")

    def written(self, calls: list[tuple], after: Containers, y: Tensor | None) -> Program:
        for func, args, kwargs, result in calls:
            self._call(func, args, kwargs, result)
        for n, (old, new) in enumerate(zip(self.before, after, strict=True)):
            for key, value in new.items():
                if _queue(value) or _queue(old[key]):
                    queue = "".join(f"{self._name(tensor)}, " for tensor in value)
                    self.lines.append(f"held{n}[{key!r}] = ({queue})")
                elif isinstance(value, int | str) and value != old[key]:
                    self.lines.append(f"held{n}[{key!r}] = {value!r}")
        self.lines.append(f"return {None if y is None else self._name(y)}")
        names = self.values | {f"held{n}": held for n, held in enumerate(after)}
        exec("def program(x):\n    " + "\n    ".join(_freed(self.lines)), names)
        return names["program"]

    def _call(self, func: Callable, args: tuple, kwargs: dict[str, Any], result: Tensor) -> None:
        given = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        changes = any(id(value) in self.names for value in given)
        if not changes and any(_shares(result, value) for value in given if value is not result):
            return
        words = [self._name(value) for value in args]
        words += [f"{key}={self._name(value)}" for key, value in kwargs.items()]
        call = f"{self._name(func)}({', '.join(words)})"
        if any(value is result for value in given):
            self.lines.append(call)
        else:
            self._let(result, call)

    def _let(self, tensor: Tensor, expression: str) -> None:
        name = self.names.setdefault(id(tensor), f"t{len(self.lines)}")
        self.lines.append(f"{name} = {expression}")

    def _name(self, value: Any) -> str:
        if value is None or type(value) in (bool, int, float, str):
            return repr(value)
        if id(value) in self.names:
            return self.names[id(value)]
        name = self.constants.setdefault(id(value), f"c{len(self.constants)}")
        self.values[name] = value
        return name


def _freed(lines: list[str]) -> list[str]:
    """The lines, each followed by the end of what is not used after it, so that its memory is free
    for what comes next."""
    last = {name: n for n, line in enumerate(lines) for name in re.findall(r"\bt\d+\b", line)}
    ends: dict[int, list[str]] = {}
    for name, n in last.items():
        ends.setdefault(n, []).append(name)
    ends.pop(len(lines) - 1, None)
    return [
        line + "".join(f"; del {name}" for name in ends.get(n, ())) for n, line in enumerate(lines)
    ]


def _shares(one: Tensor, other: Tensor) -> bool:
    """Whether one is a view of the other's memory."""
    if torch.strided != one.layout or torch.strided != other.layout or other.is_mkldnn:
        return False
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


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

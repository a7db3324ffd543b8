"""Trees of continual layers: the graph that clips and streams go along, and its usual shapes."""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .core import Continual, Timing
from .pointwise import Identity, ReLU, Sigmoid
from .pool import spatial_mean
from .temporal import join

GATES = ("clip", "frame")


class Node(NamedTuple):
    """One value of a tree: what a part makes of another value, or a join of several.

    Columns are joined by index: in a stream what comes early waits in a queue, and columns that one
    side lacks at the end of a clip are left out.

    Attributes:
        name: the path of the part in the tree, such as "slow.res2".
        sources: the values that it takes: 0 is the input of the tree, n that of its n-th node.
        part: None for a join.
        join: "sum", or "cat" along channels.
        clip: what stands for the part on a clip (default: the part).
    """

    name: str
    sources: tuple[int, ...]
    part: nn.Module | None = None
    join: str = "sum"
    clip: Callable[..., Tensor] | None = None

    def timing(self, *before: Timing) -> Timing:
        """The timing behind it, given those of its sources."""
        return Timing.joined(before) if self.part is None else before[0].then(self.part.timing)

    def output(self, *columns: Tensor, pad: bool = True) -> Tensor:
        """Its value on a clip."""
        if self.part is not None:
            return (self.clip or self.part)(columns[0], pad=pad)
        if len({x.shape[2:3] for x in columns}) > 1:
            shortest = min(x.shape[2] for x in columns)
            columns = [x[:, :, :shortest] for x in columns]
        return torch.cat(columns, 1) if self.join == "cat" else sum(columns[1:], columns[0])

    def unpadded(self, *sources: tuple[Tensor, int]) -> tuple[Tensor, int]:
        """Its columns that only real frames reach, and how many come before its column 0."""
        _, padding, stride, _ = Timing() if self.part is None else self.part.timing
        before = min((count - padding) // stride for _, count in sources)
        columns = []
        for x, count in sources:
            skipped = count - padding - before * stride
            columns.append(x[:, :, skipped:] if skipped else x)
        return self.output(*columns, pad=False), before


def run(nodes: Iterable[Node], value: Any, call: Callable[..., Any]) -> Any:
    """Takes a value through a graph: call(node, *those of its sources) gives that of a node.

    Each value is let go as soon as no other node takes it.
    """
    nodes, values, last = tuple(nodes), {0: value}, {}
    for number, node in enumerate(nodes):
        last |= dict.fromkeys(node.sources, number)
    for number, node in enumerate(nodes):
        taken = [values.pop(n) if last[n] == number else values[n] for n in node.sources]
        values[number + 1] = call(node, *taken)
    return values[len(nodes)]


class Tree(Continual):
    """A continual module made of others, which its `nodes` join into a graph."""

    any_rank = True  # its parts may say otherwise

    @property
    def nodes(self) -> tuple[Node, ...]:
        """In the order in which they run; the last one is the output."""
        raise NotImplementedError

    @property
    def timing(self) -> Timing:
        return run(self.nodes, Timing(), Node.timing)

    @property
    def padding(self) -> int:
        """Aggregated temporal padding before a clip (receptive_field - 1 - warmup), in frames."""
        return self.timing.padding

    @property
    def stride(self) -> int:
        """Frames from one output to the next."""
        return self.timing.stride

    def forward(self, x: Tensor, pad: bool = True) -> Tensor:
        """The tree on a clip; `pad=False` leaves all temporal padding out.

        Column 0 of the output then sees frame 0 first. Other values have columns before their
        column 0, where their own padding reaches in a padded clip.
        """
        if pad:
            return run(self.nodes, x, Node.output)
        y, _ = run(self.nodes, (x, self.timing.padding), Node.unpadded)
        return y

    def _begin(self, start: int, fill: str, emit: str) -> tuple[Any, int]:
        states = []

        def begin(node: Node, *starts: int) -> int:
            if node.part is None:
                # Zero columns stand in for those that a late source has not (with either fill, as
                # in the published start-up study). There are none with emit="valid".
                first = min(starts)
                state = tuple(start - first for start in starts)
            else:
                state, first = node.part._begin(starts[0], fill, emit)
            states.append(state)
            return first

        first = run(self.nodes, start, begin)
        return tuple(states), first

    def _steps(self, x: Tensor | None, state: Any, end: bool) -> tuple[Tensor | None, Any]:
        before, after = iter(state), []

        def steps(node: Node, *columns: Tensor | None) -> Tensor | None:
            y, state = None, next(before)
            if not end and all(column is None for column in columns):
                pass  # nothing has come
            elif node.part is not None:
                y, state = node.part._steps(columns[0], state, end)
            else:
                columns, state = join(columns, state)
                y = None if columns is None else node.output(*columns)
            after.append(state)
            return y

        y = run(self.nodes, x, steps)
        return y, tuple(after)


class Sequential(Tree, nn.Sequential):
    """`torch.nn.Sequential` of continual modules; a part that emits nothing ends the step."""

    def __init__(self, *args) -> None:
        super().__init__(*args)
        for name, part in self._modules.items():
            require_continual(part, name)

    @property
    def nodes(self) -> tuple[Node, ...]:
        parts = enumerate(self._modules.items())
        return tuple(Node(name, (number,), part) for number, (name, part) in parts)


class Parallel(Tree):
    """Branches over the same input, joined column by column: join="sum", or "cat" along channels.

    A branch that is ahead waits in a queue for the others. That delays a shortcut by the delay of
    the main branch, as in the paper, and keeps branches of equal stride aligned.

    Raises:
        ValueError: if the branches have other strides, or other lengths for the same clip.
    """

    def __init__(self, *branches: nn.Module, join: str = "sum", **named: nn.Module) -> None:
        super().__init__()
        named = {**{str(n): branch for n, branch in enumerate(branches)}, **named}
        if join not in ("sum", "cat") or len(named) < 2:
            raise ValueError(
                f"expected two branches or more and join sum or cat, given {len(named)}, {join!r}"
            )
        self.join, self.names = join, tuple(named)
        for name, branch in named.items():
            require_continual(branch, name)
            self.add_module(name, branch)
        self._prepare()

    def _prepare(self) -> None:
        timings = {name: self._modules[name].timing for name in self.names}
        if len({(t.stride, t.surplus) for t in timings.values()}) > 1:
            raise ValueError(
                "expected branches of one stride and one output length, given "
                + ", ".join(f"{name}: {timing[:3]}" for name, timing in timings.items())
                + " as (receptive field, padding, stride)"
            )

    def extra_repr(self) -> str:
        return f"join={self.join!r}"

    @property
    def nodes(self) -> tuple[Node, ...]:
        branches = [Node(name, (0,), self._modules[name]) for name in self.names]
        joined = Node("join", tuple(range(1, len(branches) + 1)), join=self.join)
        return (*branches, joined)


class Residual(Parallel):
    """activation(main(x) + shortcut(x)), where shortcut and activation default to the identity."""

    def __init__(
        self,
        main: nn.Module,
        shortcut: nn.Module | None = None,
        activation: nn.Module | None = None,
    ) -> None:
        super().__init__(main=main, shortcut=Identity() if shortcut is None else shortcut)
        if activation is not None:
            require_continual(activation, "activation")
            if activation.timing != Timing():
                raise ValueError(
                    "expected an activation that treats every frame alone, given "
                    f"{type(activation).__name__}"
                )
        self.activation = activation

    @property
    def nodes(self) -> tuple[Node, ...]:
        if self.activation is None:
            return super().nodes
        return (*super().nodes, Node("activation", (3,), self.activation))


class SqueezeExcite(Continual):
    """x * sigmoid(fc2(relu(fc1(mean of x)))), the channel gate of X3D.

    Args:
        channels: of input and output.
        inner: channels between the two 1x1x1 convolutions.
        gate: what the mean is taken over: "clip" (time and space, as X3D does; has no step) or
            "frame" (space alone, as CoX3D does).
    """

    def __init__(self, channels: int, inner: int, gate: str = "clip") -> None:
        super().__init__()
        if gate not in GATES:
            raise ValueError(f"expected gate in {GATES}, given {gate!r}")
        self.gate = gate
        self.fc1 = nn.Conv3d(channels, inner, 1)
        self.relu = ReLU()
        self.fc2 = nn.Conv3d(inner, channels, 1)
        self.sigmoid = Sigmoid()

    def extra_repr(self) -> str:
        return f"gate={self.gate!r}"

    def forward(self, x: Tensor, pad: bool = True) -> Tensor:
        mean = x.mean((2, 3, 4), keepdim=True) if self.gate == "clip" else spatial_mean(x)
        return x * self.sigmoid(self.fc2(self.relu(self.fc1(mean))))

    def _begin(self, start: int, fill: str, emit: str) -> tuple[Any, int]:
        if self.gate == "clip":
            raise ValueError(
                "expected a gate that can be stepped, given gate='clip', which needs the whole "
                "clip: convert the module with continual(module, gate='frame')"
            )
        return (), start


def named(**parts: nn.Module | None) -> OrderedDict[str, nn.Module]:
    """The parts that are there, in order, for Sequential(named(conv=..., bn=...))."""
    return OrderedDict((name, part) for name, part in parts.items() if part is not None)


def require_continual(module: nn.Module, name: str) -> None:
    """Raises TypeError, naming the part, if a module has no step."""
    if not isinstance(module, Continual):
        raise TypeError(
            f"expected continual modules, given {type(module).__name__} as {name!r}: use its "
            "counterpart in co3d.nn, or co3d.continual(module) for a whole tree"
        )

"""Trees of continual layers: Sequential, Parallel and Residual, SqueezeExcite."""

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from .conv import Conv3d
from .core import Continual, Timing, Tree
from .pointwise import BatchNorm3d, Identity, ReLU, Sigmoid
from .pool import spatial_mean
from .temporal import join

GATES = ("clip", "frame")


class Sequential(Tree, nn.Sequential):
    """`torch.nn.Sequential` of continual modules; a part that emits nothing ends the step."""

    def __init__(self, *args) -> None:
        super().__init__(*args)
        for name, part in self._modules.items():
            require_continual(part, name)

    @property
    def timing(self) -> Timing:
        timing = Timing()
        for part in self:
            timing = timing.then(part.timing)
        return timing

    @property
    def expected_rank(self) -> int | None:
        return next((part.expected_rank for part in self if part.expected_rank is not None), None)

    @property
    def keeps_channels(self) -> bool:
        return all(part.keeps_channels for part in self)

    @property
    def expected_channels(self) -> int | None:
        for part in self:
            if part.expected_channels is not None or not part.keeps_channels:
                return part.expected_channels
        return None

    def forward(self, x: Tensor, pad: bool = True) -> Tensor:
        fresh = False  # whether a part of this chain has made x, for the next part alone
        for part in self:
            takes = fresh and type(part) in (BatchNorm3d, ReLU)
            x = part(x, pad=pad, fresh=True) if takes else part(x, pad=pad)
            fresh = type(part) in (Conv3d, BatchNorm3d)
        return x

    def _begin(self, start: int, fill: str, emit: str) -> tuple[Any, int]:
        states = []
        for part in self:
            state, start = part._begin(start, fill, emit)
            states.append(state)
        return tuple(states), start

    def _steps(self, x: Tensor | None, state: Any, end: bool) -> tuple[Tensor | None, Any]:
        states = list(state)
        for n, part in enumerate(self):
            if x is None and not end:
                break
            x, states[n] = part._steps(x, states[n], end)
        return x, tuple(states)


class Parallel(Tree, nn.Module):
    """Branches over the same input, joined column by column: join="sum", or "cat" along channels.

    A branch that is ahead waits in a queue for the others, so column j of the output is made of
    column j of every branch. That delays a shortcut by the delay of the main branch, as in the
    paper, and keeps branches of equal stride aligned.

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
        timings = [branch.timing for branch in self.branches]
        if len({(t.stride, t.surplus) for t in timings}) > 1:
            raise ValueError(
                "expected branches of one stride and one output length, given "
                + ", ".join(f"{n}: {t[:3]}" for n, t in zip(self.names, timings, strict=True))
                + " as (receptive field, padding, stride)"
            )

    def extra_repr(self) -> str:
        return f"join={self.join!r}"

    @property
    def branches(self) -> list[nn.Module]:
        """In the order in which they were given."""
        return [self._modules[name] for name in self.names]

    @property
    def timing(self) -> Timing:
        return Timing.joined(branch.timing for branch in self.branches)

    @property
    def keeps_channels(self) -> bool:
        return self.join == "sum" and all(branch.keeps_channels for branch in self.branches)

    @property
    def expected_channels(self) -> int | None:
        known = (branch.expected_channels for branch in self.branches)
        return next((channels for channels in known if channels is not None), None)

    def forward(self, x: Tensor, pad: bool = True) -> Tensor:
        if pad:
            return self._join([branch(x) for branch in self.branches])
        widest = self.timing.padding
        columns = [b(x[:, :, widest - b.timing.padding :], pad=False) for b in self.branches]
        shortest = min(column.shape[2] for column in columns)
        return self._join([column[:, :, :shortest] for column in columns])

    def _join(self, columns: list[Tensor]) -> Tensor:
        if self.join == "cat":
            return torch.cat(columns, 1)
        total = columns[0]
        for column in columns[1:]:
            total = total + column
        return total

    def _begin(self, start: int, fill: str, emit: str) -> tuple[Any, int]:
        begun = [branch._begin(start, fill, emit) for branch in self.branches]
        first = min(output for _, output in begun)
        # Zero columns stand in for those that a late branch has not (with either fill, as in the
        # published start-up study). There are none with emit="valid".
        return tuple((state, output - first) for state, output in begun), first

    def _steps(self, x: Tensor | None, state: Any, end: bool) -> tuple[Tensor | None, Any]:
        held, queues = zip(*state, strict=True)
        stepped = [b._steps(x, h, end) for b, h in zip(self.branches, held, strict=True)]
        outputs, held = zip(*stepped, strict=True)
        columns, queues = join(outputs, queues)
        y = None if columns is None else self._join(columns)
        return y, tuple(zip(held, queues, strict=True))


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
            _require_pointwise(activation)
        self.activation = activation

    def _join(self, columns: list[Tensor]) -> Tensor:
        y = super()._join(columns)
        if type(self.activation) is ReLU:
            return self.activation(y, fresh=True)
        return y if self.activation is None else self.activation(y)


class SqueezeExcite(Continual, nn.Module):
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

    @property
    def expected_channels(self) -> int:
        return self.fc1.in_channels

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

    def _steps(self, x: Tensor | None, state: Any, end: bool) -> tuple[Tensor | None, Any]:
        return (None if x is None else self.forward(x)), state


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


def _require_pointwise(module: nn.Module) -> None:
    require_continual(module, "activation")
    if module.timing != Timing():
        raise ValueError(
            f"expected an activation that treats every frame alone, given {type(module).__name__}"
        )

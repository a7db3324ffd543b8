"""When tensors of a stream come, and the queues in which a step keeps them for the next ones."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Clock(NamedTuple):
    """When a tensor comes: its column i at input frame i * stride + delay, counted from 0."""

    stride: int = 1
    delay: int = 0

    def behind(self, layer: nn.Module) -> "Clock":
        """Of the output of a layer with this input."""
        timing = layer.timing
        return Clock(self.stride * timing.stride, self.delay + self.stride * timing.delay)

    def column(self, frame: int) -> int | None:
        """The column that comes at a frame; None if none does."""
        column, rest = divmod(frame - self.delay, self.stride)
        return None if rest else column


@dataclass(frozen=True)
class Queue:
    """A part of the state: the last `length` tensors that a layer has put in.

    Attributes:
        name: of the layer, and of the tensor if it keeps several kinds.
        shape: of each tensor.
        length: tensors held.
        initial: the number that fills them before the first frame, the layer's padding.
        first: the frame, counted from 0, from which on the layer's input is true. What is put in
            before is `initial` again: so all that enters a layer before its column 0 counts as its
            padding, as in a padded clip. No more needs a mask: columns from 0 on are computed from
            what is in queues and a column that is not before 0 either, as no layer has more padding
            than d(k - 1).
    """

    name: str
    shape: tuple[int, ...]
    length: int
    initial: float = 0.0
    first: int = 0


@dataclass(frozen=True)
class Form:
    """How the same numbers are computed, for the sake of a runtime.

    Attributes:
        channels_last: whether maps in queues are (B, H, W, C).
        apart: whether a sum that goes into a queue is kept from being added in place, see `apart`.
        winograd: whether 3x3 convolutions of many channels are computed from fewer products, whose
            rounding float32 bears and bfloat16 does not.
    """

    channels_last: bool = False
    apart: bool = False
    winograd: bool = False


PLAIN = Form()


class Tape:
    """What one pass over a net reads from its queues and puts into them.

    Args:
        phase: of the frame; with None all layers run, on made-up state, which finds the queues.
        state: tensors by queue and depth, the depth being 1 for the tensor put in last.
        counter: the number of the frame, counted from 0, by which `Queue.initial` takes the place
            of what is put in before `Queue.first`; None in passes without arithmetic.
        form: says how maps lie in queues.
    """

    def __init__(
        self,
        phase: int | None,
        state: dict | None = None,
        counter: Tensor | None = None,
        form: Form = PLAIN,
    ) -> None:
        self.phase, self.state, self.counter = phase, state, counter
        self.channels_last = form.channels_last
        self.written: dict[str, Tensor] = {}
        self.queues: dict[str, Queue] = {}

    def column(self, clock: Clock) -> int | None:
        """As `Clock.column`, modulo the phases."""
        return 0 if self.phase is None else clock.column(self.phase)

    def read(self, name: str, depth: int, like: Tensor | None = None) -> Tensor:
        """The tensor put in `depth` times ago; of the shape of `like`, if given."""
        if self.phase is None:
            return torch.zeros_like(like)
        x = self.state[name, depth]
        return x.permute(0, 3, 1, 2) if self.channels_last and x.ndim == 4 else x

    def put(self, x: Tensor, name: str, length: int, first: int = 0, initial: float = 0.0) -> None:
        """Adds a tensor to the queue of that name, which keeps `length` of them.

        Those put in before the step `first`, in the masked start-up, count as `initial`.
        """
        if self.channels_last and x.ndim == 4:
            x = x.permute(0, 2, 3, 1)
        if self.phase is None:
            self.queues[name] = Queue(name, tuple(x.shape), length, initial, first)
        elif self.counter is not None and first > 0:
            x = torch.where(self.counter >= first, x, initial)
        self.written[name] = x


class Framewise(nn.Module):
    """A layer at its place in a net; `clock` is that of its input."""

    def __init__(self, layer: nn.Module, clock: Clock, name: str, form: Form) -> None:
        super().__init__()
        self.name, self.form = name, form
        self.clock, self.after = clock, clock.behind(layer)

    def forward(self, x: Tensor | None, tape: Tape) -> Tensor | None:
        raise NotImplementedError


def join(*names: str) -> str:
    """The path of a part."""
    return ".".join(name for name in names if name)

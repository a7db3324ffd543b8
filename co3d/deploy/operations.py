"""The operations of an explicit step, and the queues in which they keep what later steps need."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn.blocks import SqueezeExcite
from ..nn.conv import Conv3d
from ..nn.core import Timing
from ..nn.pointwise import ACTIVATIONS, Linear
from ..nn.pool import AvgPool3d, MaxPool3d
from ..nn.temporal import Delay, Subsample, Windowed

ON_FRAMES = (*ACTIVATIONS.values(), Linear)  # layers that take (B, C, H, W) as they are


@dataclass(frozen=True)
class Queue:
    """A part of the state: the last `length` tensors that an operation has put in.

    Attributes:
        name: of the layer, and of the tensor if a layer keeps several kinds.
        shape: of each tensor.
        initial: the number that fills them before the first frame: the padding of the layer.
        first: the frame, counted from 0, from which on the input of the layer is real. What is put
            in before becomes `initial`, as in a padded clip. No other tensor needs such a mask: no
            layer has more padding than d(k - 1), so a column from 0 on depends on queues and on
            columns from 0 on.
    """

    name: str
    shape: tuple[int, ...]
    length: int
    initial: float = 0.0
    first: int = 0


def due(timing: Timing, phase: int | None) -> bool:
    """Whether a tensor with this timing has a column at the frames of a phase (None: all)."""
    return phase is None or (phase - timing.delay) % timing.stride == 0


class Tape:
    """What one step reads from the queues and puts into them.

    Args:
        phase: of the frame; None runs every operation, and finds the queues.
        queues: by name.
        channels_last: whether maps lie in queues as (B, H, W, C).
        state: tensors by (queue, depth); depth 1 is the tensor put in last. Without a state, zeros
            stand for what is read, and `reads` collects its keys.
        counter: the number of the frame, by which `Queue.initial` replaces what comes too early.
    """

    def __init__(
        self,
        phase: int | None,
        queues: dict[str, Queue],
        channels_last: bool = False,
        state: dict[tuple[str, int], Tensor] | None = None,
        counter: Tensor | None = None,
    ) -> None:
        self.phase, self.queues, self.channels_last = phase, queues, channels_last
        self.state, self.counter = state, counter
        self.reads: dict[tuple[str, int], None] = {}  # as an ordered set
        self.written: dict[str, Tensor] = {}

    def due(self, timing: Timing) -> bool:
        """Whether an operation with this timing runs."""
        return due(timing, self.phase)

    def read(self, name: str, depth: int, like: Tensor) -> Tensor:
        """The tensor that was put in `depth` times ago, of the dtype and device of `like`."""
        if self.phase is None:
            return torch.zeros_like(like)
        if self.state is None:
            self.reads[name, depth] = None
            x = like.new_zeros(self.queues[name].shape)
        else:
            x = self.state[name, depth]
        return x.permute(0, 3, 1, 2) if self.channels_last and x.ndim == 4 else x

    def put(self, x: Tensor, name: str, length: int, first: int = 0, initial: float = 0.0) -> None:
        """Adds a tensor to a queue, which keeps `length` of them; see `Queue`."""
        if self.channels_last and x.ndim == 4:
            x = x.permute(0, 2, 3, 1)
        if self.phase is None:
            self.queues[name] = Queue(name, tuple(x.shape), length, initial, first)
        elif self.counter is not None and first > 0:
            x = torch.where(self.counter >= first, x, initial)
        self.written[name] = x


class Operation(nn.Module):
    """One operation of a step.

    Attributes:
        sources: the values that it takes: 0 is the frame, n the result of operation n - 1.
        timing: when its result comes.
    """

    def __init__(self, name: str, sources: tuple[int, ...], timing: Timing) -> None:
        super().__init__()
        self.name, self.sources, self.timing = name, sources, timing

    def forward(self, tape: Tape, *values: Tensor | None) -> Tensor | None:
        """Its result; values and result are None where they are not due."""
        raise NotImplementedError


class Map(Operation):
    """A layer that treats every frame alone."""

    def __init__(self, name: str, source: int, before: Timing, layer: nn.Module) -> None:
        super().__init__(name, (source,), before)
        self.function = layer

    def forward(self, tape: Tape, x: Tensor | None) -> Tensor | None:
        if x is None or isinstance(self.function, ON_FRAMES):
            return None if x is None else self.function(x)
        return self.function(x.unsqueeze(2)).squeeze(2)  # as a clip of one frame


class Gate(Map):
    """`SqueezeExcite` over the frame; its two convolutions are products of vectors."""

    def __init__(self, name: str, source: int, before: Timing, layer: SqueezeExcite) -> None:
        if layer.gate != "frame":
            raise TypeError(f"expected gates over single frames, given gate={layer.gate!r} {name}")
        super().__init__(name, source, before, layer)
        self.fc1, self.fc2 = layer.fc1, layer.fc2

    def forward(self, tape: Tape, x: Tensor | None) -> Tensor | None:
        if x is None:
            return None
        mean = x.mean((2, 3))
        inner = F.linear(mean, self.fc1.weight.flatten(1), self.fc1.bias).relu()
        gate = F.linear(inner, self.fc2.weight.flatten(1), self.fc2.bias).sigmoid()
        return x * gate[:, :, None, None]


class Join(Operation):
    """A sum, or a concatenation of channels, of columns with the same index.

    What comes early waits in a queue for the last. `waits` are the queues' (name, length), a length
    of 0 for what needs none.
    """

    def __init__(
        self, name: str, sources: tuple[int, ...], before: Sequence[Timing], concatenates: bool
    ) -> None:
        super().__init__(name, sources, Timing.joined(before))
        self.concatenates = concatenates
        lengths = [-((timing.delay - self.timing.delay) // timing.stride) for timing in before]
        self.waits = [(f"{name}.{n}", length) for n, length in enumerate(lengths)]

    def forward(self, tape: Tape, *values: Tensor | None) -> Tensor | None:
        columns, is_due = [], tape.due(self.timing)
        like = next((x for x in values if x is not None), None)
        for x, (name, length) in zip(values, self.waits, strict=True):
            waits = is_due and length
            columns.append(tape.read(name, length, like if x is None else x) if waits else x)
            if length and x is not None:
                tape.put(x, name, length)
        if not is_due:
            return None
        return torch.cat(columns, 1) if self.concatenates else sum(columns[1:], columns[0])


class Window(Operation):
    """An operation over several inputs, of which only every stride-th result is taken.

    Attributes:
        depths: in the queue, of the earlier inputs of a result, the latest first.
    """

    def __init__(self, name: str, source: int, before: Timing, layer: Windowed) -> None:
        super().__init__(name, (source,), before.then(layer.timing))
        self.kernel, self.dilation, padding, _ = layer._time
        self.first = before.delay if padding else 0
        self.initial = layer.pad_value if padding else 0.0
        span = self.dilation * (self.kernel - 1)
        self.depths = range(self.dilation, span + 1, self.dilation)

    def past(self, tape: Tape, x: Tensor | None) -> list[Tensor] | None:
        """The earlier inputs of the result that comes with `x`, the latest first; keeps `x`."""
        if x is None:
            return None
        is_due = tape.due(self.timing)
        past = [tape.read(self.name, depth, x) for depth in self.depths] if is_due else None
        if self.depths:
            tape.put(x, self.name, self.depths[-1], self.first, self.initial)
        return past


class Pick(Window):
    """`Subsample` and `Delay`: hands on one input."""

    def __init__(self, name: str, source: int, before: Timing, layer: Subsample | Delay) -> None:
        super().__init__(name, source, before, layer)
        self.depths = [layer.delay] if layer.delay else []

    def forward(self, tape: Tape, x: Tensor | None) -> Tensor | None:
        past = self.past(tape, x)
        return None if past is None else [x, *past][-1]


class Mean(Window):
    """`RunningWindow`: the mean of the last vectors, which one tensor (B, frames, C) holds."""

    def forward(self, tape: Tape, x: Tensor | None) -> Tensor | None:
        if x is None:
            return None
        vectors = x.mean((2, 3))[:, None]
        past = self.dilation * (self.kernel - 1)
        if past:
            earlier = tape.read(self.name, 1, vectors.expand(-1, past, -1))
            vectors = torch.cat([earlier, vectors], 1)
            tape.put(vectors[:, 1:], self.name, 1)
        return vectors[:, :: self.dilation].mean(1)


class Convolution(Window):
    """A convolution that keeps its last inputs. `taps` are its kernel slices, the newest first."""

    def __init__(self, name: str, source: int, before: Timing, layer: Conv3d) -> None:
        super().__init__(name, source, before, layer)
        self.taps = nn.ParameterList(
            nn.Parameter(layer.weight.detach()[:, :, tap].contiguous(), requires_grad=False)
            for tap in reversed(range(self.kernel))
        )
        self.bias = layer.bias
        self.options = layer.stride[1:], layer.padding[1:], layer.dilation[1:], layer.groups

    def product(self, x: Tensor, tap: int, bias: Tensor | None = None) -> Tensor:
        """One kernel slice over a map, or over a vector."""
        weight = self.taps[tap]
        if x.ndim == 2:
            return F.linear(x, weight.flatten(1), bias)
        return F.conv2d(x, weight, bias, *self.options)

    def forward(self, tape: Tape, x: Tensor | None) -> Tensor | None:
        past = self.past(tape, x)
        if past is None:
            return None
        terms = [self.product(past[tap - 1], tap) for tap in range(len(past), 0, -1)]
        terms.append(self.product(x, 0, self.bias))
        return sum(terms[1:], terms[0])


class SummingConvolution(Convolution):
    """A convolution that keeps the sums begun, which are smaller than its inputs: the paper's."""

    def queue(self, tap: int) -> str:
        """Where the sum waits that this tap is added to."""
        return f"{self.name}.{tap}"

    def forward(self, tape: Tape, x: Tensor | None) -> Tensor | None:
        if x is None:
            return None
        result = None
        for tap in range(self.kernel):
            y = self.product(x, tap, None if tap else self.bias)
            if tap < self.kernel - 1:
                y = y + tape.read(self.queue(tap), self.dilation, y)
            if tap:
                tape.put(y, self.queue(tap - 1), self.dilation, self.first)
            else:
                result = y
        return result


class Pooling(Window):
    """A pool over space, then over the last inputs."""

    def __init__(
        self, name: str, source: int, before: Timing, layer: MaxPool3d | AvgPool3d
    ) -> None:
        super().__init__(name, source, before, layer)
        self.averages = isinstance(layer, AvgPool3d)
        if self.averages and layer.divisor_override is not None:
            raise ValueError(f"expected no divisor_override of the average {name}, given one")
        self.size, self.step = _pair(layer.kernel_size), _pair(layer.stride)
        self.padding = _pair(layer.padding)
        self.options = (layer.count_include_pad,) if self.averages else (_pair(layer.dilation),)
        self.over_space = (self.size, self.step) != ((1, 1), (1, 1))

    def forward(self, tape: Tape, x: Tensor | None) -> Tensor | None:
        if x is not None and self.over_space:
            sizes = self.size, self.step, self.padding
            if self.averages:
                x = F.avg_pool2d(x, *sizes, False, *self.options)
            else:
                x = F.max_pool2d(x, *sizes, *self.options)
        past = self.past(tape, x)
        if past is None:
            return None
        for other in past:
            x = x + other if self.averages else torch.maximum(x, other)
        return x / self.kernel if self.averages and self.kernel > 1 else x


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)[1:]

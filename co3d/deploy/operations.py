"""The operations of an explicit step, and the queues in which they keep what later steps need."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn.blocks import SqueezeExcite
from ..nn.conv import Conv3d
from ..nn.core import Timing
from ..nn.pool import AvgPool3d, MaxPool3d
from ..nn.temporal import Windowed


@dataclass(frozen=True)
class Queue:
    """A part of the state: the last `length` tensors that an operation has put in.

    Attributes:
        name: of the layer, and of the tensor if a layer keeps several kinds.
        shape: of each tensor.
        initial: the number that fills them before the first frame: the padding of the layer.
        first: the frame, counted from 0, from which on the input of the layer is real. What is put
            in before becomes `initial`, so that it counts as padding, as in a padded clip. No other
            tensor needs such a mask: a column from 0 on depends on queues and on other columns from
            0 on, because no layer has more padding than d(k - 1).
    """

    name: str
    shape: tuple[int, ...]
    length: int
    initial: float = 0.0
    first: int = 0


def due(timing: Timing, phase: int) -> bool:
    """Whether a tensor with this timing has a column at the frames of a phase."""
    return (phase - timing.delay) % timing.stride == 0


class Tape:
    """What one step reads from the queues and puts into them.

    Args:
        phase: of the frame; None runs every operation, which finds the queues.
        state: tensors by queue and depth; depth 1 is the tensor put in last.
        counter: the number of the frame, by which `Queue.initial` replaces what comes too early.
        channels_last: whether maps lie in queues as (B, H, W, C).
    """

    def __init__(
        self,
        phase: int | None,
        state: dict | None = None,
        counter: Tensor | None = None,
        channels_last: bool = False,
    ) -> None:
        self.phase, self.state, self.counter = phase, state, counter
        self.channels_last = channels_last
        self.written: dict[str, Tensor] = {}
        self.queues: dict[str, Queue] = {}

    def due(self, timing: Timing) -> bool:
        """Whether an operation with this timing runs."""
        return self.phase is None or due(timing, self.phase)

    def read(self, name: str, depth: int, like: Tensor) -> Tensor:
        """The tensor put in `depth` times ago; without a phase, zeros of the shape of `like`."""
        if self.phase is None:
            return torch.zeros_like(like)
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
    """A function of every frame alone."""

    def __init__(self, name: str, source: int, timing: Timing, function: Callable) -> None:
        super().__init__(name, (source,), timing)
        self.function = function

    def forward(self, tape: Tape, x: Tensor | None) -> Tensor | None:
        return None if x is None else self.function(x)


class Gate(Map):
    """`SqueezeExcite` over the frame; its two convolutions are products of vectors."""

    def __init__(self, name: str, source: int, timing: Timing, layer: SqueezeExcite) -> None:
        super().__init__(name, source, timing, self.gated)
        self.fc1, self.relu, self.fc2, self.sigmoid = (
            layer.fc1,
            layer.relu,
            layer.fc2,
            layer.sigmoid,
        )

    def gated(self, x: Tensor) -> Tensor:
        """x, each channel multiplied by its gate."""
        inner = self.relu(F.linear(x.mean((2, 3)), self.fc1.weight.flatten(1), self.fc1.bias))
        gate = self.sigmoid(F.linear(inner, self.fc2.weight.flatten(1), self.fc2.bias))
        return x * gate[:, :, None, None]


class Late(Operation):
    """`Delay`: hands on what came `frames` columns before."""

    def __init__(self, name: str, source: int, timing: Timing, frames: int) -> None:
        super().__init__(name, (source,), timing)
        self.frames = frames

    def forward(self, tape: Tape, x: Tensor | None) -> Tensor | None:
        if x is None:
            return None
        late = tape.read(self.name, self.frames, x)
        tape.put(x, self.name, self.frames)
        return late


class Join(Operation):
    """A sum, or a concatenation of channels, of columns with the same index.

    What comes early waits in a queue for the last. `waits` are the queues' (name, length), a length
    of 0 for what needs none.
    """

    def __init__(
        self, name: str, sources: tuple[int, ...], timings: Sequence[Timing], concatenates: bool
    ) -> None:
        super().__init__(name, sources, Timing.joined(timings))
        self.concatenates = concatenates
        self.waits = []
        for n, timing in enumerate(timings):
            length = -((timing.delay - self.timing.delay) // timing.stride)
            self.waits.append((f"{name}.{n}", length))

    def forward(self, tape: Tape, *values: Tensor | None) -> Tensor | None:
        ready, is_due = [], tape.due(self.timing)
        for x, (name, length) in zip(values, self.waits, strict=True):
            ready.append(tape.read(name, length, x) if is_due and length else x)
            if length and x is not None:
                tape.put(x, name, length)
        if not is_due:
            return None
        return torch.cat(ready, 1) if self.concatenates else sum(ready[1:], ready[0])


class Window(Operation):
    """An operation over several inputs, of which only every stride-th result is taken.

    Attributes:
        depths: of the earlier inputs of a result, the latest first.
    """

    def __init__(self, name: str, source: int, before: Timing, layer: Windowed) -> None:
        super().__init__(name, (source,), before.then(layer.timing))
        self.kernel, self.dilation, padding, self.stride = layer._time
        self.before = before
        self.first = before.delay if padding else 0
        self.initial = layer.pad_value if padding else 0.0
        span = self.dilation * (self.kernel - 1)
        ages = range(self.dilation, span + 1, self.dilation)
        self._residue = layer.timing.delay % self.stride  # of the columns that complete a result
        self._kept = {-age % self.stride for age in ages}  # residues that are read again
        self.depths = [self._inputs_kept(age) for age in ages]

    def _inputs_kept(self, age: int) -> int:
        """How many inputs are kept from the one `age` columns before a result to before it."""
        return sum(-n % self.stride in self._kept for n in range(1, age + 1))

    def keeps(self, phase: int | None) -> bool:
        """Whether the input that comes at a phase is read again."""
        if not self.depths or phase is None:
            return bool(self.depths)
        column = (phase - self.before.delay) // self.before.stride
        return (column - self._residue) % self.stride in self._kept

    def past(self, tape: Tape, x: Tensor | None) -> list[Tensor] | None:
        """The earlier inputs of the result that comes with `x`, the latest first; keeps `x`."""
        if x is None:
            return None
        is_due = tape.due(self.timing)
        past = [tape.read(self.name, depth, x) for depth in self.depths] if is_due else None
        if self.keeps(tape.phase):
            tape.put(x, self.name, self.depths[-1], self.first, self.initial)
        return past


class Sample(Window):
    """Every stride-th frame."""

    def forward(self, tape: Tape, x: Tensor | None) -> Tensor | None:
        return None if self.past(tape, x) is None else x


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
        y = None
        for tap in range(len(past), 0, -1):
            term = self.product(past[tap - 1], tap)
            y = term if y is None else y + term
        last = self.product(x, 0, self.bias)
        return last if y is None else y + last


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


class Pool(Window):
    """A pool over space, then over the last inputs."""

    def __init__(
        self, name: str, source: int, before: Timing, layer: MaxPool3d | AvgPool3d
    ) -> None:
        super().__init__(name, source, before, layer)
        self.averages = isinstance(layer, AvgPool3d)
        if self.averages and layer.divisor_override is not None:
            raise ValueError(f"expected no divisor_override of the average {name}, given one")
        self.size, self.step, self.padding = map(
            _pair, (layer.kernel_size, layer.stride, layer.padding)
        )
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

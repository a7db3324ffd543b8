"""The explicit step: a continual net as a list of operations on single frames.

    [logits,] *written = phase(frame, counter, *read)

There is one such pure function for each phase of the temporal strides, in which only the operations
run that are due. Maps are (B, C, H, W) and vectors (B, C). All state lies in queues of tensors: a
runtime hands on pointers and copies nothing. The native engine, `torch.compile` and the exporters
take a net in this form.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import singledispatch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn.blocks import Parallel, Residual, Sequential, SqueezeExcite
from ..nn.conv import Conv3d
from ..nn.core import Timing
from ..nn.fold import fold
from ..nn.net import StreamNet
from ..nn.pointwise import BatchNorm3d, Dropout, Flatten, Identity, Linear, Pointwise
from ..nn.pool import AdaptiveAvgPool3d, AvgPool3d, MaxPool3d, RunningWindow
from ..nn.temporal import Delay, Subsample, Windowed
from ..nn.twopath import TwoPath

State = dict[str, tuple[Tensor, ...]]


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


class Operations:
    """The operations of a net, in the order in which they run."""

    def __init__(self) -> None:
        self.list: list[Operation] = []

    def timing(self, value: int) -> Timing:
        """When a value comes."""
        return self.list[value - 1].timing if value else Timing()

    def add(self, operation: Operation) -> int:
        """Appends an operation; returns the number of its result."""
        self.list.append(operation)
        return len(self.list)

    def join(self, name: str, sources: tuple[int, ...], concatenates: bool) -> int:
        """Appends a `Join`."""
        timings = [self.timing(source) for source in sources]
        return self.add(Join(name, sources, timings, concatenates))


@singledispatch
def lower(layer: nn.Module, net: Operations, x: int, name: str) -> int:
    """Appends the operations of a layer on value `x`; returns the number of the result.

    Raises:
        TypeError: for a layer without a form on frames.
    """
    raise TypeError(f"expected layers with a form on frames, given {type(layer).__name__} {name}")


@lower.register
def _(layer: Sequential, net: Operations, x: int, name: str) -> int:
    for inner, part in layer._modules.items():
        x = lower(part, net, x, _path(name, inner))
    return x


@lower.register(Parallel)
@lower.register(Residual)
def _(layer: Parallel, net: Operations, x: int, name: str) -> int:
    branches = tuple(
        lower(layer._modules[inner], net, x, _path(name, inner)) for inner in layer.names
    )
    x = net.join(_path(name, "join"), branches, layer.join == "cat")
    activation = getattr(layer, "activation", None)
    return x if activation is None else lower(activation, net, x, _path(name, "activation"))


@lower.register
def _(layer: TwoPath, net: Operations, x: int, name: str) -> int:
    fast = x
    slow = lower(layer.sample, net, x, _path(name, "sample"))
    for inner in layer.slow._modules:
        slow = lower(layer.slow._modules[inner], net, slow, _path(name, f"slow.{inner}"))
        fast = lower(layer.fast._modules[inner], net, fast, _path(name, f"fast.{inner}"))
        if inner in layer.lateral:
            where = _path(name, f"lateral.{inner}")
            side = lower(layer.lateral[inner], net, fast, where)
            slow = net.join(_path(where, "join"), (slow, side), True)
    fast = lower(layer.sample, net, fast, _path(name, "thin"))
    return net.join(_path(name, "join"), (slow, fast), True)


@lower.register
def _(layer: Conv3d, net: Operations, x: int, name: str) -> int:
    kernel, _, _, stride = layer._time
    sums = kernel > 1 and stride == 1 and layer._keeps_sums
    kind = SummingConvolution if sums else Convolution
    return net.add(kind(name, x, net.timing(x), layer))


@lower.register(MaxPool3d)
@lower.register(AvgPool3d)
def _(layer: MaxPool3d | AvgPool3d, net: Operations, x: int, name: str) -> int:
    return net.add(Pool(name, x, net.timing(x), layer))


@lower.register
def _(layer: RunningWindow, net: Operations, x: int, name: str) -> int:
    return net.add(Mean(name, x, net.timing(x), layer))


@lower.register
def _(layer: Subsample, net: Operations, x: int, name: str) -> int:
    return net.add(Sample(name, x, net.timing(x), layer)) if layer.stride > 1 else x


@lower.register
def _(layer: Delay, net: Operations, x: int, name: str) -> int:
    timing = net.timing(x).then(layer.timing)
    return net.add(Late(name, x, timing, layer.frames)) if layer.frames else x


@lower.register
def _(layer: SqueezeExcite, net: Operations, x: int, name: str) -> int:
    if layer.gate != "frame":
        raise TypeError(f"expected gates over single frames, given gate={layer.gate!r} {name}")
    return net.add(Gate(name, x, net.timing(x), layer))


@lower.register(Pointwise)
def _(layer: nn.Module, net: Operations, x: int, name: str) -> int:
    return net.add(Map(name, x, net.timing(x), layer))


@lower.register
def _(layer: Linear, net: Operations, x: int, name: str) -> int:
    return net.add(Map(name, x, net.timing(x), layer))


@lower.register(Identity)
@lower.register(Dropout)
def _(layer: nn.Module, net: Operations, x: int, name: str) -> int:
    return x


@lower.register
def _(layer: BatchNorm3d, net: Operations, x: int, name: str) -> int:
    return net.add(Map(name, x, net.timing(x), _Norm(layer)))


class _Norm(nn.Module):
    """A normalisation that no convolution could take up."""

    def __init__(self, layer: BatchNorm3d) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        norm = self.layer
        statistics = norm.running_mean, norm.running_var
        return F.batch_norm(x, *statistics, norm.weight, norm.bias, False, 0.0, norm.eps)


@lower.register
def _(layer: Flatten, net: Operations, x: int, name: str) -> int:
    return net.add(Map(name, x, net.timing(x), _flatten))


def _flatten(x: Tensor) -> Tensor:
    return x.flatten(1)


@lower.register
def _(layer: AdaptiveAvgPool3d, net: Operations, x: int, name: str) -> int:
    size = layer.output_size[1:]
    return net.add(Map(name, x, net.timing(x), lambda y: F.adaptive_avg_pool2d(y, size)))


def _path(*names: str) -> str:
    return ".".join(name for name in names if name)


class Explicit(nn.Module):
    """The steps of a net at all its phases, over the same parameters.

    Args:
        net: a continual net in evaluation mode.
        frame: one for its shape (B, C, H, W), which is fixed.
        channels_last: whether maps lie in queues as (B, H, W, C).

    Attributes:
        operations: in the order in which they run.
        shapes: of each value; 0 is the frame, the last one the logits.
        queues: the state, by name.
        phases: functions; frame n takes the one of phase n modulo their number.

    Raises:
        TypeError: for a net that is not continual, or a layer without a form on frames.
        ValueError: for a net in training mode, or a frame that does not fit.
    """

    def __init__(self, net: StreamNet, frame: Tensor, channels_last: bool = False) -> None:
        super().__init__()
        if not isinstance(net, StreamNet):
            raise TypeError(f"expected a continual net, given {type(net).__name__}")
        net._check_input(net._as_chunk(frame))
        folded, operations = fold(net), Operations()
        vector = lower(folded.body, operations, 0, "")
        flat = operations.add(Map("flatten", vector, net.timing, _flatten))
        operations.add(Map("classifier", flat, net.timing, folded.classifier))
        self.operations, self.timing = nn.ModuleList(operations.list), net.timing
        self.frame_shape, self.channels_last = tuple(frame.shape), channels_last
        self.made = {"dtype": frame.dtype, "device": frame.device}  # how tensors are made
        shapes = _Shapes(self)
        tape = Tape(None, channels_last=channels_last)
        self.shapes = [tuple(value.shape) for value in shapes.run(tape)]
        self.queues: dict[str, Queue] = tape.queues
        self.phases = [Phase(self, phase, shapes) for phase in range(self.timing.stride)]

    @torch.no_grad()
    def begin(self) -> State:
        """The tensors of every queue before the first frame, the one put in last first."""
        return {
            queue.name: tuple(
                torch.full(queue.shape, queue.initial, **self.made) for _ in range(queue.length)
            )
            for queue in self.queues.values()
        }

    @torch.no_grad()
    def step(self, frame: Tensor, number: int, state: State) -> tuple[Tensor | None, State]:
        """Feeds frame `number`, counted from 0; gives logits or None, and the next state."""
        phase = self.phases[number % len(self.phases)]
        read = [state[name][depth - 1] for name, depth in phase.reads]
        outputs = list(phase(frame, torch.tensor(number, device=frame.device), *read))
        logits = outputs.pop(0) if phase.emits else None
        state = dict(state)
        for name, x in zip(phase.writes, outputs, strict=True):
            state[name] = (x, *state[name])[: self.queues[name].length]
        return logits, state


class Phase(nn.Module):
    """The step of a net at the frames of one phase, a pure function.

    Attributes:
        reads: (queue, depth) of the tensors that it takes; depth 1 is the tensor put in last.
        writes: the queues that it puts a tensor into, in the order of its results.
        emits: whether logits are the first of its results; at other phases there are none.
    """

    def __init__(self, net: Explicit, phase: int, shapes: "_Shapes") -> None:
        super().__init__()
        self.operations, self.phase, self.channels_last = net.operations, phase, net.channels_last
        shapes.clear()
        tape = Tape(phase, shapes, channels_last=net.channels_last)
        self.emits = shapes.run(tape)[-1] is not None
        self.reads, self.writes = tuple(shapes), tuple(tape.written)

    @torch.no_grad()
    def forward(self, frame: Tensor, counter: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        tensors = dict(zip(self.reads, state, strict=True))
        tape = Tape(self.phase, tensors, counter, self.channels_last)
        logits = run(self.operations, frame, tape)[-1]
        return (*((logits,) if self.emits else ()), *tape.written.values())


def run(operations: Iterable[Operation], frame: Tensor, tape: Tape) -> list[Tensor | None]:
    """All values; the last one is the logits, or None where the phase has none."""
    values: list[Tensor | None] = [frame]
    for operation in operations:
        values.append(operation(tape, *(values[source] for source in operation.sources)))
    return values


class _Shapes(dict):
    """Runs a net on zeros; as a state it makes up and records all that is read of it."""

    def __init__(self, net: Explicit) -> None:
        super().__init__()
        self.net = net

    @torch.no_grad()
    def run(self, tape: Tape) -> list[Tensor | None]:
        """All values."""
        frame = torch.zeros(self.net.frame_shape, **self.net.made)
        return run(self.net.operations, frame, tape)

    def __missing__(self, key: tuple[str, int]) -> Tensor:
        self[key] = torch.zeros(self.net.queues[key[0]].shape, **self.net.made)
        return self[key]

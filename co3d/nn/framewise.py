"""The layers of a continual net on single frames: maps (B, C, H, W) and vectors (B, C).

A layer is called with a tensor, or None where it is not due, and a tape that holds its queues.
"""

from dataclasses import dataclass
from functools import singledispatch
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import unset_fake_temporarily

from .blocks import Parallel, Residual, Sequential, SqueezeExcite
from .conv import Conv3d
from .pointwise import BatchNorm3d, Flatten, Pointwise
from .pool import AdaptiveAvgPool3d, AvgPool3d, MaxPool3d, RunningWindow
from .temporal import Delay, Subsample, Windowed
from .twopath import TwoPath


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


class Tape:
    """What one pass over a net reads from its queues and puts into them.

    Args:
        phase: of the frame; with None all layers run, on made-up state, which finds the queues.
        state: tensors by queue and depth, the depth being 1 for the tensor put in last.
        counter: the number of the frame, counted from 0; None leaves it to the caller to put
            `Queue.initial` in the place of what is put in before `Queue.first`.
        form: says how maps lie in queues.
    """

    def __init__(
        self,
        phase: int | None,
        state: dict | None = None,
        counter: Tensor | None = None,
        form: Form = Form(),  # noqa: B008
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


class Chain(Framewise):
    def __init__(self, layer: Sequential, clock: Clock, name: str, form: Form) -> None:
        super().__init__(layer, clock, name, form)
        self.parts = nn.ModuleList()
        for inner, part in layer._modules.items():
            self.parts.append(lower(part, clock, join(name, inner), form))
            clock = self.parts[-1].after

    def forward(self, x: Tensor | None, tape: Tape) -> Tensor | None:
        for part in self.parts:
            x = part(x, tape)
        return x


class Join(Framewise):
    """Branches over one input, their columns joined by index: a sum, or along channels."""

    def __init__(self, layer: Parallel, clock: Clock, name: str, form: Form) -> None:
        super().__init__(layer, clock, name, form)
        self.branches = nn.ModuleList(
            lower(layer._modules[inner], clock, join(name, inner), form) for inner in layer.names
        )
        self.queues = Waiting(join(name, "join"), [branch.after for branch in self.branches])
        self.concatenates = layer.join == "cat"
        self.activation = getattr(layer, "activation", None)

    def forward(self, x: Tensor | None, tape: Tape) -> Tensor | None:
        columns = self.queues([branch(x, tape) for branch in self.branches], tape)
        if columns is None:
            return None
        if self.concatenates:
            y = torch.cat(columns, 1)
        else:
            y = sum(columns[1:], columns[0])
            y = apart(y) if self.form.apart else y
        return y if self.activation is None else self.activation(y)


class Waiting:
    """Tensors of one stride and other delays: what comes early waits in a queue for the last."""

    def __init__(self, name: str, clocks: list[Clock]) -> None:
        self.clocks, self.names = clocks, [join(name, str(n)) for n in range(len(clocks))]
        self.clock = Clock(clocks[0].stride, max(clock.delay for clock in clocks))

    def __call__(self, columns: list[Tensor | None], tape: Tape) -> list[Tensor] | None:
        due = tape.column(self.clock) is not None
        ready = []
        for x, name, clock in zip(columns, self.names, self.clocks, strict=True):
            later, rest = divmod(self.clock.delay - clock.delay, clock.stride)
            length = later + (rest > 0)  # put in at least once before it is read
            ready.append(tape.read(name, length, x) if due and length else x)
            if length and x is not None:
                tape.put(x, name, length)
        return ready if due else None


class Paths(Framewise):
    """`TwoPath`: the slow path over every alpha-th frame beside the fast path over all."""

    def __init__(self, layer: TwoPath, clock: Clock, name: str, form: Form) -> None:
        super().__init__(layer, clock, name, form)
        slow, fast = clock.behind(layer.sample), clock
        self.sample = Sample(layer.sample, clock, name, form)
        self.slow, self.fast, self.lateral = nn.ModuleList(), nn.ModuleList(), nn.ModuleDict()
        self.queues = {}
        for inner in layer.slow._modules:
            parts = (layer.slow._modules[inner], layer.fast._modules[inner])
            self.slow.append(lower(parts[0], slow, join(name, "slow", inner), form))
            self.fast.append(lower(parts[1], fast, join(name, "fast", inner), form))
            slow, fast = self.slow[-1].after, self.fast[-1].after
            if inner in layer.lateral:
                key, where = str(len(self.slow) - 1), join(name, "lateral", inner)
                self.lateral[key] = lower(layer.lateral._modules[inner], fast, where, form)
                self.queues[key] = Waiting(join(where, "join"), [slow, self.lateral[key].after])
                slow = self.queues[key].clock
        self.thin = Sample(layer.sample, fast, name, form)
        self.end = Waiting(join(name, "join"), [slow, self.thin.after])

    def forward(self, x: Tensor | None, tape: Tape) -> Tensor | None:
        slow, fast = self.sample(x, tape), x
        for n, (slow_part, fast_part) in enumerate(zip(self.slow, self.fast, strict=True)):
            slow, fast, key = slow_part(slow, tape), fast_part(fast, tape), str(n)
            if key in self.lateral:
                columns = self.queues[key]([slow, self.lateral[key](fast, tape)], tape)
                slow = None if columns is None else torch.cat(columns, 1)
        columns = self.end([slow, self.thin(fast, tape)], tape)
        return None if columns is None else torch.cat(columns, 1)


class Windows(Framewise):
    """A layer over several inputs of which only every stride-th output is taken."""

    def __init__(self, layer: Windowed, clock: Clock, name: str, form: Form) -> None:
        super().__init__(layer, clock, name, form)
        self.kernel, self.dilation, padding, self.stride = layer._time
        self.masked_until = clock.delay if padding else 0
        self.initial = layer.pad_value if padding else 0.0
        newest = self.dilation * (self.kernel - 1)
        ages = range(self.dilation, newest + 1, self.dilation)  # of the earlier inputs of an output
        self._late = layer.timing.delay % self.stride  # outputs come with columns of this residue
        self._kept = {-age % self.stride for age in ages}  # such inputs are read again
        self.depths = [self._puts(age) for age in ages]

    def _puts(self, age: int) -> int:
        """How many inputs are kept from the one `age` inputs before an output to before it."""
        return sum(-n % self.stride in self._kept for n in range(1, age + 1))

    def past(self, x: Tensor, tape: Tape) -> list[Tensor] | None:
        """The earlier inputs of the output that comes with `x`, the last first; keeps `x`."""
        if x is None:
            return None
        due = tape.column(self.after) is not None
        past = [tape.read(self.name, depth, x) for depth in self.depths] if due else None
        rest = (tape.column(self.clock) - self._late) % self.stride
        if self.depths and (tape.phase is None or rest in self._kept):
            tape.put(x, self.name, self.depths[-1], self.masked_until, self.initial)
        return past


class Sample(Windows):
    def forward(self, x: Tensor | None, tape: Tape) -> Tensor | None:
        return None if self.past(x, tape) is None else x


class Convolution(Windows):
    """A convolution that keeps its last inputs."""

    def __init__(self, layer: Conv3d, clock: Clock, name: str, form: Form) -> None:
        super().__init__(layer, clock, name, form)
        self.taps = nn.ParameterList(
            nn.Parameter(layer.weight.detach()[:, :, tap].contiguous(), requires_grad=False)
            for tap in reversed(range(self.kernel))
        )  # that of the newest input first
        self.bias = layer.bias
        self.options = (layer.stride[1:], layer.padding[1:], layer.dilation[1:], layer.groups)

    def product(self, x: Tensor, tap: int, bias: Tensor | None = None) -> Tensor:
        """One kernel slice, with one frame or vector."""
        weight = self.taps[tap]
        if x.ndim == 2:
            return F.linear(x, weight.flatten(1), bias)
        return F.conv2d(x, weight, bias, *self.options)

    def forward(self, x: Tensor | None, tape: Tape) -> Tensor | None:
        past = self.past(x, tape)
        if past is None:
            return None
        y = self.product(past[-1], len(past)) if past else None
        for tap in reversed(range(1, len(past))):
            y = y + self.product(past[tap - 1], tap)
        last = self.product(x, 0, self.bias)
        return last if y is None else y + last


class SummingConvolution(Convolution):
    """A convolution that keeps the outputs begun, which are smaller than its inputs."""

    def past(self, x: Tensor | None, tape: Tape) -> list[Tensor] | None:
        raise NotImplementedError

    def forward(self, x: Tensor | None, tape: Tape) -> Tensor | None:
        if x is None:
            return None
        result = None
        for tap in range(self.kernel):
            y = self.product(x, tap, None if tap else self.bias)
            if tap < self.kernel - 1:
                y = y + tape.read(join(self.name, str(tap)), self.dilation, y)
                y = apart(y) if self.form.apart else y
            if tap:
                queue = join(self.name, str(tap - 1))
                tape.put(y, queue, self.dilation, self.masked_until)
            else:
                result = y
        return result


class WinogradConvolution(Convolution):
    """A 3x3 convolution with 6 products along the height in the place of 12, by
    F(4, 3) of Winograd's minimal filtering (https://arxiv.org/abs/1509.09308).

    Rows of maps (B, H, W, C) go to 6 transformed maps of a quarter of the height by a matrix, those
    through a 1x3 convolution each, and their results to rows by another matrix.
    """

    CHANNELS = 128  # fewer do not pay for the two matrices

    @classmethod
    def suits(cls, layer: Conv3d) -> bool:
        shape = (layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups)
        plain = shape == ((1, 3, 3), (1, 1, 1), (0, 1, 1), (1, 1, 1), 1)
        return plain and min(layer.in_channels, layer.out_channels) >= cls.CHANNELS

    def __init__(self, layer: Conv3d, clock: Clock, name: str, form: Form) -> None:
        super().__init__(layer, clock, name, form)
        weight = self.taps[0]
        parts = torch.einsum("rh,kchw->rkcw", torch.tensor(_FILTERS).double(), weight.double())
        del self.taps
        self.register_buffer("into", None)
        self.register_buffer("back", None)
        self.parts = nn.ParameterList(
            nn.Parameter(part[:, :, None].to(weight).contiguous(), requires_grad=False)
            for part in parts
        )

    def forward(self, x: Tensor | None, tape: Tape) -> Tensor | None:
        if x is None:
            return None
        batch, channels, height, width = x.shape
        if self.into is None:  # the first pass, which looks for queues, tells the height
            with unset_fake_temporarily():
                self.into, self.back = (part.to(x.dtype) for part in _row_matrices(height))
        rows = x.permute(0, 2, 3, 1).reshape(batch, height, width * channels)
        rows = torch.matmul(self.into, rows).reshape(batch * 6, -1, width, channels)
        groups = rows.permute(0, 3, 1, 2)
        if batch > 1:  # one after the other lie the 6 maps of each example
            groups = groups.unflatten(0, (batch, 6)).transpose(0, 1).flatten(0, 1)
        maps = zip(groups.split(batch), self.parts, strict=True)
        y = torch.cat([F.conv2d(part, weight, None, 1, (0, 1)) for part, weight in maps])
        if batch > 1:
            y = y.unflatten(0, (6, batch)).transpose(0, 1).flatten(0, 1)
        y = y.permute(0, 2, 3, 1).reshape(batch, self.into.shape[0], -1)
        y = torch.matmul(self.back, y).reshape(batch, height, width, -1)
        return (y if self.bias is None else y + self.bias).permute(0, 3, 1, 2)


_INPUTS = (
    *((4, 0, -5, 0, 1, 0), (0, -4, -4, 1, 1, 0), (0, 4, -4, -1, 1, 0)),
    *((0, -2, -1, 2, 1, 0), (0, 2, -1, -2, 1, 0), (0, 4, 0, -5, 0, 1)),
)
_FILTERS = (
    *((1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6)),
    *((1 / 24, 1 / 12, 1 / 6), (1 / 24, -1 / 12, 1 / 6), (0, 0, 1)),
)
_OUTPUTS = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))


def _row_matrices(height: int) -> tuple[Tensor, Tensor]:
    """From `height` rows to 6 maps of a quarter of them, and back; rows outside are zeros."""
    tiles = -(-height // 4)
    into, back = torch.zeros(6, tiles, 4 * tiles + 2), torch.zeros(tiles, 4, 6, tiles)
    for tile in range(tiles):
        into[:, tile, 4 * tile : 4 * tile + 6] = torch.tensor(_INPUTS)
        back[tile, :, :, tile] = torch.tensor(_OUTPUTS)
    return into[:, :, 1 : height + 1].flatten(0, 1), back.flatten(0, 1)[:height].flatten(1)


class Pool(Windows):
    """A pool over space, then over the last inputs."""

    def __init__(self, layer: MaxPool3d | AvgPool3d, clock: Clock, name: str, form: Form) -> None:
        super().__init__(layer, clock, name, form)
        self.averages = isinstance(layer, AvgPool3d)
        sizes = [_pair(value) for value in (layer.kernel_size, layer.stride, layer.padding)]
        if self.averages:
            if layer.divisor_override is not None:
                raise ValueError("expected no divisor_override of an average, given one")
            self.pool, sizes = F.avg_pool2d, [*sizes, False, layer.count_include_pad]
        else:
            self.pool, sizes = F.max_pool2d, [*sizes, _pair(layer.dilation)]
        self.sizes = sizes if sizes[:2] != [(1, 1), (1, 1)] else None

    def forward(self, x: Tensor | None, tape: Tape) -> Tensor | None:
        if x is not None and self.sizes:
            x = self.pool(x, *self.sizes)
        past = self.past(x, tape)
        if past is None:
            return None
        for other in past:
            x = x + other if self.averages else torch.maximum(x, other)
        return x / self.kernel if self.averages and self.kernel > 1 else x


class Late(Framewise):
    """`Delay`."""

    def __init__(self, layer: Delay, clock: Clock, name: str, form: Form) -> None:
        super().__init__(layer, clock, name, form)
        self.frames = layer.frames

    def forward(self, x: Tensor | None, tape: Tape) -> Tensor | None:
        if x is None or not self.frames:
            return x
        late = tape.read(self.name, self.frames, x)
        tape.put(x, self.name, self.frames)
        return late


class Mean(Framewise):
    """`RunningWindow`: the mean of the last vectors, which one tensor (B, frames, C) holds."""

    def __init__(self, layer: RunningWindow, clock: Clock, name: str, form: Form) -> None:
        super().__init__(layer, clock, name, form)
        self.past, self.dilation = layer.receptive_field - 1, layer.dilation

    def forward(self, x: Tensor | None, tape: Tape) -> Tensor | None:
        if x is None:
            return None
        vectors = past_vectors(x.mean((2, 3)), self.past, self.name, tape)
        due = tape.column(self.after) is not None
        return vectors[:, :: self.dilation].mean(1) if due else None


class Gate(Framewise):
    """`SqueezeExcite`, whose two convolutions are matrices."""

    def __init__(self, layer: SqueezeExcite, clock: Clock, name: str, form: Form) -> None:
        super().__init__(layer, clock, name, form)
        self.window = layer.window
        self.fc1, self.relu, self.fc2, self.sigmoid = (
            *(layer.fc1, layer.relu),
            *(layer.fc2, layer.sigmoid),
        )

    def forward(self, x: Tensor | None, tape: Tape) -> Tensor | None:
        if x is None:
            return None
        mean = x.mean((2, 3))
        if self.window:  # zeros are not counted, nor is the one that is held beside each vector
            counted = torch.cat([mean, torch.ones_like(mean[:, :1])], 1)
            total = past_vectors(counted, self.window - 1, self.name, tape, self.clock.delay).sum(1)
            mean = total[:, :-1] / total[:, -1:]
        inner = self.relu(F.linear(mean, self.fc1.weight.flatten(1), self.fc1.bias))
        gate = self.sigmoid(F.linear(inner, self.fc2.weight.flatten(1), self.fc2.bias))
        return x * gate[:, :, None, None]


class Pointwisely(Framewise):
    """A layer that treats every frame alone, on frames."""

    def __init__(self, layer: Pointwise, clock: Clock, name: str, form: Form) -> None:
        super().__init__(layer, clock, name, form)
        self.layer = layer

    def forward(self, x: Tensor | None, tape: Tape) -> Tensor | None:
        return None if x is None else self.layer(x)


class Norm(Framewise):
    """A normalisation that no convolution could take up."""

    def __init__(self, layer: BatchNorm3d, clock: Clock, name: str, form: Form) -> None:
        super().__init__(layer, clock, name, form)
        self.layer = layer

    def forward(self, x: Tensor | None, tape: Tape) -> Tensor | None:
        return (
            None
            if x is None
            else F.batch_norm(
                *(x, self.layer.running_mean, self.layer.running_var),
                *(self.layer.weight, self.layer.bias, False, 0.0, self.layer.eps),
            )
        )


class Flat(Framewise):
    def forward(self, x: Tensor | None, tape: Tape) -> Tensor | None:
        return None if x is None else x.flatten(1)


class Shrink(Framewise):
    """`AdaptiveAvgPool3d` that leaves time alone."""

    def __init__(self, layer: AdaptiveAvgPool3d, clock: Clock, name: str, form: Form) -> None:
        super().__init__(layer, clock, name, form)
        self.size = layer.output_size[1:]

    def forward(self, x: Tensor | None, tape: Tape) -> Tensor | None:
        return None if x is None else F.adaptive_avg_pool2d(x, self.size)


def apart(x: Tensor) -> Tensor:
    """The same numbers, exactly: min(x, |x|).

    OpenVINO adds to the result of a convolution in place, and what was made in place it copies
    twice on its way to an output; behind this it does neither.
    """
    return torch.minimum(x, x.abs())


def past_vectors(x: Tensor, past: int, name: str, tape: Tape, masked_until: int = 0) -> Tensor:
    """The last vectors (B, past + 1, C), x being the last one, which are kept as one tensor."""
    x = x[:, None]
    if not past:
        return x
    held = tape.read(name, 1, x.expand(-1, past, -1))
    vectors = torch.cat([held, x], 1)
    tape.put(vectors[:, 1:], name, 1, masked_until)
    return vectors


@singledispatch
def lower(layer: nn.Module, clock: Clock, name: str, form: Form) -> Framewise:
    """The form on frames of a layer whose input comes by `clock`.

    Raises:
        TypeError: for a layer that has none.
    """
    raise TypeError(f"expected layers with a form on frames, given {type(layer).__name__} {name}")


for known, lowered in {
    **{Sequential: Chain, Parallel: Join, Residual: Join, TwoPath: Paths, Subsample: Sample},
    **{MaxPool3d: Pool, AvgPool3d: Pool, Delay: Late, RunningWindow: Mean, SqueezeExcite: Gate},
    **{Pointwise: Pointwisely, BatchNorm3d: Norm, Flatten: Flat, AdaptiveAvgPool3d: Shrink},
}.items():
    lower.register(known, lowered)


@lower.register
def _(layer: Conv3d, clock: Clock, name: str, form: Form) -> Framewise:
    kernel, _, _, stride = layer._time
    kind = Convolution
    if kernel > 1 and stride == 1 and layer._keeps_sums:
        kind = SummingConvolution
    elif form.winograd and WinogradConvolution.suits(layer):
        kind = WinogradConvolution
    return kind(layer, clock, name, form)


def join(*names: str) -> str:
    return ".".join(name for name in names if name)


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)[1:]

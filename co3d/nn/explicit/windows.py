"""Layers over several inputs: convolutions, and what samples or pools."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..conv import Conv3d
from ..pool import AvgPool3d, MaxPool3d
from ..temporal import Windowed
from .tape import Clock, Form, Framewise, Tape, join


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
    """Every stride-th frame."""

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


def apart(x: Tensor) -> Tensor:
    """The same numbers, exactly: min(x, |x|).

    OpenVINO adds to the result of a convolution in place, and what was made in place it copies
    twice on its way to an output; behind this it does neither.
    """
    return torch.minimum(x, x.abs())


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)[1:]

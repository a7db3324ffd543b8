"""Trees of layers, and which form each layer of `co3d.nn` has on frames."""

from functools import singledispatch

import torch
from torch import Tensor, nn

from ..blocks import Parallel, Residual, Sequential, SqueezeExcite
from ..conv import Conv3d
from ..pointwise import BatchNorm3d, Flatten, Pointwise
from ..pool import AdaptiveAvgPool3d, AvgPool3d, MaxPool3d, RunningWindow
from ..temporal import Delay, Subsample
from ..twopath import TwoPath
from .layers import Flat, Gate, Late, Mean, Norm, Pointwisely, Shrink
from .tape import Clock, Form, Framewise, Tape, join
from .windows import Convolution, Pool, Sample, SummingConvolution, apart
from .winograd import WinogradConvolution


class Chain(Framewise):
    """One part after the other."""

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

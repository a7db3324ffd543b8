"""Layers that treat every frame alone, or keep what is no convolution."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..blocks import SqueezeExcite
from ..pointwise import BatchNorm3d, Pointwise
from ..pool import AdaptiveAvgPool3d, RunningWindow
from ..temporal import Delay
from .tape import Clock, Form, Framewise, Tape


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
            counted = torch.cat([mean, torch.ones(len(x), 1, dtype=x.dtype, device=x.device)], 1)
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
    """`torch.nn.Flatten` of a frame."""

    def forward(self, x: Tensor | None, tape: Tape) -> Tensor | None:
        return None if x is None else x.flatten(1)


class Shrink(Framewise):
    """`AdaptiveAvgPool3d` that leaves time alone."""

    def __init__(self, layer: AdaptiveAvgPool3d, clock: Clock, name: str, form: Form) -> None:
        super().__init__(layer, clock, name, form)
        self.size = layer.output_size[1:]

    def forward(self, x: Tensor | None, tape: Tape) -> Tensor | None:
        return None if x is None else F.adaptive_avg_pool2d(x, self.size)


def past_vectors(x: Tensor, past: int, name: str, tape: Tape, masked_until: int = 0) -> Tensor:
    """The last vectors (B, past + 1, C), x being the last one, which are kept as one tensor."""
    x = x[:, None]
    if not past:
        return x
    held = tape.read(name, 1, x.expand(-1, past, -1))
    vectors = torch.cat([held, x], 1)
    tape.put(vectors[:, 1:], name, 1, masked_until)
    return vectors

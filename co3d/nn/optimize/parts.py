"""Parts of a fast step that treat every frame alone."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..blocks import SqueezeExcite
from ..conv import Conv3d
from ..pointwise import ReLU, SiLU
from ..pool import MaxPool3d
from .kernels import Frames, Kernel, kernel, product


class Part:
    """What a chain is made of: it takes a frame, (B H W, C), and may write to it if nobody else
    needs it.

    Attributes:
        out: what the outputs are like.
    """

    out: Frames

    def take(self, module: nn.Module) -> bool:
        """Makes the activation that follows a part of this one, and says whether it could."""
        return False

    def begin(self, start: int, fill: str, emit: str) -> tuple[Any, int]:
        """As `Continual._begin`, for a state that `push` changes."""
        return (), start

    def push(self, x: Tensor, state: Any) -> Tensor | None:
        """One frame in; the output that it completes, or None."""
        raise NotImplementedError

    def finish(self, state: Any) -> Iterator[Tensor]:
        """The outputs that the padding behind the last frame completes; each one is used before
        the next is made."""
        yield from ()


class Spatial(Part):
    """A convolution of single frames, with its ReLU."""

    def __init__(self, conv: Conv3d, frames: Frames, held: bool) -> None:
        self.kernel, self.relu = tap(conv, 0, frames), False
        self.out = self.kernel.out
        self.buffer = None if held else self.out.empty()

    def take(self, module: nn.Module) -> bool:
        taken = type(module) is ReLU
        self.relu |= taken
        return taken

    def push(self, x: Tensor, state: Any) -> Tensor:
        if self.buffer is None:
            return self.kernel(x, self.relu)
        return self.kernel.into(x, self.buffer, self.relu)


class Activation(Part):
    """ReLU or SiLU, in place where nobody else needs the input."""

    def __init__(self, module: nn.Module, frames: Frames, shared: bool) -> None:
        self.out = frames
        fresh, in_place = {ReLU: (F.relu, F.relu_), SiLU: (F.silu, torch.ops.aten.silu_)}[
            type(module)
        ]
        self.function = fresh if shared else in_place

    def push(self, x: Tensor, state: Any) -> Tensor:
        return self.function(x)


class Gate(Part):
    """Squeeze and excite over one frame: a sum, two matrix products, a multiplication."""

    def __init__(self, gate: SqueezeExcite, frames: Frames, shared: bool) -> None:
        self.out, self.in_place = frames, not shared
        first, second = gate.fc1.weight.flatten(1), gate.fc2.weight.flatten(1)
        pixels = frames.size[2:].numel()
        # The mean is a sum whose divisor is in the weights.
        given = gate.fc1.bias, first.t() / pixels, gate.fc2.bias, second.t().contiguous()
        self.weights = [value.detach().to(frames.dtype) for value in given]
        self.view = frames.size[0], pixels, frames.size[1]
        # Told where to write, TorchScript takes a product with its bias as it is, to the last bit.
        self.factor = torch.empty(frames.size[:2], dtype=frames.dtype, device=frames.device)
        self.ones = None  # a product with it is the sum of a single frame's pixels, in one call
        if frames.size[0] == 1:
            self.ones = torch.ones(1, pixels, dtype=frames.dtype, device=frames.device)

    def push(self, x: Tensor, state: Any) -> Tensor:
        first_bias, first, second_bias, second = self.weights
        total = x.view(self.view).sum(1) if self.ones is None else torch.mm(self.ones, x)
        squeezed = product(relu=True)(first_bias, total, first)
        factor = torch.addmm(second_bias, squeezed, second, out=self.factor).sigmoid_()
        if self.view[0] > 1:
            factor = factor.repeat_interleave(self.view[1], 0)
        return x.mul_(factor) if self.in_place else x * factor


class Pool(Part):
    """A max-pool of single frames."""

    def __init__(self, pool: MaxPool3d, frames: Frames) -> None:
        self.options = [pair(value) for value in (pool.kernel_size, pool.stride, pool.padding)]
        size = F.max_pool2d(torch.empty(frames.size, device="meta"), *self.options).shape
        self.frames, self.out = frames, frames.resized(*size)

    def push(self, x: Tensor, state: Any) -> Tensor:
        return self.out.rows(torch.max_pool2d(self.frames.image(x), *self.options))


def tap(conv: Conv3d, k: int, frames: Frames, bias: bool = True) -> Kernel:
    """The kernel of a convolution's slice k in time."""
    shift = conv.bias.detach().to(frames.dtype) if bias and conv.bias is not None else None
    weight = conv.weight.detach()[:, :, k].to(frames.dtype)
    if conv.dilation[1:] != (1, 1):
        raise TypeError(f"expected convolutions without spatial dilation, given {conv}")
    return kernel(weight, shift, frames, conv.stride[1:], conv.padding[1:], conv.groups)


def pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    """Height and width of a hyper-parameter of three axes."""
    return (value,) * 2 if isinstance(value, int) else tuple(value[1:])

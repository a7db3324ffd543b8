"""Spatial convolutions of one frame in the form that is fastest for their size.

A frame is held as the matrix (B H W, C) that it is, row by row, in channels-last layout: matrix
products take it as it is, and convolutions a view of it.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..pointwise import ReLU, SiLU

# From this size on oneDNN's convolutions beat a matrix product with what surrounds it.
MATRIX_MACS = 10_000_000
FRESH = 1 << 18  # bytes from which a new buffer costs more (page faults) than filling an old one

_onednn = torch.ops.mkldnn
# By the names that oneDNN has for them.
_ACTIVATIONS = {
    "none": lambda y: y,
    "relu": Tensor.relu_,
    "swish": torch.ops.aten.silu_,
}


class Frames(NamedTuple):
    """What the frames at a place of a network are like."""

    size: torch.Size  # (B, C, H, W)
    dtype: torch.dtype
    device: torch.device

    def resized(self, *size: int) -> "Frames":
        """The same with another size (B, C, H, W)."""
        return self._replace(size=torch.Size(size))

    def full(self, value: float) -> Tensor:
        """A frame of one value, (B H W, C)."""
        return self.empty().fill_(value)

    def empty(self) -> Tensor:
        """A frame (B H W, C) of any values."""
        return torch.empty(self.shape, dtype=self.dtype, device=self.device)

    @property
    def shape(self) -> tuple[int, int]:
        """Of the matrix of frames: (B H W, C)."""
        batch, channels, height, width = self.size
        return batch * height * width, channels

    @property
    def strides(self) -> tuple[int, int, int, int]:
        """Of the view (B, C, H, W)."""
        _, channels, height, width = self.size
        return height * width * channels, 1, width * channels, channels

    @property
    def nbytes(self) -> int:
        """Of one frame of the batch."""
        return self.size[1:].numel() * self.dtype.itemsize

    def rows(self, image: Tensor) -> Tensor:
        """The matrix of frames (B, C, H, W)."""
        return image.permute(0, 2, 3, 1).reshape(self.shape).contiguous()

    def image(self, rows: Tensor) -> Tensor:
        """A view (B, C, H, W) of the matrix."""
        return rows.as_strided(self.size, self.strides)


class Kernel:
    """y = activation(weight * x + bias) by torch's convolution: the form for any device.

    Args:
        weight: (C', C / groups, h, w) on the device and in the type that frames have.
        bias: (C') or None.
        frames: the inputs.
        stride, padding: of height and width.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        frames: Frames,
        stride: tuple[int, int],
        padding: tuple[int, int],
        groups: int,
    ) -> None:
        self.weight = weight.contiguous(memory_format=torch.channels_last)
        self.bias, self.stride, self.padding, self.groups = bias, stride, padding, groups
        sides = zip(frames.size[2:], weight.shape[2:], stride, padding, strict=True)
        height, width = ((n + 2 * p - k) // s + 1 for n, k, s, p in sides)
        self.out = frames.resized(frames.size[0], weight.shape[0], height, width)
        self.view = frames.size, frames.strides

    def __call__(self, x: Tensor, relu: bool = False) -> Tensor:
        """The output in a new tensor."""
        image = x.as_strided(*self.view)
        y = F.conv2d(image, self.weight, self.bias, self.stride, self.padding, 1, self.groups)
        y = self.out.rows(y)
        return y.clamp_min_(0) if relu else y

    def into(self, x: Tensor, y: Tensor, relu: bool = False) -> Tensor:
        """The output, in the memory of y if that is worth it."""
        return self(x, relu)

    def add_(self, x: Tensor, total: Tensor, relu: bool = False) -> Tensor:
        """total = activation(total + output), in place."""
        total.add_(self(x))
        return total.clamp_min_(0) if relu else total


class OneDNN(Kernel):
    """With weights in oneDNN's own layout, and sum and activation in the same pass (CPU)."""

    def __init__(self, weight: Tensor, bias: Tensor | None, frames: Frames, *geometry) -> None:
        super().__init__(weight, bias, frames, *geometry)
        self.geometry = [*self.padding], [*self.stride], [1, 1], self.groups
        self.weight = _onednn._reorder_convolution_weight(weight, *self.geometry, [*frames.size])
        self.fill = torch.zeros(()) if bias is None else bias
        self.reuses = self.out.shape[0] * self.out.shape[1] * weight.itemsize >= FRESH
        self.target = self.out.size, self.out.strides
        self.result = self.out.shape, (self.out.shape[1], 1)

    def __call__(self, x: Tensor, relu: bool = False) -> Tensor:
        given = x.as_strided(*self.view), self.weight, self.bias, *self.geometry
        y = _onednn._convolution_pointwise(*given, "relu" if relu else "none", [], "")
        return y.as_strided(*self.result)

    def into(self, x: Tensor, y: Tensor, relu: bool = False) -> Tensor:
        return self._add(x, y.copy_(self.fill), None, relu) if self.reuses else self(x, relu)

    def add_(self, x: Tensor, total: Tensor, relu: bool = False) -> Tensor:
        return self._add(x, total, self.bias, relu)

    def _add(self, x: Tensor, total: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
        _onednn._convolution_pointwise_.binary(
            *(total.as_strided(*self.target), x.as_strided(*self.view), self.weight, bias),
            *(*self.geometry, "add", 1.0, "relu" if relu else None, [], None),
        )
        return total


class Matrix(Kernel):
    """A 1x1 convolution as a matrix product: little overhead, and writes where it is told to."""

    def __init__(self, weight: Tensor, bias: Tensor | None, frames: Frames, *geometry) -> None:
        super().__init__(weight, bias, frames, *geometry)
        self.weight = weight.flatten(1).t().contiguous()

    def __call__(self, x: Tensor, relu: bool = False) -> Tensor:
        return self.into(x, self.out.empty(), relu)

    def into(self, x: Tensor, y: Tensor, relu: bool = False) -> Tensor:
        if self.bias is None:
            torch.mm(x, self.weight, out=y)
            return y.clamp_min_(0) if relu else y
        return product(relu)(self.bias, x, self.weight, out=y)

    def add_(self, x: Tensor, total: Tensor, relu: bool = False) -> Tensor:
        if self.bias is not None:
            total.add_(self.bias)
        return product(relu)(total, x, self.weight, out=total)


def product(relu: bool) -> Callable[..., Tensor]:
    """addmm, with the ReLU behind it or without: one call in the place of two."""
    return torch._addmm_activation if relu else torch.addmm


class Scale(Kernel):
    """A 1x1 convolution of every channel alone."""

    def __init__(self, weight: Tensor, bias: Tensor | None, frames: Frames, *geometry) -> None:
        super().__init__(weight, bias, frames, *geometry)
        self.factor = weight.flatten()

    def __call__(self, x: Tensor, relu: bool = False) -> Tensor:
        return self.into(x, self.out.empty(), relu)

    def into(self, x: Tensor, y: Tensor, relu: bool = False) -> Tensor:
        if self.bias is None:
            torch.mul(x, self.factor, out=y)
        else:
            torch.addcmul(self.bias, x, self.factor, out=y)
        return y.clamp_min_(0) if relu else y

    def add_(self, x: Tensor, total: Tensor, relu: bool = False) -> Tensor:
        total.addcmul_(x, self.factor)
        if self.bias is not None:
            total.add_(self.bias)
        return total.clamp_min_(0) if relu else total


class Depthwise3d:
    """A convolution of every channel alone, over a ring of as many frames as the kernel has.

    Args:
        weight: (C, 1, kT, h, w).
        bias: (C) or None.
        frames: in and out, the padding keeps their size.
        padding: of height and width.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, frames: Frames, padding: tuple[int, int]
    ) -> None:
        batch, channels, *size = frames.size
        self.geometry = [0, *padding], [1, 1, 1], [1, 1, 1], channels
        self.weight, self.bias = weight.contiguous(memory_format=torch.channels_last_3d), bias
        self.frames, self.packed, self.activation = frames, _packs(weight), "none"
        self.result = frames.shape, (channels, 1)
        if self.packed:
            clip = [batch, channels, weight.shape[2], *size]
            self.weight = _onednn._reorder_convolution_weight(weight, *self.geometry, clip)

    def __call__(self, clip: Tensor) -> Tensor:
        """(B, C, kT, H, W) to (B H W, C)."""
        if not self.packed:
            padding, stride, dilation, groups = self.geometry
            y = F.conv3d(clip, self.weight, self.bias, stride, padding, dilation, groups)
            return _ACTIVATIONS[self.activation](self.frames.rows(y.squeeze(2)))
        given = clip, self.weight, self.bias, *self.geometry
        y = _onednn._convolution_pointwise(*given, self.activation, [], "")
        return y.as_strided(*self.result)

    def take(self, module: nn.Module) -> bool:
        """Makes the activation that follows, unless it makes one already."""
        free = self.activation == "none" and type(module) in (ReLU, SiLU)
        if free:
            self.activation = "relu" if type(module) is ReLU else "swish"
        return free


def kernel(
    weight: Tensor,
    bias: Tensor | None,
    frames: Frames,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    groups: int = 1,
) -> Kernel:
    """The fastest form of a convolution of such frames."""
    given = weight, bias, frames, stride, padding, groups
    alone = weight.shape[1] == 1 and groups == weight.shape[0]
    pointwise = weight.shape[2:] == (1, 1) and (*stride, *padding) == (1, 1, 0, 0)
    if pointwise and alone:
        return Scale(*given)
    if not _packs(weight):
        return Kernel(*given)
    macs = frames.shape[0] * weight.numel()
    if pointwise and groups == 1 and macs <= MATRIX_MACS and weight.dtype == torch.float32:
        return Matrix(*given)
    return OneDNN(*given)


def _packs(weight: Tensor) -> bool:
    """Whether oneDNN has convolutions for such weights here."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if weight.dtype == torch.bfloat16:
        return _onednn._is_mkldnn_bf16_supported()
    return weight.dtype == torch.float32

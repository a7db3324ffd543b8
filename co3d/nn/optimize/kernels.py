"""Spatial convolutions of one frame in the form that is fastest for their size.

A frame is (B, C, H, W) in channels-last layout, which is the matrix (B H W, C) row by row.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# From this size on oneDNN's convolutions beat a matrix product with what surrounds it.
MATRIX_MACS = 10_000_000
FRESH = 1 << 18  # bytes from which a new buffer costs more (page faults) than filling an old one

_onednn = torch.ops.mkldnn


class Frames(NamedTuple):
    """What the frames at a place of a network are like."""

    size: torch.Size  # (B, C, H, W)
    dtype: torch.dtype
    device: torch.device

    def resized(self, size: torch.Size) -> "Frames":
        return self._replace(size=torch.Size(size))

    def full(self, value: float) -> Tensor:
        """A frame of one value."""
        return self.empty().fill_(value)

    def empty(self) -> Tensor:
        last = torch.channels_last
        return torch.empty(self.size, dtype=self.dtype, device=self.device, memory_format=last)

    @property
    def nbytes(self) -> int:
        """Of one frame of the batch."""
        return self.size[1:].numel() * self.dtype.itemsize


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
        size = frames.size
        pairs = zip(size[2:], weight.shape[2:], stride, padding, strict=True)
        height, width = ((n + 2 * p - k) // s + 1 for n, k, s, p in pairs)
        self.out = frames.resized((size[0], weight.shape[0], height, width))

    def __call__(self, x: Tensor, relu: bool = False) -> Tensor:
        """The output in a new tensor."""
        y = F.conv2d(x, self.weight, self.bias, self.stride, self.padding, 1, self.groups)
        return y.relu_() if relu else y

    def into(self, x: Tensor, y: Tensor, relu: bool = False) -> Tensor:
        """The output in the memory of y, if that is worth it."""
        return self(x, relu)

    def add_(self, x: Tensor, total: Tensor, relu: bool = False) -> Tensor:
        """total += output, in place."""
        total.add_(self(x))
        return total.relu_() if relu else total


class OneDNN(Kernel):
    """With weights in oneDNN's own layout, and sum and activation in the same pass (CPU)."""

    def __init__(self, weight: Tensor, bias: Tensor | None, frames: Frames, *geometry) -> None:
        super().__init__(weight, bias, frames, *geometry)
        self.geometry = [*self.padding], [*self.stride], [1, 1], self.groups
        self.weight = _onednn._reorder_convolution_weight(weight, *self.geometry, [*frames.size])
        self.fill = torch.zeros(()) if bias is None else bias.view(1, -1, 1, 1)

    def __call__(self, x: Tensor, relu: bool = False) -> Tensor:
        return _onednn._convolution_pointwise(
            x, self.weight, self.bias, *self.geometry, "relu" if relu else "none", [], ""
        )

    def into(self, x: Tensor, y: Tensor, relu: bool = False) -> Tensor:
        if y.numel() * y.element_size() < FRESH:
            return self(x, relu)
        return self._add(x, y.copy_(self.fill), None, relu)

    def add_(self, x: Tensor, total: Tensor, relu: bool = False) -> Tensor:
        return self._add(x, total, self.bias, relu)

    def _add(self, x: Tensor, total: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
        return _onednn._convolution_pointwise_.binary(
            *(total, x, self.weight, bias, *self.geometry),
            *("add", 1.0, "relu" if relu else None, [], None),
        )


class Matrix(Kernel):
    """A 1x1 convolution as a matrix product: little overhead, and writes where it is told to."""

    def __init__(self, weight: Tensor, bias: Tensor | None, frames: Frames, *geometry) -> None:
        super().__init__(weight, bias, frames, *geometry)
        self.weight = weight.flatten(1).t().contiguous()

    def __call__(self, x: Tensor, relu: bool = False) -> Tensor:
        return self.into(x, self.out.empty(), relu)

    def into(self, x: Tensor, y: Tensor, relu: bool = False) -> Tensor:
        out = rows(y)
        if self.bias is None:
            torch.mm(rows(x), self.weight, out=out)
        else:
            torch.addmm(self.bias, rows(x), self.weight, out=out)
        if relu:
            out.relu_()
        return y

    def add_(self, x: Tensor, total: Tensor, relu: bool = False) -> Tensor:
        out = rows(total)
        torch.addmm(out, rows(x), self.weight, out=out)
        if self.bias is not None:
            out.add_(self.bias)
        if relu:
            out.relu_()
        return total


class Scale(Kernel):
    """A 1x1 convolution of every channel alone."""

    def __init__(self, weight: Tensor, bias: Tensor | None, frames: Frames, *geometry) -> None:
        super().__init__(weight, bias, frames, *geometry)
        self.factor = weight.view(1, -1, 1, 1)
        self.shift = None if bias is None else bias.view(1, -1, 1, 1)

    def __call__(self, x: Tensor, relu: bool = False) -> Tensor:
        return self.into(x, self.out.empty(), relu)

    def into(self, x: Tensor, y: Tensor, relu: bool = False) -> Tensor:
        if self.shift is None:
            torch.mul(x, self.factor, out=y)
        else:
            torch.addcmul(self.shift, x, self.factor, out=y)
        return y.relu_() if relu else y

    def add_(self, x: Tensor, total: Tensor, relu: bool = False) -> Tensor:
        total.addcmul_(x, self.factor)
        if self.shift is not None:
            total.add_(self.shift)
        return total.relu_() if relu else total


def _packs(weight: Tensor) -> bool:
    """Whether oneDNN has convolutions for such weights here."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if weight.dtype == torch.bfloat16:
        return _onednn._is_mkldnn_bf16_supported()
    return weight.dtype == torch.float32


def rows(x: Tensor) -> Tensor:
    """The matrix (B H W, C) that a frame in channels-last layout is."""
    b, c, h, w = x.shape
    return x.as_strided((b * h * w, c), (c, 1))


def kernel(
    weight: Tensor,
    bias: Tensor | None,
    frames: Frames,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    groups: int = 1,
) -> Kernel:
    """The fastest form of a convolution of frames of a size."""
    given = weight, bias, frames, stride, padding, groups
    alone = weight.shape[1] == 1 and groups == weight.shape[0]
    pointwise = weight.shape[2:] == (1, 1) and (*stride, *padding) == (1, 1, 0, 0)
    if pointwise and alone:
        return Scale(*given)
    if not _packs(weight):
        return Kernel(*given)
    macs = frames.size[0] * frames.size[2:].numel() * weight.numel()
    if pointwise and groups == 1 and macs <= MATRIX_MACS and weight.dtype == torch.float32:
        return Matrix(*given)
    return OneDNN(*given)


class Depthwise3d:
    """A convolution of every channel alone, of a ring of as many frames as the kernel has.

    Args:
        weight: (C, 1, kT, h, w); bias: (C) or None.
        ring: (B, kT, H, W, C), the shape of the ring.
        padding: of height and width, such that the size stays.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, ring: torch.Size, padding: tuple[int, int]
    ) -> None:
        batch, frames, height, width, channels = ring
        self.geometry = [0, *padding], [1, 1, 1], [1, 1, 1], channels
        self.weight, self.bias = weight.contiguous(memory_format=torch.channels_last_3d), bias
        self.packed = _packs(weight)
        if self.packed:
            clip = [batch, channels, frames, height, width]
            self.weight = _onednn._reorder_convolution_weight(weight, *self.geometry, clip)

    def __call__(self, clip: Tensor) -> Tensor:
        """(B, C, kT, H, W) to (B, C, H, W)."""
        if not self.packed:
            padding, stride, dilation, groups = self.geometry
            y = F.conv3d(clip, self.weight, self.bias, stride, padding, dilation, groups)
            return y.squeeze(2)
        given = clip, self.weight, self.bias, *self.geometry
        return _onednn._convolution_pointwise(*given, "none", [], "").squeeze(2)

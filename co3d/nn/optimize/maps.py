"""Layers of a fast net for clips, on the rows of its maps.

Maps are held as the matrix (B T H W, C) that they are, row by row, in channels_last_3d. Its frames
are a batch of images, and time over pixels is an image too, so the kernels for single frames serve
clips as well.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..blocks import SqueezeExcite
from ..conv import Conv3d
from ..pointwise import ReLU, SiLU
from ..pool import MaxPool3d, _triple
from .kernels import Frames, _packs, kernel

_onednn = torch.ops.mkldnn


class Maps(NamedTuple):
    """What the clips at a place of a network are like."""

    size: tuple[int, ...]  # (B, C, T, H, W)
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, clip: Tensor, dtype: torch.dtype) -> "Maps":
        """Those of a clip, computed in `dtype`."""
        return cls(tuple(clip.shape), dtype, clip.device)

    def resized(self, *size: int) -> "Maps":
        """The same with another size (B, C, T, H, W)."""
        return self._replace(size=size)

    @property
    def images(self) -> Frames:
        """The frames one after the other, (B T, C, H, W)."""
        batch, channels, frames, height, width = self.size
        return Frames((batch * frames, channels, height, width), self.dtype, self.device)

    @property
    def times(self) -> Frames:
        """Time over pixels, (B, C, T, H W)."""
        batch, channels, frames, height, width = self.size
        return Frames((batch, channels, frames, height * width), self.dtype, self.device)

    def rows(self, clip: Tensor) -> Tensor:
        """The matrix of a clip (B, C, T, H, W), in the type of the maps."""
        clip = clip.to(self.dtype).permute(0, 2, 3, 4, 1)
        return clip.reshape(-1, self.size[1]).contiguous()

    def clip(self, rows: Tensor) -> Tensor:
        """A view (B, C, T, H, W) of the matrix, in channels_last_3d."""
        batch, channels, *size = self.size
        return rows.view(batch, *size, channels).permute(0, 4, 1, 2, 3)


class Part:
    """Takes the rows of maps and gives those of others; it may write to what it takes.

    Attributes:
        maps, out: what the inputs and outputs are like.
    """

    maps: Maps
    out: Maps

    def take(self, module: nn.Module) -> bool:
        """Makes the activation that follows a part of this one, and says whether it could."""
        return False

    def __call__(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class Convolution(Part):
    """A convolution with the activation behind it."""

    def __init__(self, conv: Conv3d, maps: Maps) -> None:
        self.maps, self.relu, self.taken = maps, False, False
        weight = conv.weight.detach().to(maps.dtype)
        bias = None if conv.bias is None else conv.bias.detach().to(maps.dtype)
        (kernel_t, *pixels), (stride_t, *stride) = conv.kernel_size, conv.stride
        padding_t, *padding = conv.padding
        batch, _, frames, *size = maps.size
        plain = conv.dilation == (1, 1, 1)
        if plain and (kernel_t, stride_t, padding_t) == (1, 1, 0):
            given = maps.images, (*stride,), (*padding,), conv.groups
            self.kernel = kernel(weight[:, :, 0], bias, *given)
            _, channels, *size = self.kernel.out.size
        elif plain and conv.groups == 1 and pixels == stride == [1, 1] and padding == [0, 0]:
            self.kernel = kernel(weight[..., 0], bias, maps.times, (stride_t, 1), (padding_t, 0))
            _, channels, frames, _ = self.kernel.out.size
        else:
            self.kernel = Volume(conv, weight, bias, maps)
            batch, channels, frames, *size = self.kernel.out.size
        self.out = maps.resized(batch, channels, frames, *size)

    def take(self, module: nn.Module) -> bool:
        silu = type(module) is SiLU and isinstance(self.kernel, Volume)
        if self.taken or not (silu or type(module) is ReLU):
            return False
        self.taken, self.relu = True, not silu
        if silu:
            self.kernel.silu = True
        return True

    def __call__(self, x: Tensor) -> Tensor:
        return self.kernel(x, self.relu)


class Volume:
    """A convolution over time and space at once."""

    def __init__(self, conv: Conv3d, weight: Tensor, bias: Tensor | None, maps: Maps) -> None:
        self.maps, self.bias, self.silu, self.packed = maps, bias, False, _packs(weight)
        self.geometry = [*conv.padding], [*conv.stride], [*conv.dilation], conv.groups
        self.weight = weight.contiguous(memory_format=torch.channels_last_3d)
        clip = torch.empty(maps.size, device="meta", dtype=maps.dtype)
        self.out = maps.resized(*self._torchs(clip, weight.to("meta"), None).shape)
        if self.packed:
            given = *self.geometry, [*maps.size]
            self.weight = _onednn._reorder_convolution_weight(weight, *given)

    def __call__(self, x: Tensor, relu: bool = False) -> Tensor:
        clip = self.maps.clip(x)
        if self.packed:
            activation = "relu" if relu else "swish" if self.silu else "none"
            given = clip, self.weight, self.bias, *self.geometry
            return self.out.rows(_onednn._convolution_pointwise(*given, activation, [], ""))
        y = self.out.rows(self._torchs(clip, self.weight, self.bias))
        return F.silu(y, inplace=True) if self.silu else y.clamp_min_(0) if relu else y

    def add_(self, x: Tensor, total: Tensor, relu: bool = False) -> Tensor:
        """total = activation(total + output), in place."""
        total.add_(self(x))
        return total.clamp_min_(0) if relu else total

    def _torchs(self, clip: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padding, stride, dilation, groups = self.geometry
        return F.conv3d(clip, weight, bias, stride, padding, dilation, groups)


class Activation(Part):
    """ReLU or SiLU, in place."""

    def __init__(self, module: nn.Module, maps: Maps) -> None:
        self.maps, self.out = maps, maps
        self.function = {ReLU: F.relu, SiLU: F.silu}[type(module)]

    def __call__(self, x: Tensor) -> Tensor:
        return self.function(x, inplace=True)


class Gate(Part):
    """Squeeze and excite over clips or frames: a sum, two matrix products, a multiplication."""

    def __init__(self, gate: SqueezeExcite, maps: Maps) -> None:
        batch, channels, frames, height, width = maps.size
        means = batch if gate.gate == "clip" else batch * frames
        pixels = batch * frames * height * width // means
        self.maps, self.out, self.view = maps, maps, (means, pixels, channels)
        first, second = gate.fc1.weight.flatten(1), gate.fc2.weight.flatten(1)
        # The mean is a sum whose divisor is in the weights.
        given = gate.fc1.bias, first.t() / pixels, gate.fc2.bias, second.t().contiguous()
        self.weights = [value.detach().to(maps.dtype) for value in given]

    def __call__(self, x: Tensor) -> Tensor:
        first_bias, first, second_bias, second = self.weights
        groups = x.view(self.view)
        squeezed = torch.addmm(first_bias, groups.sum(1), first).clamp_min_(0)
        factor = torch.addmm(second_bias, squeezed, second).sigmoid_()
        return groups.mul_(factor.unsqueeze(1)).view(x.shape)


class Pool(Part):
    """A max-pool over space, or over time."""

    def __init__(self, pool: MaxPool3d, maps: Maps) -> None:
        options = pool.kernel_size, pool.stride, pool.padding
        (kernel, *_), (stride, *_), (padding, *_) = options = [*map(_triple, options)]
        batch, channels, frames, *size = maps.size
        if self.over_frames(pool):
            self.frames, self.options = maps.images, [option[1:] for option in options]
        else:
            self.frames, self.options = maps.times, [(kernel, 1), (stride, 1), (padding, 0)]
        found = F.max_pool2d(torch.empty(self.frames.size, device="meta"), *self.options).shape[2:]
        frames, size = (frames, found) if self.over_frames(pool) else (found[0], size)
        self.maps, self.out = maps, maps.resized(batch, channels, frames, *size)

    @staticmethod
    def over_frames(pool: MaxPool3d) -> bool:
        """Whether each frame is pooled alone: temporal kernel and stride are 1."""
        return pool._time[0] == pool._time[3] == 1

    @staticmethod
    def fits(pool: nn.Module) -> bool:
        """Whether it is over space or over time, not both, and without gaps."""
        if not isinstance(pool, MaxPool3d) or _triple(pool.dilation) != (1, 1, 1):
            return False
        spatial = _triple(pool.kernel_size)[1:], _triple(pool.stride)[1:]
        return Pool.over_frames(pool) or spatial == ((1, 1), (1, 1))

    def __call__(self, x: Tensor) -> Tensor:
        y = F.max_pool2d(self.frames.image(x), *self.options)
        return y.permute(0, 2, 3, 1).reshape(-1, y.shape[1]).contiguous()


class Mean(Part):
    """The mean over a clip; it and what comes behind are never of bfloat16."""

    def __init__(self, maps: Maps) -> None:
        batch, channels, *_ = maps.size
        wide = torch.promote_types(maps.dtype, torch.float32)
        self.maps, self.out = maps, maps.resized(batch, channels, 1, 1, 1)._replace(dtype=wide)

    def __call__(self, x: Tensor) -> Tensor:
        return x.view(self.maps.size[0], -1, x.shape[1]).mean(1, dtype=self.out.dtype)

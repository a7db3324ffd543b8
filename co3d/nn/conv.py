"""The continual convolution."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .temporal import Windowed, check_spatial, take, zeros


class Conv3d(Windowed, nn.Conv3d):
    """`torch.nn.Conv3d` that can be stepped : the paper's continual convolution.

    Takes the arguments of `torch.nn.Conv3d`.

    Where the maps of one frame are smaller behind the layer than before it, the state holds partial
    sums, one map for each output begun but not complete (at most d(kT - 1)), as in the paper: a new
    frame is multiplied with every kernel slice once and added to the outputs that it belongs to.
    Elsewhere it holds the last inputs. Both execute the multiplications of one output per output.

    Raises:
        ValueError: for temporal padding above d(kT - 1) or a padding mode other than zeros.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._prepare()

    def _prepare(self) -> None:
        if self.padding_mode != "zeros":
            raise ValueError(f"expected padding_mode='zeros', given {self.padding_mode!r}")
        if isinstance(self.padding, str):
            self.padding = self._padding_by_name(self.padding)
        super()._prepare()
        kernel, _, _, stride = self._time
        _, stride_h, stride_w = self.stride
        self._frame_alone = kernel == 1 and stride == 1
        self._keeps_sums = self.out_channels < self.in_channels * stride_h * stride_w

    def _padding_by_name(self, name: str) -> tuple[int, ...]:
        if name == "valid":
            return (0, 0, 0)
        spans = [d * (k - 1) for k, d in zip(self.kernel_size, self.dilation, strict=True)]
        if any(span % 2 for span in spans):
            raise ValueError("expected odd kernels for padding='same', given an even one")
        return tuple(span // 2 for span in spans)

    @property
    def channels(self) -> tuple[int | None, bool]:
        return self.in_channels, False

    def _valid(self, x: Tensor) -> Tensor:
        padding = (0, *self.padding[1:])
        stride, dilation = self.stride, self.dilation
        return F.conv3d(x, self.weight, self.bias, stride, padding, dilation, self.groups)

    def _steps(self, x: Tensor | None, state: Any, end: bool) -> tuple[Tensor | None, Any]:
        if self._frame_alone:
            return (None if x is None else self.forward(x)), state
        if self._keeps_sums:
            return self._steps_by_sums(x, state, end)
        return super()._steps(x, state, end)

    def _steps_by_sums(self, x: Tensor | None, state: Any, end: bool) -> tuple[Tensor | None, Any]:
        """As `_steps`, with partial sums of the outputs begun in the place of inputs."""
        span, padding, stride, _ = self.timing
        lead, sums = state
        if isinstance(sums, str):
            if x is None:
                return None, state
            check_spatial(self, x)
            if sums == "replicate":
                before = self._history(x, -lead, sums)
                x, lead = torch.cat([before, x], 2), lead + before.shape[2]
            sums = None
        if x is not None:
            sums = self._add(sums, x, lead)
            lead -= x.shape[2]
        ready = max(0, ((padding if end else 0) - span - lead) // stride + 1)
        y, sums = take(sums, ready)
        if y is not None and self.bias is not None:
            y = y + self.bias.view(-1, 1, 1, 1)
        return y, (lead + ready * stride, sums)

    def _add(self, sums: Tensor | None, x: Tensor, lead: int) -> Tensor:
        """Adds every (frame, kernel slice) product of a chunk to the output that it belongs to."""
        kernel, dilation, _, stride = self._time
        begun = max(0, math.ceil((x.shape[2] - lead) / stride))
        total = None
        for frame in range(min(stride, x.shape[2])):
            taps = [tap for tap in range(kernel) if (frame - lead - tap * dilation) % stride == 0]
            if not taps:
                continue
            maps = self._products(x[:, :, frame::stride], taps)
            if total is None:
                total = _extend(sums, x, begun, maps.shape[-2:], self.out_channels)
            for n, tap in enumerate(taps):
                first = (frame - lead - tap * dilation) // stride
                skip = min(maps.shape[3], max(0, -first))
                total[:, :, first + skip : first + maps.shape[3]] += maps[:, :, n, skip:]
        if total is None:  # no kernel slice falls due at these frames
            size = (self._products(x[:, :, :1], [0]) if sums is None else sums).shape[-2:]
            total = _extend(sums, x, begun, size, self.out_channels)
        return total

    def _products(self, x: Tensor, taps: list[int]) -> Tensor:
        """Frames (B, C, T, H, W) with the given kernel slices: (B, C', taps, T, H', W')."""
        weight = self.weight[:, :, taps].transpose(1, 2).flatten(0, 1).unsqueeze(2)
        padding = (0, *self.padding[1:])
        maps = F.conv3d(x, weight, None, (1, *self.stride[1:]), padding, self.dilation, self.groups)
        return maps.unflatten(1, (self.out_channels, len(taps)))


def _extend(sums: Tensor | None, x: Tensor, length: int, size: torch.Size, channels: int) -> Tensor:
    """A new accumulator of `length` outputs that begins with the given sums."""
    total = zeros(x, channels, length, size)
    if sums is not None:
        total[:, :, : sums.shape[2]] = sums
    return total

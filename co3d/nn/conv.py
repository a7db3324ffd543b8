"""The continual convolution."""

import math
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from .temporal import Windowed, take, zeros


class Conv3d(Windowed, nn.Conv3d):
    """`torch.nn.Conv3d` that can be stepped: the paper's continual convolution.

    Where maps are smaller behind the layer than before it, the state holds partial sums, one map
    for each output begun but not complete (at most d(kT - 1)), as in the paper: a new frame is
    multiplied with every kernel slice once and added to the outputs that it belongs to. Elsewhere
    it holds the last inputs. Both execute the multiplications of one output per output.

    Raises:
        ValueError: for temporal padding above d(kT - 1) or a padding mode other than zeros.
    """

    def _prepare(self) -> None:
        if self.padding_mode != "zeros":
            raise ValueError(f"expected padding_mode='zeros', given {self.padding_mode!r}")
        if isinstance(self.padding, str):
            around = self._reversed_padding_repeated_twice[::-1]  # torch's: after, before each axis
            if around[::2] != around[1::2]:
                raise ValueError("expected odd kernels for padding='same', given an even one")
            self.padding = tuple(around[::2])
        super()._prepare()

    @property
    def _keeps_sums(self) -> bool:
        _, height, width = self.stride
        smaller = self.out_channels < self.in_channels * height * width
        return smaller and self.kernel_size[0] > 1

    def _slide(self, x: Tensor, padding: int = 0) -> Tensor:
        around = (padding, *self.padding[1:])
        return F.conv3d(x, self.weight, self.bias, self.stride, around, self.dilation, self.groups)

    def _steps(self, x: Tensor | None, state: Any, end: bool) -> tuple[Tensor | None, Any]:
        kernel, _, _, stride = self._time
        if kernel == stride == 1:  # every frame alone
            return (None if x is None else self.forward(x)), state
        steps = self._steps_by_sums if self._keeps_sums else super()._steps
        return steps(x, state, end)

    def _steps_by_sums(self, x: Tensor | None, state: Any, end: bool) -> tuple[Tensor | None, Any]:
        """As `_steps`, with partial sums of the outputs begun in the place of inputs."""
        span, padding, stride, _ = self.timing
        lead, sums = state
        if isinstance(sums, str):
            if x is None:
                return None, state
            frames = x.shape[2]
            x = x if sums == "zeros" else self._behind(sums, x, lead)
            lead, sums = lead + x.shape[2] - frames, None
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
        total = zeros(x, self.out_channels, begun, self._size(x))
        if sums is not None:
            total[:, :, : sums.shape[2]] = sums
        for frame in range(min(stride, x.shape[2])):
            taps = [tap for tap in range(kernel) if (frame - lead - tap * dilation) % stride == 0]
            if not taps:
                continue
            maps = self._products(x[:, :, frame::stride], taps)
            for n, tap in enumerate(taps):
                first = (frame - lead - tap * dilation) // stride
                skip = min(maps.shape[3], max(0, -first))
                total[:, :, first + skip : first + maps.shape[3]] += maps[:, :, n, skip:]
        return total

    def _products(self, x: Tensor, taps: list[int]) -> Tensor:
        """Frames (B, C, T, H, W) with the given kernel slices: (B, C', taps, T, H', W')."""
        weight = self.weight[:, :, taps].transpose(1, 2).flatten(0, 1).unsqueeze(2)
        padding = (0, *self.padding[1:])
        maps = F.conv3d(x, weight, None, (1, *self.stride[1:]), padding, self.dilation, self.groups)
        return maps.unflatten(1, (self.out_channels, len(taps)))

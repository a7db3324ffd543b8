"""Pools over time and space, and the running window that ends a continual network."""

import math
import sys
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from .core import Timing
from .pointwise import Pointwise
from .temporal import Windowed


class Pool(Windowed):
    """A pool that pads in time itself.

    Torch refuses clips shorter than a kernel, and the padding of an even one that is dilated.
    """

    def _slide(self, x: Tensor, padding: int = 0) -> Tensor:
        if padding:
            x = F.pad(x, (0, 0, 0, 0, padding, padding), value=self.pad_value)
        (_, _, height, _), (_, _, width, _) = self._along(1), self._along(2)
        return self._pool(x, (0, height, width))

    def _pool(self, x: Tensor, padding: tuple[int, int, int]) -> Tensor:
        raise NotImplementedError


class MaxPool3d(Pool, nn.MaxPool3d):
    """`torch.nn.MaxPool3d` that can be stepped; before and after a clip stands minus infinity."""

    pad_value = -math.inf

    def _prepare(self) -> None:
        super()._prepare()
        if self.return_indices:
            raise ValueError("expected return_indices=False, given True")
        kernel, dilation, padding, _ = self._time
        half = dilation * (kernel // 2)
        if padding > half:
            raise ValueError(
                f"expected a temporal padding of at most {half}, half the kernel, given {padding}"
            )

    def _pool(self, x: Tensor, padding: tuple[int, int, int]) -> Tensor:
        return F.max_pool3d(x, self.kernel_size, self.stride, padding, self.dilation)


class AvgPool3d(Pool, nn.AvgPool3d):
    """`torch.nn.AvgPool3d` that can be stepped."""

    def _prepare(self) -> None:
        super()._prepare()
        if self._time[2] and not self.count_include_pad:
            raise ValueError(
                "expected count_include_pad=True with temporal padding, given False: its divisor "
                "depends on where the clip ends"
            )

    def _pool(self, x: Tensor, padding: tuple[int, int, int]) -> Tensor:
        inside, divisor = self.count_include_pad, self.divisor_override
        return F.avg_pool3d(x, self.kernel_size, self.stride, padding, False, inside, divisor)


class AdaptiveAvgPool3d(Pointwise, nn.AdaptiveAvgPool3d):
    """`torch.nn.AdaptiveAvgPool3d`; can be stepped if it leaves time alone: (None, h, w).

    With temporal size 1 it is the head of a clip net, whose continual twin is `RunningWindow`.
    """

    any_rank = False

    @property
    def timing(self) -> Timing:
        """Over whole clips it has one output, and the next one would be endlessly far."""
        leaves_time = not isinstance(self.output_size, int) and self.output_size[0] is None
        return Timing() if leaves_time else Timing(sys.maxsize, 0, sys.maxsize)

    def _begin(self, start: int, fill: str, emit: str) -> tuple[Any, int]:
        if self.timing != Timing():
            raise ValueError(
                "expected a module that can be stepped, given AdaptiveAvgPool3d over whole clips: "
                "convert it with continual(module, window=frames)"
            )
        return (), start


class RunningWindow(Windowed):
    """Global average pool whose temporal extent is a running window, as in the paper.

    (B, C, T, H, W) to (B, C, T - dilation (window - 1), 1, 1). The mean of the last spatial means
    is taken anew at each step: nothing drifts, and a NaN is gone after `window` frames.

    Args:
        window: frames that are averaged, `dilation` apart.

    Raises:
        ValueError: for a clip shorter than the window.
    """

    stride, padding = 1, 0

    def __init__(self, window: int, dilation: int = 1) -> None:
        nn.Module.__init__(self)
        if not isinstance(window, int) or window < 1:
            raise ValueError(f"expected a window of 1 or more frames, given {window!r}")
        self.window, self.dilation = window, dilation
        self.kernel_size = (window, 1, 1)  # of the pool that it stands for

    def extra_repr(self) -> str:
        return f"window={self.window}, dilation={self.dilation}"

    def forward(self, x: Tensor, pad: bool = True) -> Tensor:
        return super().forward(spatial_mean(x))

    def _steps(self, x: Tensor | None, state: Any, end: bool) -> tuple[Tensor | None, Any]:
        return super()._steps(None if x is None else spatial_mean(x), state, end)

    def _slide(self, x: Tensor, padding: int = 0) -> Tensor:
        return x.unfold(2, self.receptive_field, 1)[..., :: self.dilation].mean(-1)


def spatial_mean(x: Tensor) -> Tensor:
    """The mean of every map, (B, C, T, 1, 1)."""
    return x.mean((3, 4), keepdim=True)

"""3x3 convolutions from fewer products."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import unset_fake_temporarily

from ..conv import Conv3d
from .tape import Tape
from .windows import Convolution


class WinogradConvolution(Convolution):
    """A 3x3 convolution by Winograd's minimal filtering F(4, 3), of the rows or of rows and columns
    (https://arxiv.org/abs/1509.09308): 6 products for 4 outputs along an axis in the place of 12.

    A matrix makes 6 maps of a quarter of the height of the rows of maps (B, H, W, C), another one
    likewise of the columns; each goes through a convolution of its own; two matrices put the
    results together. All is done with channels last, and no tensor is transposed in memory.
    """

    CHANNELS = 128  # fewer do not pay for the matrices
    PIXELS = 12  # of a side; in smaller maps columns do not pay for the greater weights

    @classmethod
    def suits(cls, layer: Conv3d) -> bool:
        """Whether a layer is plain 3x3 over space, with channels enough to gain by it."""
        shape = (layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups)
        plain = shape == ((1, 3, 3), (1, 1, 1), (0, 1, 1), (1, 1, 1), 1)
        return plain and min(layer.in_channels, layer.out_channels) >= cls.CHANNELS

    def forward(self, x: Tensor | None, tape: Tape) -> Tensor | None:
        if x is None:
            return None
        if "rows_into" not in self._buffers:  # the first pass, which looks for queues, tells sizes
            with unset_fake_temporarily():
                self._prepare(*x.shape[2:], x.dtype)
        batch, _, height, width = x.shape
        maps = x.permute(0, 2, 3, 1).reshape(batch, height, -1)
        maps = torch.matmul(self.rows_into, maps).reshape(batch, len(self.rows_into), width, -1)
        if self.columns:
            maps = torch.matmul(self.columns_into, maps)
            maps = maps.reshape(batch, len(self.rows_into), len(self.columns_into) // 6, -1)
        y = self._convolved(maps)
        if self.columns:
            y = y.reshape(batch, len(self.rows_into), len(self.columns_into), -1)
            y = torch.matmul(self.columns_back, y)
        y = torch.matmul(self.rows_back, y.reshape(batch, len(self.rows_into), -1))
        y = y.reshape(batch, height, width, -1)
        return (y if self.bias is None else y + self.bias).permute(0, 3, 1, 2)

    def _convolved(self, maps: Tensor) -> Tensor:
        """The 6 maps of the rows (B, 6 H, W, C), each with its part of the weights."""
        batch = len(maps)
        maps = _exchanged(maps.unflatten(1, (6, -1))).flatten(0, 1)
        options = (1, 0, 1, 6) if self.columns else (1, (0, 1))
        results = [
            F.conv2d(part.permute(0, 3, 1, 2), weight, None, *options)
            for part, weight in zip(maps.split(batch), self.parts, strict=True)
        ]
        results = torch.cat(results).permute(0, 2, 3, 1)
        return _exchanged(results.unflatten(0, (6, batch))).flatten(1, 2)

    def _prepare(self, height: int, width: int, dtype: torch.dtype) -> None:
        """Weights and matrices for maps of this size."""
        self.columns = min(height, width) >= self.PIXELS
        weight, filters = self.taps[0].double(), torch.tensor(_FILTERS, dtype=torch.float64)
        del self.taps
        parts = torch.einsum("rh,kchw->rkcw", filters, weight)
        if self.columns:  # the 6 maps of the columns are groups of channels
            parts = torch.einsum("sw,rkcw->rskc", filters, parts).flatten(1, 2)[..., None, None]
        else:
            parts = parts[:, :, :, None]
        self.parts = nn.ParameterList(
            nn.Parameter(part.to(dtype).contiguous(), requires_grad=False) for part in parts
        )
        into, back = _matrices(height)
        self._keep("rows", into.transpose(0, 1), back.transpose(1, 2), dtype)
        if self.columns:
            self._keep("columns", *_matrices(width), dtype)

    def _keep(self, axis: str, into: Tensor, back: Tensor, dtype: torch.dtype) -> None:
        self.register_buffer(f"{axis}_into", into.flatten(0, 1).to(dtype))
        self.register_buffer(f"{axis}_back", back.flatten(1).to(dtype))


_INPUTS = (
    *((4, 0, -5, 0, 1, 0), (0, -4, -4, 1, 1, 0), (0, 4, -4, -1, 1, 0)),
    *((0, -2, -1, 2, 1, 0), (0, 2, -1, -2, 1, 0), (0, 4, 0, -5, 0, 1)),
)
_FILTERS = (
    *((1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6)),
    *((1 / 24, 1 / 12, 1 / 6), (1 / 24, -1 / 12, 1 / 6), (0, 0, 1)),
)
_OUTPUTS = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))


def _exchanged(x: Tensor) -> Tensor:
    """The first two axes exchanged; one of them has mostly size 1, so that nothing moves."""
    first, second, *rest = x.shape
    return x.transpose(0, 1) if min(first, second) > 1 else x.reshape(second, first, *rest)


def _matrices(size: int) -> tuple[Tensor, Tensor]:
    """From `size` numbers to (tiles, 6, size), and back (size, tiles, 6); zeros are outside."""
    tiles = -(-size // 4)
    into, back = torch.zeros(tiles, 6, 4 * tiles + 2), torch.zeros(tiles, 4, tiles, 6)
    for tile in range(tiles):
        into[tile, :, 4 * tile : 4 * tile + 6] = torch.tensor(_INPUTS)
        back[tile, :, tile] = torch.tensor(_OUTPUTS)
    return into[:, :, 1 : size + 1], back.flatten(0, 1)[:size]

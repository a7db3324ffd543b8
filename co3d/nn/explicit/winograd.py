"""3x3 convolutions from fewer products."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import unset_fake_temporarily

from ..conv import Conv3d
from .tape import Clock, Form, Tape
from .windows import Convolution


class WinogradConvolution(Convolution):
    """A 3x3 convolution with 6 products along the height in the place of 12, by
    F(4, 3) of Winograd's minimal filtering (https://arxiv.org/abs/1509.09308).

    Rows of maps (B, H, W, C) go to 6 transformed maps of a quarter of the height by a matrix, those
    through a 1x3 convolution each, and their results to rows by another matrix.
    """

    CHANNELS = 128  # fewer do not pay for the two matrices

    @classmethod
    def suits(cls, layer: Conv3d) -> bool:
        shape = (layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups)
        plain = shape == ((1, 3, 3), (1, 1, 1), (0, 1, 1), (1, 1, 1), 1)
        return plain and min(layer.in_channels, layer.out_channels) >= cls.CHANNELS

    def __init__(self, layer: Conv3d, clock: Clock, name: str, form: Form) -> None:
        super().__init__(layer, clock, name, form)
        weight = self.taps[0]
        parts = torch.einsum(
            "rh,kchw->rkcw", torch.tensor(_FILTERS, dtype=torch.float64), weight.double()
        )
        del self.taps
        self.register_buffer("into", None)
        self.register_buffer("back", None)
        self.parts = nn.ParameterList(
            nn.Parameter(part[:, :, None].to(weight).contiguous(), requires_grad=False)
            for part in parts
        )

    def forward(self, x: Tensor | None, tape: Tape) -> Tensor | None:
        if x is None:
            return None
        batch, channels, height, width = x.shape
        if self.into is None:  # the first pass, which looks for queues, tells the height
            with unset_fake_temporarily():
                self.into, self.back = (part.to(x.dtype) for part in _row_matrices(height))
        rows = x.permute(0, 2, 3, 1).reshape(batch, height, width * channels)
        rows = torch.matmul(self.into, rows).reshape(batch * 6, -1, width, channels)
        groups = rows.permute(0, 3, 1, 2)
        if batch > 1:  # one after the other lie the 6 maps of each example
            groups = groups.unflatten(0, (batch, 6)).transpose(0, 1).flatten(0, 1)
        maps = zip(groups.split(batch), self.parts, strict=True)
        y = torch.cat([F.conv2d(part, weight, None, 1, (0, 1)) for part, weight in maps])
        if batch > 1:
            y = y.unflatten(0, (6, batch)).transpose(0, 1).flatten(0, 1)
        y = y.permute(0, 2, 3, 1).reshape(batch, self.into.shape[0], -1)
        y = torch.matmul(self.back, y).reshape(batch, height, width, -1)
        return (y if self.bias is None else y + self.bias).permute(0, 3, 1, 2)


_INPUTS = (
    *((4, 0, -5, 0, 1, 0), (0, -4, -4, 1, 1, 0), (0, 4, -4, -1, 1, 0)),
    *((0, -2, -1, 2, 1, 0), (0, 2, -1, -2, 1, 0), (0, 4, 0, -5, 0, 1)),
)
_FILTERS = (
    *((1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6)),
    *((1 / 24, 1 / 12, 1 / 6), (1 / 24, -1 / 12, 1 / 6), (0, 0, 1)),
)
_OUTPUTS = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))


def _row_matrices(height: int) -> tuple[Tensor, Tensor]:
    """From `height` rows to 6 maps of a quarter of them, and back; rows outside are zeros."""
    tiles = -(-height // 4)
    into, back = torch.zeros(6, tiles, 4 * tiles + 2), torch.zeros(tiles, 4, 6, tiles)
    for tile in range(tiles):
        into[:, tile, 4 * tile : 4 * tile + 6] = torch.tensor(_INPUTS)
        back[tile, :, :, tile] = torch.tensor(_OUTPUTS)
    return into[:, :, 1 : height + 1].flatten(0, 1), back.flatten(0, 1)[:height].flatten(1)

"""3x3 convolutions from fewer products, for OpenVINO, which has no such form of its own."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .step import Convolution, Explicit, Operation, Tape

CHANNELS = 128  # with fewer the matrices take more time than they save
PIXELS = 12  # of a side; of smaller maps only the rows are tiled, whose weights are smaller


class Winograd(Operation):
    """A 3x3 convolution by minimal filtering F(4, 3), https://arxiv.org/abs/1509.09308.

    Six products take the place of twelve for each four outputs along an axis: of the rows, and of
    the columns where the map is large enough. With it the wide convolutions of the ResNets are
    computed in about half the time, and float32 bears the rounding; bfloat16 does not.

    Args:
        layer: the operation that it replaces.
        height, width: of its maps, in pixels.
    """

    def __init__(self, layer: Convolution, height: int, width: int) -> None:
        super().__init__(layer.name, layer.sources, layer.timing)
        self.tiles_columns = min(height, width) >= PIXELS
        self.bias = layer.bias
        filters = torch.tensor(FILTERS, dtype=torch.float64)
        weight = torch.einsum("rh,kchw->rkcw", filters, layer.taps[0].double())
        if self.tiles_columns:  # the 6 maps of the columns are groups of channels
            weight = torch.einsum("sw,rkcw->rskc", filters, weight).flatten(1, 2)[..., None, None]
        else:
            weight = weight[:, :, :, None]
        self.weights = nn.ParameterList(
            nn.Parameter(part.float().contiguous(), requires_grad=False) for part in weight
        )
        for axis, size in (("rows", height), ("columns", width)):
            tiled, joined = matrices(size)
            self.register_buffer(f"tile_{axis}", tiled)
            self.register_buffer(f"join_{axis}", joined)

    @staticmethod
    def suits(layer: Operation) -> bool:
        """Whether an operation is a plain 3x3 convolution of many channels."""
        if type(layer) is not Convolution or layer.kernel > 1:
            return False
        plain = layer.options == ((1, 1), (1, 1), (1, 1), 1)
        outputs, inputs, *size = layer.taps[0].shape
        return plain and size == [3, 3] and min(outputs, inputs) >= CHANNELS

    def forward(self, tape: Tape, x: Tensor | None) -> Tensor | None:
        if x is None:
            return None
        batch, _, height, width = x.shape
        rows = len(self.tile_rows)
        maps = x.permute(0, 2, 3, 1).reshape(batch, height, -1)
        maps = torch.matmul(self.tile_rows, maps).reshape(batch, rows, width, -1)
        if self.tiles_columns:
            maps = torch.matmul(self.tile_columns, maps)
            maps = maps.reshape(batch, rows, len(self.tile_columns) // 6, -1)
        y = self._convolved(maps)
        if self.tiles_columns:
            y = y.reshape(batch, rows, len(self.tile_columns), -1)
            y = torch.matmul(self.join_columns, y)
        y = torch.matmul(self.join_rows, y.reshape(batch, rows, -1))
        y = y.reshape(batch, height, width, -1)
        return (y if self.bias is None else y + self.bias).permute(0, 3, 1, 2)

    def _convolved(self, maps: Tensor) -> Tensor:
        """The 6 maps of the rows (B, 6 H, W, C), each with its part of the weights."""
        batch = len(maps)
        maps = exchanged(maps.unflatten(1, (6, -1))).flatten(0, 1)
        options = (1, 0, 1, 6) if self.tiles_columns else (1, (0, 1))
        results = [
            F.conv2d(part.permute(0, 3, 1, 2), weight, None, *options)
            for part, weight in zip(maps.split(batch), self.weights, strict=True)
        ]
        results = torch.cat(results).permute(0, 2, 3, 1)
        return exchanged(results.unflatten(0, (6, batch))).flatten(1, 2)


INPUTS = (
    *((4, 0, -5, 0, 1, 0), (0, -4, -4, 1, 1, 0), (0, 4, -4, -1, 1, 0)),
    *((0, -2, -1, 2, 1, 0), (0, 2, -1, -2, 1, 0), (0, 4, 0, -5, 0, 1)),
)
FILTERS = (
    *((1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6)),
    *((1 / 24, 1 / 12, 1 / 6), (1 / 24, -1 / 12, 1 / 6), (0, 0, 1)),
)
OUTPUTS = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))


def exchanged(x: Tensor) -> Tensor:
    """The first two axes exchanged; where one of them has size 1, nothing moves."""
    first, second, *rest = x.shape
    return x.transpose(0, 1) if min(first, second) > 1 else x.reshape(second, first, *rest)


def matrices(size: int) -> tuple[Tensor, Tensor]:
    """From `size` numbers to (6 tiles), and back; zeros are outside."""
    tiles = -(-size // 4)
    into, back = torch.zeros(tiles, 6, 4 * tiles + 2), torch.zeros(tiles, 4, tiles, 6)
    for tile in range(tiles):
        into[tile, :, 4 * tile : 4 * tile + 6] = torch.tensor(INPUTS)
        back[tile, :, tile] = torch.tensor(OUTPUTS)
    into, back = into[:, :, 1 : size + 1], back.flatten(0, 1)[:size]
    return into.transpose(0, 1).flatten(0, 1), back.transpose(1, 2).flatten(1)


def use_winograd(net: Explicit) -> None:
    """Replaces the convolutions of a step that gain by it."""
    for n, layer in enumerate(net.operations):
        if Winograd.suits(layer):
            net.operations[n] = Winograd(layer, *net.shapes[layer.sources[0]][2:])

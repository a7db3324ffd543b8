"""What the program of an engine is made of, beside its layout."""

import torch.nn.functional as F
from torch import Tensor

from ...nn.pointwise import ACTIVATIONS
from .layout import Layout

INPUT, PRODUCT, DEPTHWISE, SCALE, POOL, AVERAGE, TILES_IN, TILES_OUT, SUMS = range(9)
ACTIVATION = {ACTIVATIONS["ReLU"]: 1, ACTIVATIONS["SiLU"]: 2, ACTIVATIONS["Sigmoid"]: 3}
MAX_TAPS, MAX_FRAMES = 128, 32  # of a product, of a depthwise convolution
CHUNKS = 8  # into which the work of an instruction is cut at most
CHUNK = 150_000  # multiply-accumulates that are worth a chunk of their own
FILTERS = (
    *((1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6)),
    *((1 / 24, 1 / 12, 1 / 6), (1 / 24, -1 / 12, 1 / 6), (0, 0, 1)),
)


class Unsupported(TypeError):
    """A layer that the engine cannot run."""


def spread(x: Tensor, layout: Layout, length: int | None = None) -> Tensor:
    """Numbers (..., C), each where its channel lies in a pixel; zeros elsewhere."""
    x, length, channels = x.detach(), length or layout.step, list(layout.channels)
    if channels[-1] == len(channels) - 1:
        return F.pad(x, (0, length - len(channels)))
    wide = x.new_zeros(*x.shape[:-1], length)
    wide[..., channels] = x
    return wide


def chunks(work: int, worth: int) -> int:
    """Into how many chunks work is cut, each worth the trouble."""
    return max(1, min(CHUNKS, work // worth))


def pairs(**pairs: tuple[int, int]) -> dict[str, int]:
    """The words of vertical and horizontal numbers."""
    return {
        f"{name}_{axis}": number
        for name, pair in pairs.items()
        for axis, number in zip("hw", pair, strict=True)
    }

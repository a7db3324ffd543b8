"""The instructions of convolutions: products, planes of single channels, and tiles."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .. import operations as ops
from .layout import CHUNKS, Base, Kind, Layout, Place, chunks, unsupported

if TYPE_CHECKING:
    from .phase import PhaseWriter

MAX_TAPS, MAX_FRAMES = 128, 32  # of a product, of a depthwise convolution
CHUNK = 150_000  # multiply-accumulates that are worth a chunk of their own
FILTERS = (  # of Winograd's F(4x4, 3x3)
    *((1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6)),
    *((1 / 24, 1 / 12, 1 / 6), (1 / 24, -1 / 12, 1 / 6), (0, 0, 1)),
)


def convolve(
    phase: "PhaseWriter", conv: ops.Convolution, inputs: dict[int, Place], out: Place, **words
) -> None:
    """Some kernel slices, each with its input."""
    layout = next(iter(inputs.values())).layout
    if conv.options[3] > 1:
        depthwise(phase, conv, inputs, out, **words)
    elif phase.net.in_tiles(conv, layout.size):
        tiles(phase, conv, inputs[0], out, **words)
    else:
        weight = torch.stack([conv.taps[tap] for tap in inputs])
        bias, places = conv.bias if 0 in inputs else None, list(inputs.values())
        key = conv.name, *inputs
        product(phase, key, weight, conv.options[:3], places, bias, out, **words)


def product(
    phase: "PhaseWriter",
    key: object,
    weight: Tensor,
    shape: tuple,
    inputs: list[Place],
    bias: Tensor | None,
    out: Place,
    **words,
) -> None:
    """A product with weights (inputs, out, in, h, w) of a stride, padding and dilation."""
    net, layout, (stride, padding, dilation) = phase.net, inputs[0].layout, shape
    _, columns, channels, kernel_h, kernel_w = weight.shape
    length = layout.step if layout.is_scattered else channels + layout.half * (channels % 2)
    # Neighbours in a row of the kernel are one tap where their channels join.
    joined = kernel_w if layout.step == length and dilation[1] == 1 else 1
    views = []
    for place in inputs:
        for y in range(kernel_h):
            for x in range(0, kernel_w, joined):
                origin = y * dilation[0] - padding[0], x * dilation[1] - padding[1]
                views.append(phase.view(place, out.layout.size, stride, origin, length * joined))
    if len(views) > MAX_TAPS:
        raise unsupported(phase.operation)
    matrix = layout.spread(weight.permute(0, 3, 4, 1, 2), length).transpose(3, 4).flatten(0, 3)
    rows = net.batch * out.layout.size[0] * out.layout.size[1]
    parts = chunks(rows * matrix.numel(), CHUNK)
    grid = parts, 1
    if rows <= max(64, 12 * parts):  # few: by columns, whose weights are read once
        across = min(len(net.lanes.blocks(columns)), parts + parts % 2 if rows > 12 else CHUNKS)
        grid = max(1, min(parts // across, rows // 12)), across
    words |= {"weights": net.pack(key, matrix[None], layout.half), "grid": grid}
    words["bias"] = net.keep_bias(key, bias, out.layout)
    phase.add(Kind.PRODUCT, out, layout, *views, **words)


def is_depthwise(conv: ops.Convolution) -> bool:
    """Whether it treats each channel alone, in a way that the engine knows."""
    channels, depth, _, width = conv.taps[0].shape
    (_, stride), _, (_, dilation), groups = conv.options
    known = (width, stride) in ((1, 1), (3, 1), (3, 2)) and dilation == 1
    return groups == channels and depth == 1 and known and conv.kernel <= MAX_FRAMES


def depthwise(
    phase: "PhaseWriter", conv: ops.Convolution, inputs: dict[int, Place], out: Place, **words
) -> None:
    """Kernel slices of each channel alone, or with `sums` in the words all that a frame adds to."""
    if not is_depthwise(conv):
        raise unsupported(conv)
    net, kind = phase.net, Kind.SUMS if "sums" in words else Kind.DEPTHWISE
    places = list(inputs.values())[: 1 if kind == Kind.SUMS else None]
    layout, size, key = places[0].layout, out.layout.size, (conv.name, *inputs)
    stride, (above, left), dilation, _ = conv.options
    views = [phase.view(place, size, stride, (-above, -left)) for place in places]
    planes = torch.stack([conv.taps[tap][:, 0].permute(1, 2, 0) for tap in inputs])
    words["weights"] = net.keep(key, layout.spread(planes))
    words["bias"] = net.keep_bias(key, conv.bias if 0 in inputs else None, out.layout)
    words |= {"kernel": planes.shape[1:3], "stride": stride, "dilation": dilation}
    words["padding"] = above, left
    parts = min(8 if size[0] > 20 else 4, size[0]) if size[0] * size[1] > 64 else 1  # of an image
    across = 1 if parts > 1 else min(layout.step // net.lanes.lanes, 4)
    words["grid"] = net.batch * parts, across
    phase.add(kind, out, layout, *views, **words)


def tiles(phase: "PhaseWriter", conv: ops.Convolution, place: Place, out: Place, **words) -> None:
    """Winograd's F(4x4, 3x3): tiles in, 36 products, tiles out."""
    net, layout, key = phase.net, place.layout, (conv.name, "tiles")
    down, across = (-(-n // 4) for n in out.layout.size)
    before = Layout((down * across, 1), (), layout.step)
    after = before._replace(step=out.layout.step)
    first = Place(before, Base.SPARE)
    second = Place(after, Base.SPARE, 36 * net.batch * before.bytes)
    net.spare_bytes = max(net.spare_bytes, second.offset + 36 * net.batch * after.bytes)
    in_repeat, out_repeat = (net.batch * tile.bytes // 4 for tile in (before, after))
    grid = chunks(net.batch * down * across, 4), 1
    corners = phase.view(place, (down, across), (4, 4), (-1, -1))
    phase.add(Kind.TILES_IN, first, layout, corners, out_repeat=in_repeat, grid=grid)
    filters, weight = torch.tensor(FILTERS, dtype=torch.float64), conv.taps[0].double()
    matrix = torch.einsum("rh,sw,ochw->rsoc", filters, filters, weight).flatten(0, 1)
    matrix = layout.spread(matrix).transpose(1, 2)
    phase.add(
        Kind.PRODUCT,
        second,
        before,
        phase.view(first, length=before.step),
        weights=net.pack(key, matrix),
        bias=net.keep(("zeros", after.step), torch.zeros(after.step)),
        repeats=36,
        in_repeat=in_repeat,
        out_repeat=out_repeat,
        weights_repeat=before.step * after.step,
    )
    words |= {"bias": net.keep_bias(key, conv.bias, out.layout), "grid": grid}
    words |= {"in_repeat": out_repeat, "rows": net.batch * down * across}
    phase.add(Kind.TILES_OUT, out, after, phase.view(second), **words)

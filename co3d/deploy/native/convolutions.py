"""The instructions of convolutions: products, planes of single channels, and tiles."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..operations import (
    Convolution,
    SummingConvolution,
    due,
)
from .kinds import (
    CHUNK,
    DEPTHWISE,
    FILTERS,
    MAX_FRAMES,
    MAX_TAPS,
    PRODUCT,
    SUMS,
    TILES_IN,
    TILES_OUT,
    Unsupported,
    chunks,
    pairs,
    spread,
)
from .layout import SCRATCH, Instruction, Layout, Place, Tap
from .places import Places


class Convolutions(Places):
    """Writes the instructions of convolutions."""

    def _convolution(self, number: int, conv: Convolution) -> None:
        if due(conv.timing, self.phase):
            value, words, shortcut = self.end(number, may_add=True)
            place, mask = self.target(value)
            inputs = list(enumerate(self.inputs(conv)))
            maker = self._product(conv, inputs, conv.bias, place, shortcut, words | mask)
            self.name(value, place)
            self.makers[value] = maker
        self.write_to_ring(conv.name, conv.sources[0])

    def _summing_convolution(self, number: int, conv: SummingConvolution) -> None:
        """A product for each kernel slice: the first completes a result, the others go on."""
        x = self.places[conv.sources[0]]
        value, words, _ = self.end(number)
        place, mask = self.target(value)
        sums = [
            self.earlier(conv.queue(tap), conv.dilation, False) for tap in range(conv.kernel - 1)
        ]
        goals = [(place, words | mask), *(self.newest(conv.queue(tap)) for tap in range(len(sums)))]
        if self._in_one_pass(conv, x, place):
            maker = self._depthwise(conv, [(tap, x) for tap in range(3)], conv.bias, *goals[0])
            maker.kind, maker.first_sums = SUMS, goals[1][1]["first"]
            maps = [self.map(one) for one in (*sums, goals[1][0], goals[2][0])]
            self.net.taps[maker.tap + 1 :] = [Tap(at) for at in maps]  # after the input
            maker.taps = 1 + len(maps)
            self.makers[value] = maker
        else:
            for tap, (goal, goal_words) in enumerate(goals):
                begun = sums[tap] if tap < len(sums) else None
                bias = None if tap else conv.bias
                self._product(conv, [(tap, x)], bias, goal, begun, goal_words)
        self.name(value, place)

    def _in_one_pass(self, conv: Convolution, x: Place, out: Place) -> bool:
        """Whether one instruction adds to all sums of a 3x3x3 kernel of each channel alone."""
        (_, stride), _, (_, dilation), groups = conv.options
        channels, depth, _, width = conv.taps[0].shape
        alone = groups == channels and depth == 1 and x.layout.half == out.layout.half
        return alone and conv.kernel == width == 3 and dilation == 1 and stride <= 2

    def _product(
        self,
        conv: Convolution,
        inputs: list[tuple[int, Place]],
        bias: Tensor | None,
        out: Place,
        added: Place | None,
        words: dict,
    ) -> Instruction:
        """The instructions for kernel slices, each with its input."""
        channels, depth, *_ = conv.taps[0].shape
        groups, layout = conv.options[3], inputs[0][1].layout
        halves = {place.layout.half for place in (out, *([added] if added else []))}
        if added is not None:
            words = words | {"add": self.map(added)}
        if groups == 1 and len(halves) == 1 and layout.half <= out.layout.half:
            if self.net.in_tiles(conv, layout.height, layout.width):
                return self._tiles(conv, inputs[0], bias, out, words)
            return self._dense(conv, inputs, bias, out, words)
        (_, stride), _, (_, dilation), _ = conv.options
        shape = conv.taps[0].shape[3], stride
        known = shape in ((1, 1), (3, 1), (3, 2)) and dilation == 1
        if groups == channels and depth == 1 and halves == {layout.half} and known:
            return self._depthwise(conv, inputs, bias, out, words)
        raise Unsupported(f"the native engine has no convolution like {conv.name}")

    def _dense(
        self, conv: Convolution, inputs: list, bias: Tensor | None, out: Place, words: dict
    ) -> Instruction:
        layout = inputs[0][1].layout
        stride, padding, dilation, _ = conv.options
        channels, size = len(layout.channels), (out.layout.height, out.layout.width)
        scattered = layout.channels[-1] != channels - 1  # zeros lie between them
        length = layout.step if scattered else channels + layout.half * (channels % 2)
        kernel_h, kernel_w = conv.taps[0].shape[2:]
        # Neighbours in a row of the kernel are one tap where their channels join.
        joined = kernel_w if layout.step == length and dilation[1] == 1 else 1
        maps, lengths, slices = [], [], []
        for tap, place in inputs:
            weight = conv.taps[tap].detach().float()
            for y in range(kernel_h):
                for x in range(0, kernel_w, joined):
                    origin = (y * dilation[0] - padding[0]) * layout.pitch
                    origin += (x * dilation[1] - padding[1]) * layout.step
                    maps.append(self.map(place, size, stride, origin))
                    lengths.append(length * joined)
                    for part in weight[:, :, y, x : x + joined].unbind(2):
                        slices.append(spread(part, layout, length).T)
        if len(maps) > MAX_TAPS:
            raise Unsupported(f"the native engine has no kernel as large as that of {conv.name}")
        key, matrix = (conv.name, tuple(tap for tap, _ in inputs)), torch.cat(slices)[None]
        return self._matrix(key, matrix, bias, out, layout, *maps, lengths=lengths, **words)

    def _matrix(
        self,
        key: object,
        matrix: Tensor,
        bias: Tensor | None,
        out: Place,
        layout: Layout,
        *maps,
        **words,
    ) -> Instruction:
        """A product with weights [1, depth, columns]."""
        _, depth, columns = matrix.shape
        lanes, rows = self.net.lanes, self.net.batch * out.layout.height * out.layout.width
        if bias is not None:
            padded = F.pad(bias.detach(), (0, -columns % lanes.lanes))
            words["bias"] = self.net.keep_floats((key, "bias"), padded)
        words["weights"] = self.net.pack(key, matrix, layout.half)
        parts = chunks(rows * depth * columns, CHUNK)
        if rows > max(64, 12 * parts):
            words["grid_rows"] = parts
        else:  # few rows: by columns, whose weights are read once
            across = min(len(lanes.blocks(lanes.vectors(columns))), parts)
            words["grid_vectors"] = across
            uneven = across % 2 and rows > 12  # for two threads
            words["grid_rows"] = max(2 if uneven else 1, min(parts // across, rows // 12))
        return self.add(PRODUCT, out, layout, *maps, **words)

    def _depthwise(
        self, conv: Convolution, inputs: list, bias: Tensor | None, out: Place, words: dict
    ) -> Instruction:
        layout, size = inputs[0][1].layout, (out.layout.height, out.layout.width)
        if len(inputs) > MAX_FRAMES:
            raise Unsupported(f"the native engine has no kernel as long as that of {conv.name}")
        stride, padding, dilation, _ = conv.options
        kernel = conv.taps[0].shape[2:]
        origin = -padding[0] * layout.pitch - padding[1] * layout.step
        maps = [self.map(place, size, stride, origin) for _, place in inputs]
        key = conv.name, tuple(tap for tap, _ in inputs)
        planes = torch.stack([conv.taps[tap].detach()[:, 0].permute(1, 2, 0) for tap, _ in inputs])
        if bias is not None:
            words = words | {"bias": self.net.keep_floats((key, "bias"), spread(bias, layout))}
        words["weights"] = self.net.pack_planes(key, planes, layout)
        vectors = layout.step // self.net.lanes.lanes
        parts = chunks(size[0], 4) if size[0] * size[1] > 64 else 1
        grid = {"parts": parts, "grid_rows": self.net.batch * parts}
        grid["grid_vectors"] = 1 if parts > 1 else min(vectors, 4)
        words |= grid | pairs(kernel=kernel, stride=stride, dilation=dilation)
        return self.add(DEPTHWISE, out, layout, *maps, **words)

    def _tiles(
        self, conv: Convolution, source: tuple, bias: Tensor | None, out: Place, words: dict
    ) -> Instruction:
        """Winograd's F(4x4, 3x3): tiles in, 36 products, tiles out."""
        (tap, place), lanes, batch = source, self.net.lanes, self.net.batch
        layout, weight = place.layout, conv.taps[tap].detach().double()
        down, across = -(-out.layout.height // 4), -(-out.layout.width // 4)
        widths = layout.step, lanes.whole(len(weight))
        tiles = [Layout(down * across, 1, (), width) for width in widths]
        repeats = [batch * one.bytes // 4 for one in tiles]
        offsets = [self.scratch(36 * 4 * repeat, repeat) for repeat in repeats]
        for repeat, offset in zip(repeats, offsets, strict=True):  # free behind this operation
            self.free[repeat].append(offset)
        first, second = (Place(*pair) for pair in zip(tiles, (SCRATCH,) * 2, offsets, strict=True))
        grid = {"grid_rows": chunks(batch * down * across, 4)}
        corners = self.map(place, (down, across), (4, 4), -layout.pitch - layout.step)
        self.add(TILES_IN, first, layout, corners, out_repeat=repeats[0], **grid)
        filters = torch.tensor(FILTERS, dtype=torch.float64)
        matrix = torch.einsum("rh,sw,ochw->rsoc", filters, filters, weight).flatten(0, 1)
        matrix = spread(matrix, layout).transpose(1, 2)
        self.add(
            *(PRODUCT, second, tiles[0], self.map(first)),
            lengths=[widths[0]],
            weights=self.net.pack((conv.name, "tiles"), matrix),
            repeats=36,
            in_repeat=repeats[0],
            out_repeat=repeats[1],
            weights_repeat=widths[0] * widths[1],
        )
        bias = torch.zeros(len(weight)) if bias is None else bias.detach()
        padded = F.pad(bias, (0, widths[1] - len(bias)))
        words |= {"bias": self.net.keep_floats((conv.name, "bias"), padded), **grid}
        words |= {"in_repeat": repeats[1], "rows": batch * down * across}
        return self.add(TILES_OUT, out, tiles[1], self.map(second), **words)

"""An explicit step as a program for `engine.cpp`.

Every value of the step gets a place: a map in scratch memory, or the newest slot of the ring that
keeps it, into which the instruction that makes it writes. An activation, or the sum with a
shortcut, becomes the end of the product before it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..operations import (
    Convolution,
    Gate,
    Join,
    Late,
    Mean,
    Operation,
    Pool,
    Sample,
    SummingConvolution,
    Window,
)
from ..operations import Map as Pointwise
from ..step import Explicit
from .kinds import ACTIVATION, Unsupported, spread
from .layout import Lanes, Layout, Ring, Tap, aligned
from .writer import Writer


class Compiler:
    """What all phases of a program share: layouts, rings, tables of rows and packed weights.

    Args:
        explicit: the step.
        lanes: of the engine.
        half: whether maps, their state and weights are bfloat16; the input and the vectors behind
            the pool are float32.

    Attributes:
        phases: the instructions of each.
        puts: the rings that each phase puts something into.

    Raises:
        Unsupported: for a layer that the engine cannot run.
    """

    def __init__(self, explicit: Explicit, lanes: Lanes, half: bool) -> None:
        self.explicit, self.lanes, self.half = explicit, lanes, half
        self.operations: list[Operation] = list(explicit.operations)
        self.batch = explicit.frame_shape[0]
        self.consumers: list[list[int]] = [[] for _ in explicit.shapes]
        for number, operation in enumerate(self.operations):
            for source in operation.sources:
                self.consumers[source].append(number)
        self.layouts: list[Layout] = []
        for value in range(len(explicit.shapes)):
            self.layouts.append(self._layout(value))
        self.homes: dict[int, str] = {}  # the queue in whose ring a value lies
        self.rings: dict[str, Ring] = {}
        for number, operation in enumerate(self.operations):
            self._make_rings(number, operation)
        self.taps: list[Tap] = []
        self.tables: dict[tuple, int] = {}
        self.packed: dict[object, tuple[int, Tensor]] = {}  # bytes, by where they begin
        self.floats: dict[object, tuple[int, Tensor]] = {}
        self.row_count = self.packed_bytes = self.float_count = 0
        self.buffers: list[tuple[int, object]] = []  # (offset, kind) of scratch memory
        self.scratch_bytes = self.gate_floats = self.state_bytes = self.table_length = 0
        self.phases, self.puts, self.orders = [], [], []
        for phase in range(len(explicit.phases)):
            writer = Writer(self, phase)
            writer.write()
            self.phases.append(writer.instructions)
            self.puts.append(writer.ordered_puts())
            self.orders.append(writer.orders())
        self._share_slots()

    # Layouts

    def _layout(self, value: int) -> Layout:
        _, channels, height, width = (*self.explicit.shapes[value], 1, 1)[:4]
        borders = [(0, 0, 0)]
        readers = self._readers(value)
        for conv in readers:
            if isinstance(conv, Convolution):
                borders.append(self._border(conv, height, width))
        top, bottom, side = (max(sizes) for sizes in zip(*borders, strict=True))
        dense = all(isinstance(r, Convolution) and r.options[3] == 1 for r in readers)
        positions, step = tuple(range(channels)), self.lanes.whole(channels)
        if value:
            positions, step = self._channels(self.operations[value - 1], positions, step)
        elif dense:
            step = channels
        half = self.half and height * width > 1 and value > 0
        return Layout(height, width, positions, step, top, bottom, side, half)

    def _readers(self, value: int) -> list[Operation]:
        """The operations that read the memory of a value, also under other names."""
        readers = []
        for number in self.consumers[value]:
            operation = self.operations[number]
            renames = isinstance(operation, Sample | Late | Pointwise)
            readers += self._readers(number + 1) if renames else [operation]
        return readers

    def _channels(
        self, operation: Operation, compact: tuple[int, ...], step: int
    ) -> tuple[tuple[int, ...], int]:
        """Where the channels of a result lie: those that are joined lie side by side, each part
        from a whole vector on, and what changes no channel leaves them where they are."""
        sources = [self.layouts[source] for source in operation.sources]
        if isinstance(operation, Join) and operation.concatenates:
            positions, start = [], 0
            for layout in sources:
                positions += [start + channel for channel in layout.channels]
                start += layout.step
            return tuple(positions), start
        if isinstance(operation, Convolution) and operation.options[3] == 1:
            return compact, step
        if len({layout.channels for layout in sources}) > 1:
            raise Unsupported(f"the native engine has no sum like {operation.name}")
        return sources[0].channels, max(sources[0].step, step)

    def _border(self, conv: Convolution, height: int, width: int) -> tuple[int, int, int]:
        """Rows of zeros that a convolution reads above and below a map, and columns at a side."""
        if self.in_tiles(conv, height, width):
            return 1, 1 - height % -4, 1 - width % -4
        (above, below), (left, right) = (
            _padding(size, kernel, *(option[axis] for option in conv.options[:3]))
            for axis, (size, kernel) in enumerate(
                zip((height, width), conv.taps[0].shape[2:], strict=True)
            )
        )
        return above, below, max(left, right)

    def in_tiles(self, conv: Convolution, height: int, width: int) -> bool:
        """Whether a 3x3 convolution is large enough to gain by Winograd's minimal filtering."""
        out_channels, in_channels, *kernel = conv.taps[0].shape
        plain = conv.options == ((1, 1), (1, 1), (1, 1), 1) and kernel == [3, 3]
        wide = min(in_channels, out_channels) >= 32 and min(height, width) >= 8
        return plain and wide and len(conv.taps) == 1 and not self.half

    # State

    def _make_rings(self, number: int, operation: Operation) -> None:
        for name, source in _queues(operation):
            queue = self.explicit.queues.get(name)
            if queue is None:
                continue
            layout, length = self.layouts[source], queue.length
            if isinstance(operation, SummingConvolution):
                layout = self.layouts[number + 1]._replace(top=0, bottom=0, side=0)
            elif isinstance(operation, Mean):
                layout = self.layouts[number + 1]
                length = operation.dilation * (operation.kernel - 1)
            elif self._is_written(source):
                self.homes.setdefault(source, name)
            self.rings[name] = Ring(len(self.rings), layout, length, queue.initial)

    def _is_written(self, value: int) -> bool:
        """Whether an instruction writes a value, rather than it being another name of one."""
        if value == 0:
            return True
        operation = self.operations[value - 1]
        if type(operation) is Pointwise and type(operation.function) in ACTIVATION:
            (source,) = operation.sources
            return not source or not isinstance(self.operations[source - 1], Gate)
        return isinstance(operation, Convolution | Pool | Join)

    def _share_slots(self) -> None:
        """Lays out the slots of all rings. Those of one layout share the spare slot where each is
        written behind the last read of what the one before it has replaced."""
        groups: dict[object, list[Ring]] = {}
        for ring in self.rings.values():
            key = ring.group if ring.keeps_oldest else ring.number
            before = groups.get(key, [])[-1:]
            clashes = before and any(
                before[0].number in reads and ring.number in writes
                and writes[ring.number] <= reads[before[0].number]
                for writes, reads in self.orders
            )  # fmt: skip
            groups.setdefault(ring.number if clashes else key, []).append(ring)
        for rings in groups.values():
            for ring in rings:
                ring.offset, ring.table = self.state_bytes, self.table_length
                self.table_length += ring.length + 1
            spares = int(rings[0].keeps_oldest)
            slots = sum(ring.length for ring in rings) + spares
            self.state_bytes += slots * rings[0].layout.bytes
            for ring in rings if spares else ():
                ring.spare = self.table_length
            self.table_length += spares
        self.groups = list(groups.values())

    # Constants

    def table(
        self,
        layout: Layout,
        between: int | None,
        height: int,
        width: int,
        stride: tuple[int, int] = (1, 1),
    ) -> int:
        """Where the table begins that maps pixels (b, y, x) to elements.

        `between` are elements from one stream to the next; None stands for the state of a stream,
        whose length is known at the end.
        """
        steps = stride[0] * layout.pitch, stride[1] * layout.step
        key = (*steps, between, layout.size, height, width)
        if key not in self.tables:
            self.tables[key] = self.row_count
            self.row_count += self.batch * height * width
        return self.tables[key]

    def rows(self) -> Tensor:
        """All tables, behind one another."""
        tables = []
        for down, across, between, size, height, width in self.tables:
            between = self.state_bytes // size if between is None else between
            lengths, steps = (self.batch, height, width), (between, down, across)
            axes = [torch.arange(n) * step for n, step in zip(lengths, steps, strict=True)]
            tables.append((axes[0][:, None, None] + axes[1][:, None] + axes[2]).flatten())
        rows = torch.cat(tables)
        if rows.max() >= 2**31:
            raise Unsupported("the native engine has no addresses for so many streams at a time")
        return rows.to(torch.int32)

    def pack(self, key: object, matrix: Tensor, half: bool = False) -> int:
        """Keeps weights [repeats, depth, columns] in blocks of columns; where they begin."""
        if key not in self.packed:
            lanes = self.lanes.lanes
            matrix = F.pad(matrix, (0, -matrix.shape[2] % lanes))
            blocks = []
            for start, end in self.lanes.blocks(matrix.shape[2] // lanes):
                block = matrix[:, :, start * lanes : end * lanes]
                if half:  # neighbours in depth lie side by side
                    block = block.unflatten(1, (-1, 2)).transpose(2, 3)
                blocks.append(block.flatten(1))
            return self._keep(key, torch.cat(blocks, 1), half)
        return self.packed[key][0]

    def pack_planes(self, key: object, taps: Tensor, layout: Layout) -> int:
        """Keeps depthwise weights [taps, h, w, C]; where they begin."""
        return self._keep(key, spread(taps, layout), False)

    def _keep(self, key: object, x: Tensor, half: bool) -> int:
        if key not in self.packed:
            x = x.detach().to(torch.bfloat16 if half else torch.float32).contiguous().flatten()
            data = x.view(torch.uint8)
            data = F.pad(data, (0, -len(data) % 64))
            self.packed[key] = self.packed_bytes, data
            self.packed_bytes += len(data)
        return self.packed[key][0]

    def keep_floats(self, key: object, *tensors: Tensor) -> int:
        """Keeps numbers behind one another; where they begin."""
        if key not in self.floats:
            numbers = torch.cat([x.detach().float().flatten() for x in tensors])
            self.floats[key] = self.float_count, numbers
            self.float_count += len(numbers)
        return self.floats[key][0]

    def scratch(self, size: int, kind: object) -> int:
        """New scratch memory; where it begins."""
        offset = self.scratch_bytes
        self.scratch_bytes += aligned(size)
        self.buffers.append((offset, kind))
        return offset


def _queues(operation: Operation) -> list[tuple[str, int]]:
    """The queues of an operation, and the values that go into them."""
    if isinstance(operation, Join):
        return [
            (name, source)
            for (name, _), source in zip(operation.waits, operation.sources, strict=True)
        ]
    (source,) = operation.sources
    if isinstance(operation, SummingConvolution):
        return [(operation.queue(tap), source) for tap in range(operation.kernel - 1)]
    return [(operation.name, source)] if isinstance(operation, Window | Late) else []


def _padding(size: int, kernel: int, stride: int, padding: int, dilation: int) -> tuple[int, int]:
    """Zeros that a convolution reads before and behind an axis."""
    span = dilation * (kernel - 1)
    last = (size + 2 * padding - span - 1) // stride * stride - padding + span
    return padding, max(0, last - size + 1)

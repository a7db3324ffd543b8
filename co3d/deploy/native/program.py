"""An explicit step as a program for `engine.cpp`.

Every value of the step gets a place: a map in scratch memory, or the newest slot of the ring that
keeps it, into which the instruction that makes it writes. An activation, or the sum with a
shortcut, becomes the end of the product before it.
"""

from collections import defaultdict
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import operations as ops
from ..step import Explicit
from .layout import (
    Base,
    Instruction,
    Lanes,
    Layout,
    Place,
    Ring,
    Unsupported,
    View,
    Words,
    aligned,
    unsupported,
)
from .phase import PhaseWriter, is_activation, kept

HUGE_PAGE = 1 << 21  # bytes


class Program:
    """What all phases of a program share: layouts, rings, tables of rows and constants.

    Args:
        explicit: the step.
        lanes: of the engine.
        half: whether maps, their state and weights are bfloat16; the input and the vectors behind
            the pool are float32.

    Attributes:
        slots: the table of a new stream: where in its state each slot lies, in bytes.
        state_bytes: of one stream.

    Raises:
        Unsupported: for a layer that the engine cannot run.
    """

    def __init__(self, explicit: Explicit, lanes: Lanes, half: bool) -> None:
        self.explicit, self.lanes, self.half = explicit, lanes, half
        self.operations: list[ops.Operation] = list(explicit.operations)
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
        self.lengths = [ring.length for ring in self.rings.values()]
        self.taps: list[View] = []  # what instructions read
        self.tables: dict[tuple, int] = {}  # where they begin
        self.row_count = 0
        self.constants: dict[object, tuple[int, Tensor]] = {}  # where they begin, and bytes
        self.constant_bytes = 0
        self.buffers: dict[Layout, list[int]] = defaultdict(list)  # in scratch memory, by kind
        self.scratch_bytes = self.spare_bytes = 0
        self.phases = [PhaseWriter(self, phase) for phase in range(len(explicit.phases))]
        self.slots: list[int] = []
        self.state_bytes = 0
        self._lay_out_state()

    def only_consumer(self, value: int) -> ops.Operation | None:
        """The operation that takes a value, if there is but one."""
        consumers = self.consumers[value]
        return self.operations[consumers[0]] if len(consumers) == 1 else None

    # Layouts

    def _layout(self, value: int) -> Layout:
        _, count, *size = self.explicit.shapes[value]
        size = tuple(size) or (1, 1)
        operation = self.operations[value - 1]
        if value and isinstance(operation, ops.Pick):
            return self.layouts[operation.sources[0]]
        channels, step = tuple(range(count)), aligned(count, self.lanes.lanes)
        if value and not _is_dense(operation) and value < len(self.operations):
            channels, step = self._channels(operation)
        elif not value and self._is_for_products(0):
            step = count
        borders = [(0, 0, 0)]
        for reader in self._readers(value):
            if isinstance(reader, ops.Convolution):
                borders.append(self._border(reader, size))
        top, bottom, side = (max(sizes) for sizes in zip(*borders, strict=True))
        half = self.half and size != (1, 1) and value > 0
        return Layout(size, channels, step, top, bottom, side, half)

    def _is_for_products(self, value: int) -> bool:
        """Whether products alone read the frame, and no queue needs a copy of it."""
        readers = [self.operations[number] for number in self.consumers[value]]
        queues = [reader for reader in readers if reader.name in self.explicit.queues]
        return len(queues) <= (value == 0) and all(
            _is_dense(reader)
            or (isinstance(reader, ops.Pick) and self._is_for_products(number + 1))
            for number, reader in zip(self.consumers[value], readers, strict=True)
        )

    def _readers(self, value: int) -> list[ops.Operation]:
        """The operations that read the memory of a value, also under other names."""
        readers = []
        for number in self.consumers[value]:
            operation = self.operations[number]
            renames = isinstance(operation, ops.Pick | ops.Map)
            readers += self._readers(number + 1) if renames else [operation]
        return readers

    def _channels(self, operation: ops.Operation) -> tuple[tuple[int, ...], int]:
        """Where the channels of a result lie, and its step: those that are joined lie side by side,
        each part from a whole vector on, and what changes no channel leaves them where they are."""
        sources = [self.layouts[source] for source in operation.sources]
        if isinstance(operation, ops.Join) and operation.concatenates:
            channels, start = [], 0
            for layout in sources:
                channels += [start + channel for channel in layout.channels]
                start += layout.step
            return tuple(channels), start
        if len({layout.channels for layout in sources}) > 1:
            raise unsupported(operation)
        return sources[0].channels, sources[0].step

    def _border(self, conv: ops.Convolution, size: tuple[int, int]) -> tuple[int, int, int]:
        """Rows of zeros that a convolution reads above and below a map, and columns at a side."""
        if self.in_tiles(conv, size):
            return 1, 1 - size[0] % -4, 1 - size[1] % -4
        options = zip(size, conv.taps[0].shape[2:], *conv.options[:3], strict=True)
        (above, below), (left, right) = (_padding(*axis) for axis in options)
        if conv.options[3] > 1:  # whose instructions leave out what lies above and below
            above = below = 0
        return above, below, max(left, right)

    def in_tiles(self, conv: ops.Convolution, size: tuple[int, int]) -> bool:
        """Whether a 3x3 convolution is large enough to gain by Winograd's minimal filtering."""
        out_channels, in_channels, *kernel = conv.taps[0].shape
        plain = conv.options == ((1, 1), (1, 1), (1, 1), 1) and kernel == [3, 3]
        wide = min(in_channels, out_channels) >= 32 and min(size) >= 8
        return plain and wide and len(conv.taps) == 1 and not self.half

    # State

    def _make_rings(self, number: int, operation: ops.Operation) -> None:
        result = self.layouts[number + 1]
        layouts = {name: self.layouts[source] for name, source in kept(operation)}
        if isinstance(operation, ops.SummingConvolution):
            sums = result._replace(top=0, bottom=0, side=0)
            layouts = {operation.queue(tap): sums for tap in range(operation.kernel - 1)}
        elif isinstance(operation, ops.Mean):
            layouts = {operation.name: result}
        for name, layout in layouts.items():
            if queue := self.explicit.queues.get(name):
                vectors = queue.shape[1] if isinstance(operation, ops.Mean) else 1
                length = queue.length * vectors
                self.rings[name] = Ring(len(self.rings), layout, length, queue.first)
        for name, source in kept(operation):
            if name in self.rings and self._is_written(source):
                self.homes.setdefault(source, name)

    def _is_written(self, value: int) -> bool:
        """Whether an instruction writes a value, rather than it being another name of one."""
        operation = self.operations[value - 1]
        if value and is_activation(operation):
            (source,) = operation.sources
            return not source or not isinstance(self.operations[source - 1], ops.Gate)
        return not value or isinstance(operation, ops.Convolution | ops.Pooling | ops.Join)

    def _lay_out_state(self) -> None:
        """Gives each ring its slots. One that is written before the last read of what that replaces
        needs one more, which the rings of a layout share where no read comes too late."""
        groups: dict[object, list[Ring]] = {}
        for ring in self.rings.values():
            others = groups.get(ring.layout, [])
            shares = self._replaces_early(ring, ring) and not any(
                self._replaces_early(ring, other) or self._replaces_early(other, ring)
                for other in others
            )
            groups.setdefault(ring.layout if shares else ring.number, []).append(ring)
        for rings in groups.values():
            for ring in rings:
                ring.table = len(self.slots)
                for _ in range(ring.length):
                    self._add_slot(ring)
                self.slots.append(0)  # for what was replaced
            if self._replaces_early(rings[0], rings[0]):
                for ring in rings:
                    ring.spare = len(self.slots)
                self._add_slot(rings[0])

    def _add_slot(self, ring: Ring) -> None:
        self.slots.append(self.state_bytes)
        self.state_bytes += ring.layout.bytes

    def _replaces_early(self, old: Ring, new: Ring) -> bool:
        """Whether `new` is written after `old`, but before the last read of what that replaced."""
        return any(
            phase.writes[old.number] <= phase.writes[new.number] <= phase.reads[old.number]
            for phase in self.phases
            if old.number in phase.reads and new.number in phase.writes
        )

    # Scratch memory

    @staticmethod
    def kind(layout: Layout) -> Layout:
        """Equal for maps that may share memory: a border stays zero, because they have the same."""
        return layout._replace(channels=())

    def scratch(self, layout: Layout) -> int:
        """New memory for a map; where it begins."""
        self.buffers[self.kind(layout)].append(self.scratch_bytes)
        self.scratch_bytes += layout.bytes * self.batch
        return self.buffers[self.kind(layout)][-1]

    # Constants

    def table(self, place: Place, size: tuple[int, int], stride: tuple[int, int]) -> int:
        """Where the table begins that maps pixels (b, y, x) to elements."""
        layout = place.layout
        # The state of a stream has a length that is known at the end.
        image = None if place.base >= Base.STATE else layout.bytes // layout.element
        key = (image, stride[0] * layout.pitch, stride[1] * layout.step, layout.element, size)
        if key not in self.tables:
            self.tables[key] = self.row_count
            self.row_count += self.batch * size[0] * size[1]
        return self.tables[key]

    def _rows(self) -> Tensor:
        """All tables, behind one another."""
        tables = []
        for image, down, across, element, (height, width) in self.tables:
            image = self.state_bytes // element if image is None else image
            images = torch.arange(self.batch)[:, None, None] * image
            lines = torch.arange(height)[:, None] * down
            tables.append((images + lines + torch.arange(width) * across).flatten())
        rows = torch.cat(tables)
        if rows.max() >= 2**31:
            raise Unsupported("the native engine has no addresses for so many streams at a time")
        return rows.to(torch.int32)

    def pack(self, key: object, matrix: Tensor, half: bool = False) -> int:
        """Keeps weights [repeats, depth, columns] in blocks of columns; where they begin."""
        if key in self.constants:  # packed for another phase
            return self.constants[key][0]
        matrix = F.pad(matrix, (0, -matrix.shape[2] % self.lanes.lanes))
        blocks = []
        for start, end in self.lanes.blocks(matrix.shape[2]):
            block = matrix[:, :, start:end]
            if half:  # neighbours in depth lie side by side
                block = block.unflatten(1, (-1, 2)).transpose(2, 3)
            blocks.append(block.flatten(1))
        return self.keep(key, torch.cat(blocks, 1), half=half)

    def keep_bias(self, key: object, bias: Tensor | None, layout: Layout) -> int:
        """Keeps a bias, or zeros; where it begins."""
        x = torch.zeros(len(layout.channels)) if bias is None else bias
        return self.keep((key, "bias"), layout.spread(x))

    def keep(self, key: object, *tensors: Tensor, half: bool = False) -> int:
        """Keeps numbers behind one another; where they begin, in bytes."""
        if key not in self.constants:
            kind = torch.bfloat16 if half else torch.float32
            numbers = torch.cat([x.detach().to(kind).flatten() for x in tensors])
            self.constants[key] = self.constant_bytes, numbers.view(torch.uint8)
            self.constant_bytes += aligned(numbers.nbytes)
        return self.constants[key][0]

    def words(self, threads: int, empty: Callable[[int], Tensor]) -> tuple[Words, dict]:
        """The program as the engine reads it, and the memory to which it points.

        Args:
            empty: gives so many bytes.
        """
        constants = empty(self.constant_bytes)
        for begin, data in self.constants.values():
            constants[begin : begin + len(data)] = data
        instructions, puts, phases = [], [], []
        for phase in self.phases:
            counts = len(phase.instructions), len(puts), len(phase.writes)
            phases.append((len(instructions), *counts))
            instructions += phase.instructions
            puts += phase.writes
        memory = {
            "phases": torch.tensor(phases),
            "instructions": _packed(Instruction, instructions),
            "puts": torch.tensor(puts),
            "taps": _packed(View, self.taps),
            "rings": torch.tensor([[r.table, r.length, r.spare] for r in self.rings.values()]),
            "rows": self._rows(),
            "constants": constants,
        }
        words = Words(
            **{name: x.data_ptr() for name, x in memory.items()},
            longest=max(len(phase.instructions) for phase in self.phases),
            table=len(self.slots),
            batch=self.batch,
            threads=threads,
            scratch_bytes=aligned(self.scratch_bytes + self.spare_bytes, HUGE_PAGE),
            spare=self.scratch_bytes,
        )
        return words, memory


def _packed(kind: type, items: list) -> Tensor:
    """Structures side by side in memory."""
    return torch.frombuffer((kind * len(items))(*items), dtype=torch.int64)


def _is_dense(operation: ops.Operation) -> bool:
    return isinstance(operation, ops.Convolution) and operation.options[3] == 1


def _padding(size: int, kernel: int, stride: int, padding: int, dilation: int) -> tuple[int, int]:
    """Zeros that a convolution reads before and behind an axis."""
    span = dilation * (kernel - 1)
    last = (size + 2 * padding - span - 1) // stride * stride - padding + span
    return padding, max(0, last - size + 1)

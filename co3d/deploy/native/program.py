"""An explicit step as instructions for `engine.cpp`.

Every value of the step gets a place: a map in scratch memory, or the newest slot of the ring that
keeps it, into which the instruction that makes it writes. Activations, and the sum with a shortcut,
become the end of the product before them.
"""

from dataclasses import dataclass, field, fields, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ...nn.pointwise import ACTIVATIONS, Linear
from ..step import (
    Convolution,
    Explicit,
    Gate,
    Join,
    Late,
    Map,
    Mean,
    Operation,
    Pool,
    Sample,
    SummingConvolution,
    Window,
    due,
)

NOWHERE, FRAME, LOGITS, SCRATCH, STATE = range(5)
INPUT, PRODUCT, DEPTHWISE, SCALE, POOL, MEAN, WINDOW, COPY, TILES_IN, TILES_OUT, SUMS = range(11)
ACTIVATION = {ACTIVATIONS["ReLU"]: 1, ACTIVATIONS["SiLU"]: 2, ACTIVATIONS["Sigmoid"]: 3}
ALIGNMENT = 64  # bytes
MAX_TAPS, MAX_FRAMES = 128, 32  # of a product and of a depthwise convolution
FETCHED = 1 << 20  # bytes that a product fetches ahead at most
CHUNK = 150_000  # multiply-accumulates that are worth a chunk of their own


class Unsupported(TypeError):
    """A layer that the engine cannot run."""


class Layout(NamedTuple):
    """How a map lies in memory: rows of pixels with a border of zeros.

    The border at the sides lies between two rows, so it is the right one of a row and the left one
    of the next. `step` is the distance of two pixels in elements, `pitch` that of two rows in
    pixels; `channels` tells where each channel lies in a pixel.
    """

    height: int
    width: int
    channels: tuple[int, ...]
    step: int
    top: int = 0
    bottom: int = 0
    side: int = 0
    half: bool = False

    @property
    def pitch(self) -> int:
        return self.width + self.side

    @property
    def size(self) -> int:
        """Bytes of an element."""
        return 2 if self.half else 4

    @property
    def first(self) -> int:
        """Bytes to the first pixel inside the border."""
        return (self.top * self.pitch + self.side) * self.step * self.size

    @property
    def bytes(self) -> int:
        pixels = (self.top + self.height + self.bottom) * self.pitch + self.side
        return _aligned(pixels * self.step * self.size)


class Place(NamedTuple):
    """Where a value lies during a step."""

    layout: Layout
    place: int
    offset: int = 0  # bytes
    ring: int = 0
    back: int = 0


@dataclass
class Ring:
    """The slots of a queue in the memory of a stream; what is in the newest is `back` 0."""

    number: int
    layout: Layout
    length: int  # of the queue
    in_place: bool = True  # whether what is put in may replace the oldest
    offset: int = 0

    @property
    def slots(self) -> int:
        return self.length + (not self.in_place)


MapWords = tuple[int, int, int, int, int]


@dataclass
class Instruction:
    """The words of an instruction, as in `engine.cpp`."""

    kind: int
    out: MapWords
    add: MapWords = (NOWHERE, 0, 0, 0, 0)
    first: int = 0
    infinite: int = 0
    first_sums: int = 0
    activation: int = 0
    rows: int = 0
    vectors: int = 0
    in_half: int = 0
    out_half: int = 0
    tap: int = 0
    taps: int = 0
    ahead: int = 0
    aheads: int = 0
    weights: int = 0
    bias: int = -1
    height: int = 1
    width: int = 1
    in_height: int = 1
    in_width: int = 1
    kernel_h: int = 1
    kernel_w: int = 1
    stride_h: int = 1
    stride_w: int = 1
    pad_h: int = 0
    pad_w: int = 0
    dilation_h: int = 1
    dilation_w: int = 1
    pitch: int = 0
    step: int = 0
    channels: int = 0
    inner: int = 0
    sums: int = -1
    parts: int = 1
    repeats: int = 1
    in_repeat: int = 0
    out_repeat: int = 0
    weights_repeat: int = 0
    grid_rows: int = 1
    grid_vectors: int = 1

    def words(self) -> list[int]:
        """All numbers, in the order of the struct."""
        words = []
        for part in fields(self):
            value = getattr(self, part.name)
            words += value if isinstance(value, tuple) else [value]
        return words


@dataclass
class Program:
    """What the engine is made from; arrays are kept as long as it lives."""

    instructions: list[list[Instruction]] = field(default_factory=list)
    puts: list[list[int]] = field(default_factory=list)
    taps: list[list[int]] = field(default_factory=list)
    rings: dict[str, Ring] = field(default_factory=dict)

    @property
    def ring_list(self) -> list[Ring]:
        return list(self.rings.values())

    rows: list[np.ndarray] = field(default_factory=list)
    packed: list[np.ndarray] = field(default_factory=list)
    floats: list[np.ndarray] = field(default_factory=list)
    state_bytes: int = 0
    scratch_bytes: int = 0
    gate_floats: int = 0


def _aligned(n: int, to: int = ALIGNMENT) -> int:
    return -(-n // to) * to


def _pieces(n: int, most: int) -> list[tuple[int, int]]:
    """(start, end) of as few equal parts as there are with at most `most` each."""
    count = -(-n // most)
    return [(n * i // count, n * (i + 1) // count) for i in range(count)]


class Lanes(NamedTuple):
    """What the engine was compiled for: numbers in a vector, vectors in a block of columns."""

    lanes: int
    block: int


class Compiler:
    """Makes the program of a step.

    Args:
        explicit: the step.
        lanes: of the engine.
        half: whether maps, their state and weights are bfloat16; vectors behind the pool stay
            float32.

    Raises:
        Unsupported: for a layer that the engine cannot run.
    """

    def __init__(self, explicit: Explicit, lanes: Lanes, half: bool) -> None:
        self.explicit, self.lanes, self.half = explicit, lanes, half
        self.operations: list[Operation] = list(explicit.operations)
        self.shapes, self.batch = explicit.shapes, explicit.frame_shape[0]
        self.program = Program()
        self.consumers: dict[int, list[int]] = {n: [] for n in range(len(self.shapes))}
        for number, operation in enumerate(self.operations):
            for source in operation.sources:
                self.consumers[source].append(number)
        self.layouts = {n: self._layout(n) for n in range(len(self.shapes))}
        self.homes: dict[int, str] = {}  # the queue in whose ring a value lies
        self._make_rings()
        self.weights: dict[object, tuple[int, int]] = {}  # packed once, for all phases
        self.row_tables: dict[tuple, int] = {}
        self.row_count = self.packed_bytes = self.float_count = 0
        self.buffers: list[tuple[int, tuple]] = []  # (offset, kind) of scratch memory

    def compile(self) -> Program:
        """The program, all phases."""
        for phase in range(len(self.explicit.phases)):
            writer = _PhaseWriter(self, phase)
            writer.write()
            self.program.instructions.append(writer.instructions)
            self.program.puts.append([ring.number for ring in writer.put.values()])
        for ring in self.program.rings.values():
            ring.offset = self.program.state_bytes
            self.program.state_bytes += ring.slots * ring.layout.bytes
        # Only now the length of a stream in memory, which tables depend on, is known.
        return self.program

    # ------------------------------------------------------------ layouts

    def _layout(self, value: int) -> Layout:
        _, channels, height, width = (*self.shapes[value], 1, 1)[:4]
        top = bottom = side = 0
        readers = self._readers(value)
        for conv in readers:
            if isinstance(conv, Convolution):
                above, below, left, right = self._border(conv, height, width)
                top, bottom, side = max(top, above), max(bottom, below), max(side, left, right)
        dense = all(isinstance(r, Convolution) and r.options[3] == 1 for r in readers)
        step = channels if value == 0 and dense else _aligned(channels, self.lanes.lanes)
        half = self.half and height * width > 1 and value > 0
        positions = range(channels)
        if value and isinstance(self.operations[value - 1], Join):
            join = self.operations[value - 1]
            if join.concatenates:
                positions, step = self._joined_channels(join)
        return Layout(height, width, tuple(positions), step, top, bottom, side, half)

    def _readers(self, value: int) -> list[Operation]:
        """The operations that read the memory of a value, also by other names of it."""
        readers = []
        for number in self.consumers[value]:
            operation = self.operations[number]
            renames = isinstance(operation, Sample | Late | Map)
            readers += self._readers(number + 1) if renames else [operation]
        return readers

    def _is_written(self, value: int) -> bool:
        """Whether the memory of a value is its own, not that of another value."""
        if value == 0:
            return True
        operation = self.operations[value - 1]
        if type(operation) is Map and type(operation.function) in ACTIVATION:
            source = operation.sources[0]
            return not source or not isinstance(self.operations[source - 1], Gate)
        return isinstance(operation, Convolution | Pool | Join)

    def _joined_channels(self, join: Join) -> tuple[list[int], int]:
        """Parts side by side, each from a whole vector on."""
        positions, start = [], 0
        for source in join.sources:
            channels = self.shapes[source][1]
            positions += range(start, start + channels)
            start += _aligned(channels, self.lanes.lanes)
        return positions, start

    def _border(self, conv: Convolution, height: int, width: int) -> tuple[int, int, int, int]:
        """Zeros that a convolution reads above, below, left and right of a map."""
        if self.tiled(conv, height, width):
            return 1, -height % 4 + 1, 1, -width % 4 + 1
        borders = []
        kernel = conv.taps[0].shape[2:]
        for n, size in enumerate((height, width)):
            stride, padding, dilation = (option[n] for option in conv.options[:3])
            span = dilation * (kernel[n] - 1)
            last = (size + 2 * padding - span - 1) // stride * stride - padding + span
            borders += [padding, max(0, last - size + 1)]
        return tuple(borders)

    def tiled(self, conv: Convolution, height: int, width: int) -> bool:
        """Whether a 3x3 convolution pays by Winograd's minimal filtering."""
        out_channels, in_channels, *kernel = conv.taps[0].shape
        plain = conv.options == ((1, 1), (1, 1), (1, 1), 1) and kernel == [3, 3]
        wide = min(in_channels, out_channels) >= 32 and min(height, width) >= 8
        return plain and wide and len(conv.taps) == 1 and not self.half

    # ------------------------------------------------------------ state

    def _make_rings(self) -> None:
        for number, operation in enumerate(self.operations):
            for name, source in self._queues(operation):
                queue = self.explicit.queues.get(name)
                if queue is None:
                    continue
                if isinstance(operation, SummingConvolution):
                    layout = self.layouts[number + 1]._replace(top=0, bottom=0, side=0)
                elif isinstance(operation, Mean):
                    channels = self.shapes[source][1]
                    step = _aligned(channels, self.lanes.lanes)
                    layout = Layout(1, 1, tuple(range(channels)), step)
                    queue = replace(queue, length=operation.dilation * (operation.kernel - 1))
                else:
                    layout = self.layouts[source]
                    if self._is_written(source):
                        self.homes.setdefault(source, name)
                ring = Ring(len(self.program.rings), layout, queue.length)
                self.program.rings[name] = ring

    def _queues(self, operation: Operation) -> list[tuple[str, int]]:
        """The queues of an operation, and the values that go into them."""
        if isinstance(operation, Join):
            return [
                (name, source)
                for (name, length), source in zip(operation.waits, operation.sources, strict=True)
                if length
            ]
        if isinstance(operation, SummingConvolution):
            return [(operation.queue(tap), -1) for tap in range(operation.kernel - 1)]
        if isinstance(operation, Window | Late):
            return [(operation.name, operation.sources[0])]
        return []

    # ------------------------------------------------------------ constants

    def table(self, layout: Layout, batch: int | None, height: int, width: int,
              stride: tuple[int, int] = (1, 1)) -> int:  # fmt: skip
        """Where the table begins that maps pixels (b, y, x) to elements.

        `batch` are elements between streams; None stands for a stream's state, whose length is
        known at the end.
        """
        key = (layout.step, layout.pitch, layout.size, batch, height, width, stride)
        if key not in self.row_tables:
            self.row_tables[key] = self.row_count
            self.row_count += self.batch * height * width
        return self.row_tables[key]

    def write_tables(self) -> np.ndarray:
        """All tables of rows, once the length of the state is known."""
        parts = []
        for step, pitch, size, batch, height, width, stride in self.row_tables:
            between = self.program.state_bytes // size if batch is None else batch
            streams = np.arange(self.batch)[:, None, None] * between
            lines = np.arange(height)[None, :, None] * stride[0] * pitch * step
            pixels = np.arange(width)[None, None, :] * stride[1] * step
            rows = (streams + lines + pixels).ravel()
            if rows.max(initial=0) >= 2**31:
                raise Unsupported("expected fewer streams at a time, given a state above 2^31")
            parts.append(rows.astype(np.int32))
        return np.concatenate(parts)

    def pack(self, key: object, matrix: Tensor, bias: Tensor | None, half: bool) -> tuple[int, int]:
        """Weights [repeats, depth, columns] in blocks of columns; returns where they begin."""
        if key not in self.weights:
            columns = _aligned(matrix.shape[2], self.lanes.lanes)
            matrix = nn.functional.pad(matrix, (0, columns - matrix.shape[2]))
            blocks = []
            for start, end in _pieces(columns // self.lanes.lanes, self.lanes.block):
                block = matrix[:, :, start * self.lanes.lanes : end * self.lanes.lanes]
                if half:  # two neighbours in depth lie side by side
                    block = block.unflatten(1, (-1, 2)).transpose(2, 3)
                blocks.append(block.flatten(1))
            packed = torch.cat(blocks, 1).contiguous()
            self.weights[key] = self._keep(packed, half), self.keep_floats(bias, columns)
        return self.weights[key]

    def _keep(self, x: Tensor, half: bool) -> int:
        x = x.detach().to(torch.bfloat16 if half else torch.float32).contiguous().flatten()
        data = x.view(torch.uint8).numpy()
        at = self.packed_bytes
        data = np.pad(data, (0, _aligned(len(data)) - len(data)))
        self.program.packed.append(data)
        self.packed_bytes += len(data)
        return at

    def keep_plane(self, key: object, taps: Tensor, layout: Layout) -> int:
        """Depthwise weights [taps, h, w, C], channels as in the layout; where they begin."""
        if key not in self.weights:
            spread = torch.zeros(*taps.shape[:-1], layout.step)
            spread[..., list(layout.channels)] = taps.detach().float()
            self.weights[key] = self._keep(spread, False), -1
        return self.weights[key][0]

    def keep_floats(self, *values: Tensor | int | None) -> int:
        """Numbers behind one another; the last argument pads each to a length. -1 for None."""
        *tensors, length = values
        if tensors == [None]:
            return -1
        at = self.float_count
        for x in tensors:
            flat = x.detach().float().flatten().numpy()
            flat = np.pad(flat, (0, max(0, length - len(flat))))
            self.program.floats.append(flat)
            self.float_count += len(flat)
        return at

    def scratch(self, size: int) -> int:
        """New scratch memory: where it begins."""
        at = self.program.scratch_bytes
        self.program.scratch_bytes += _aligned(size)
        return at


class _PhaseWriter:
    """The instructions of one phase."""

    def __init__(self, net: Compiler, phase: int) -> None:
        self.net, self.phase = net, phase
        self.instructions: list[Instruction] = []
        self.places: dict[int, Place] = {}
        self.absorbed: set[int] = set()  # operations that others do
        self.makers: dict[int, Instruction] = {}  # of a value in scratch
        self.buffers: dict[tuple, list[int]] = {}  # free ones, by kind
        self.used: dict[int, tuple[tuple, set[int]]] = {}  # offset: kind and the values in it
        self.pending = {value: len(by) for value, by in net.consumers.items()}
        self.put = self._puts()
        for offset, kind in net.buffers:
            self.buffers.setdefault(kind, []).append(offset)

    def _puts(self) -> dict[str, Ring]:
        rings = self.net.program.rings
        return {name: rings[name] for name in self.net.explicit.phases[self.phase].writes}

    def write(self) -> None:
        """Writes all instructions that are due."""
        self._input()
        for number, operation in enumerate(self.net.operations):
            is_here = all(source in self.places for source in operation.sources)
            if number not in self.absorbed:
                if isinstance(operation, Join):
                    self._join(number, operation)
                elif is_here:
                    self._operation(number, operation)
            for source in operation.sources:
                self._release(source)
        self._look_ahead()

    def _look_ahead(self) -> None:
        """Lets each product fetch what the instructions up to the next one read of older state."""
        far: list[MapWords] = []
        for instruction in reversed(self.instructions):
            reads = [
                self.net.program.taps[n]
                for n in range(instruction.tap, instruction.tap + instruction.taps)
            ]
            if instruction.kind == PRODUCT:
                self._fetch(instruction, far)
                far = []
            elif instruction.kind in (DEPTHWISE, SUMS):
                far = [tuple(tap[:5]) for tap in reads if tap[0] == STATE and tap[2]] + far
            if instruction.add[0] == STATE:
                far = [instruction.add, *far]

    def _fetch(self, product: Instruction, far: list[MapWords]) -> None:
        product.ahead = len(self.net.program.taps)
        total = 0
        for place, ring, back, _, _ in dict.fromkeys(far):
            size = self.net.program.ring_list[ring].layout.bytes
            if total + size > FETCHED:
                break
            total += size
            for stream in range(self.net.batch):
                self.tap((place, ring, back, 0, stream), size)
                product.aheads += 1

    def _operation(self, number: int, operation: Operation) -> None:
        if isinstance(operation, SummingConvolution):
            self._sums(number, operation)
        elif isinstance(operation, Convolution):
            self._convolution(number, operation)
        elif isinstance(operation, Gate):
            self._gate(number, operation)
        elif isinstance(operation, Mean):
            self._mean(number, operation)
        elif isinstance(operation, Pool):
            self._pool(number, operation)
        elif isinstance(operation, Sample):
            if due(operation.timing, self.phase):
                self._alias(number + 1, self.places[operation.sources[0]])
        elif isinstance(operation, Late):
            self._late(number, operation)
        elif isinstance(operation, Map):
            self._map(number, operation)
        else:
            raise Unsupported(f"the native engine has no {type(operation).__name__}")

    # ------------------------------------------------------------ memory

    def _target(self, value: int) -> tuple[Place, dict]:
        """Where a value is to lie, and when what is put there counts."""
        layout = self.net.layouts[value]
        home = self.net.homes.get(value)
        if home in self.put:
            return self._putting(home)
        place = self._buffer(layout, value)
        return place, {}

    def _buffer(self, layout: Layout, value: int) -> Place:
        """Scratch memory for a value. A border stays zero, as only maps of one shape share it."""
        kind = layout._replace(channels=())
        free = self.buffers.setdefault(kind, [])
        if free:
            offset = free.pop()
        else:
            offset = self.net.scratch(layout.bytes * self.net.batch)
            self.net.buffers.append((offset, kind))
        self.used[offset] = (kind, {value})
        return Place(layout, SCRATCH, offset)

    def _alias(self, value: int, place: Place) -> None:
        self.places[value] = place
        if place.place == SCRATCH:
            self.used[place.offset][1].add(value)

    def _release(self, value: int) -> None:
        """A consumer is done; frees what nobody needs any more."""
        self.pending[value] -= 1
        place = self.places.get(value)
        if place is None or place.place != SCRATCH or place.offset not in self.used:
            return
        kind, values = self.used[place.offset]
        if all(self.pending[other] == 0 for other in values):
            del self.used[place.offset]
            self.buffers[kind].append(place.offset)

    def _putting(self, name: str) -> tuple[Place, dict]:
        """The newest slot of a ring, and the mask of what is put there."""
        ring, queue = self.net.program.rings[name], self.net.explicit.queues[name]
        mask = {"first": queue.first, "infinite": int(queue.initial < 0)}
        return Place(ring.layout, STATE, 0, ring.number, 0), mask

    def _reading(self, name: str, depth: int, after_put: bool = False) -> Place:
        """What was put in `depth` times ago, before this step.

        `after_put`: whether that is read when this step has put in something new.
        """
        ring = self.net.program.rings[name]
        is_put = name in self.put
        if is_put and after_put and depth == ring.length:
            ring.in_place = False
        return Place(ring.layout, STATE, 0, ring.number, depth if is_put else depth - 1)

    def words(self, place: Place, height: int, width: int, stride: tuple[int, int] = (1, 1),
              origin: int = 0) -> MapWords:  # fmt: skip
        """The words of a map, whose rows are pixels (y, x) at a stride; `origin` in elements."""
        layout = place.layout
        batch = None if place.place == STATE else layout.bytes // layout.size
        if place.place == LOGITS:
            batch = layout.step
        table = self.net.table(layout, batch, height, width, stride)
        first = 0 if place.place == LOGITS else layout.first
        offset = place.offset + first + origin * layout.size
        return place.place, place.ring, place.back, offset, table

    def map_of(self, place: Place) -> MapWords:
        """All pixels of a place."""
        return self.words(place, place.layout.height, place.layout.width)

    def tap(self, words: MapWords, length: int = 0) -> int:
        """Appends to the list of taps; returns its number."""
        self.net.program.taps.append([*words, length])
        return len(self.net.program.taps) - 1

    # ------------------------------------------------------------ the end of a product

    def _end(self, number: int, may_add: bool = True) -> tuple[int, dict, Place | None]:
        """What an operation does beside its own: the value that it makes, the words for that, and
        what it adds."""
        value, words, shortcut = number + 1, {}, None
        activation = self._activation(value)
        if activation is None and may_add:
            join, shortcut = self._shortcut(value)
            if shortcut is not None:
                self.absorbed.add(join)
                value = join + 1
                activation = self._activation(value)
        if activation is not None:
            value = self.net.consumers[value][0] + 1
            self.absorbed.add(value - 1)
            words["activation"] = activation
        return value, words, shortcut

    def _activation(self, value: int) -> int | None:
        """The activation that alone takes a value."""
        if len(self.net.consumers[value]) != 1:
            return None
        operation = self.net.operations[self.net.consumers[value][0]]
        return ACTIVATION.get(type(operation.function)) if type(operation) is Map else None

    def _shortcut(self, value: int) -> tuple[int, Place | None]:
        """The sum that alone takes a value, and what it adds to it, if that is there."""
        if len(self.net.consumers[value]) != 1:
            return -1, None
        number = self.net.consumers[value][0]
        join = self.net.operations[number]
        if not isinstance(join, Join) or join.concatenates or len(join.sources) != 2:
            return -1, None
        here = join.sources.index(value)
        (_, wait), (name, other_wait) = join.waits[here], join.waits[1 - here]
        other = join.sources[1 - here]
        if wait or other == value or not due(join.timing, self.phase):
            return -1, None
        if other_wait and self.net.homes.get(other) != name:
            return -1, None
        if other_wait:
            after_put = name not in self.put or other in self.places
            return number, self._reading(name, other_wait, after_put)
        return number, self.places.get(other)

    # ------------------------------------------------------------ operations

    def _input(self) -> None:
        batch, channels, height, width = self.net.explicit.frame_shape
        place, mask = self._target(0)
        self.places[0] = place
        self.instructions.append(
            Instruction(
                INPUT, self.map_of(place), **mask, rows=batch * height, vectors=1,
                out_half=int(place.layout.half), height=height, width=width, channels=channels,
                step=place.layout.step, grid_rows=4 if height * width > 4096 else 1,
            )
        )  # fmt: skip

    def _keep_input(self, operation: Window) -> None:
        """Puts an input of the operation into its ring, if it was not made there."""
        source = operation.sources[0]
        if operation.name in self.put and self.net.homes.get(source) != operation.name:
            place, mask = self._putting(operation.name)
            self._copy(self.places[source], place, **mask)

    def _inputs(self, operation: Window) -> list[Place]:
        """The newest input and those before it."""
        source = operation.sources[0]
        at_home = self.net.homes.get(source) == operation.name
        past = [self._reading(operation.name, depth, at_home) for depth in operation.depths]
        return [self.places[source], *past]

    def _convolution(self, number: int, conv: Convolution) -> None:
        if due(conv.timing, self.phase):
            value, words, shortcut = self._end(number)
            target, mask = self._target(value)
            taps = list(enumerate(self._inputs(conv)))
            bias = conv.bias
            self._product(conv, value, taps, bias, target, shortcut, words | mask)
        self._keep_input(conv)

    def _sums(self, number: int, conv: SummingConvolution) -> None:
        """One product for each kernel slice: the first completes a result, the others go on."""
        inputs = self.places[conv.sources[0]]
        if self._sums_at_once(number, conv, inputs):
            return
        for tap in range(conv.kernel):
            last = tap == conv.kernel - 1
            begun = None if last else self._reading(conv.queue(tap), conv.dilation)
            if tap:
                value = None
                target, words = self._putting(conv.queue(tap - 1))
            else:
                value, words, _ = self._end(number, may_add=False)
                target, mask = self._target(value)
                words = words | mask
            bias = None if tap else conv.bias
            self._product(conv, value, [(tap, inputs)], bias, target, begun, words)

    def _sums_at_once(self, number: int, conv: SummingConvolution, inputs: Place) -> bool:
        """The same for 3x3x3 kernels of each channel alone, in one pass over the input."""
        (_, stride), _, (_, dilation), groups = conv.options
        channels, depth, _, kernel_w = conv.taps[0].shape
        alone = (
            groups == channels
            and depth == 1
            and inputs.layout.half == self.net.layouts[number + 1].half
        )
        if not alone or conv.kernel != 3 or kernel_w != 3 or dilation != 1 or stride > 2:
            return False
        value, words, _ = self._end(number, may_add=False)
        target, mask = self._target(value)
        adds = [self._reading(conv.queue(tap), conv.dilation) for tap in (0, 1)]
        outs = [self._putting(conv.queue(tap)) for tap in (0, 1)]
        words |= mask | {"out": self.map_of(target), "out_half": int(target.layout.half)}
        words["first_sums"] = outs[0][1]["first"]
        taps = [(tap, inputs) for tap in range(3)]
        made = self._depthwise(conv, taps, conv.bias, target.layout, words)
        made.kind, made.tap, made.taps = SUMS, len(self.net.program.taps), 5
        self.net.program.taps.append(self.net.program.taps[made.tap - 3])
        for place in (*adds, *(place for place, _ in outs)):
            self.tap(self.map_of(place))
        self._alias(value, target)
        self.makers[value] = made
        return True

    def _product(
        self,
        conv: Convolution,
        value: int | None,
        taps: list[tuple[int, Place]],
        bias: Tensor | None,
        target: Place,
        shortcut: Place | None,
        words: dict,
    ) -> None:
        """The instructions for some kernel slices of a convolution."""
        groups = conv.options[3]
        layout = taps[0][1].layout
        if groups == 1 and self.net.tiled(conv, layout.height, layout.width):
            make = self._tiles
        elif groups == 1:
            make = self._dense
        elif groups == conv.taps[0].shape[0] and conv.taps[0].shape[1] == 1:
            make = self._depthwise
        else:
            raise Unsupported(
                f"the native engine has no convolution of {groups} groups: {conv.name}"
            )
        if make != self._dense and layout.half != target.layout.half:
            raise Unsupported(f"the native engine has no bfloat16 for {conv.name}")
        words = words | {"out": self.map_of(target), "out_half": int(target.layout.half)}
        if shortcut is not None:
            if shortcut.layout.half != target.layout.half:
                raise Unsupported(
                    f"the native engine has no sum of a map and a vector: {conv.name}"
                )
            words["add"] = self.map_of(shortcut)
        made = make(conv, taps, bias, target.layout, words)
        if value is not None:
            self._alias(value, target)
            self.makers[value] = made

    def _dense(self, conv: Convolution, taps: list, bias: Tensor | None, out: Layout,
               words: dict) -> Instruction:  # fmt: skip
        layout = taps[0][1].layout
        stride, padding, dilation, _ = conv.options
        kernel_h, kernel_w = conv.taps[0].shape[2:]
        channels = len(layout.channels)
        whole = layout.channels[-1] != channels - 1  # parts of a concatenation, zeros between
        length = layout.step if whole else channels
        together = layout.step == channels and dilation[1] == 1 and not layout.half
        if layout.half:
            length += length % 2
        slices, first = [], len(self.net.program.taps)
        for tap, place in taps:
            weight = conv.taps[tap].detach().float()
            for y in range(kernel_h):
                line = (y * dilation[0] - padding[0]) * layout.pitch - padding[1]
                for x in range(0, kernel_w, kernel_w if together else 1):
                    across = range(x, kernel_w) if together else [x]
                    origin = (line + x * dilation[1]) * layout.step
                    at = self.words(place, out.height, out.width, stride, origin)
                    self.tap(at, length * len(across))
                    for dx in across:
                        part = torch.zeros(length, weight.shape[0])
                        rows = list(layout.channels) if whole else slice(0, channels)
                        part[rows] = weight[:, :, y, dx].T
                        slices.append(part)
        count = len(self.net.program.taps) - first
        if count > MAX_TAPS:
            raise Unsupported(f"the native engine has no kernel so large: {conv.name}")
        key = (conv.name, tuple(tap for tap, _ in taps))
        matrix = torch.cat(slices)[None]
        weights, offsets = self.net.pack(key, matrix, bias, layout.half)
        rows, vectors = self.net.batch * out.height * out.width, _vectors(weight, self.net.lanes)
        grid = self._grid(rows, matrix.shape[1], vectors)
        return self._add(
            Instruction(
                PRODUCT, **words, rows=rows, vectors=vectors, in_half=int(layout.half),
                tap=first, taps=count, weights=weights, bias=offsets, **grid,
            )
        )  # fmt: skip

    def _grid(self, rows: int, depth: int, vectors: int) -> dict[str, int]:
        """Into how many chunks a product is cut: by rows, or by columns where there are few rows."""
        lanes, block = self.net.lanes
        chunks = max(1, min(8, rows * depth * vectors * lanes // CHUNK))
        blocks = -(-vectors // block)
        if rows >= 12 * chunks and rows > 64:
            return {"grid_rows": chunks}
        columns = min(blocks, chunks)
        return {"grid_vectors": columns, "grid_rows": max(1, min(chunks // columns, rows // 12))}

    def _depthwise(self, conv: Convolution, taps: list, bias: Tensor | None, out: Layout,
                   words: dict) -> Instruction:  # fmt: skip
        layout = taps[0][1].layout
        if len(taps) > MAX_FRAMES:
            raise Unsupported(f"the native engine has no kernel so long: {conv.name}")
        stride, padding, dilation, _ = conv.options
        kernel_h, kernel_w = conv.taps[0].shape[2:]
        origin = -(padding[0] * layout.pitch + padding[1]) * layout.step
        first = len(self.net.program.taps)
        for _, place in taps:
            self.tap(self.words(place, out.height, out.width, stride, origin))
        key = (conv.name, tuple(tap for tap, _ in taps))
        planes = torch.stack([conv.taps[tap].detach()[:, 0].permute(1, 2, 0) for tap, _ in taps])
        vectors = layout.step // self.net.lanes.lanes
        parts = max(1, min(8, out.height // 4)) if out.height * out.width > 64 else 1
        offsets = -1
        if bias is not None:
            key_bias = (*key, "bias")
            if key_bias not in self.net.weights:
                spread = torch.zeros(layout.step)
                spread[list(layout.channels)] = bias.detach().float()
                self.net.weights[key_bias] = (0, self.net.keep_floats(spread, layout.step))
            offsets = self.net.weights[key_bias][1]
        return self._add(
            Instruction(
                DEPTHWISE, **words, rows=self.net.batch * out.height * out.width, vectors=vectors,
                in_half=int(layout.half), tap=first, taps=len(taps),
                weights=self.net.keep_plane(key, planes, layout), bias=offsets,
                height=out.height, width=out.width, kernel_h=kernel_h, kernel_w=kernel_w,
                stride_h=stride[0], stride_w=stride[1], dilation_h=dilation[0],
                dilation_w=dilation[1], pitch=layout.pitch * layout.step, step=layout.step,
                parts=parts, grid_rows=self.net.batch * parts,
                grid_vectors=1 if parts > 1 else min(vectors, 4),
            )
        )  # fmt: skip

    def _tiles(self, conv: Convolution, taps: list, bias: Tensor | None, out: Layout,
               words: dict) -> Instruction:  # fmt: skip
        """Winograd's F(4x4, 3x3): tiles in, 36 products, tiles out."""
        (tap, place), lanes = taps[0], self.net.lanes.lanes
        layout = place.layout
        down, across = -(-out.height // 4), -(-out.width // 4)
        rows = self.net.batch * down * across
        weight = conv.taps[tap].detach().double()
        inputs, outputs = layout.step, _aligned(weight.shape[0], lanes)
        sizes = [36 * rows * width * 4 for width in (inputs, outputs)]
        offsets = [self._temporary(size) for size in sizes]
        maps = [
            (SCRATCH, 0, 0, offset, self._flat_table(rows, width))
            for offset, width in zip(offsets, (inputs, outputs), strict=True)
        ]
        for size, offset in zip(sizes, offsets, strict=True):
            self.buffers[size].append(offset)  # free again behind this operation
        origin = -(layout.pitch + 1) * layout.step
        at = self.words(place, down, across, (4, 4), origin)
        grid = {"grid_rows": max(1, min(8, rows // 4))}
        self._add(
            Instruction(
                TILES_IN, maps[0], rows=rows, vectors=inputs // lanes, tap=self.tap(at), taps=1,
                pitch=layout.pitch * layout.step, step=layout.step, out_repeat=rows * inputs, **grid,
            )
        )  # fmt: skip
        filters = torch.tensor(FILTERS, dtype=torch.float64)
        spread = torch.zeros(weight.shape[0], inputs, 3, 3, dtype=torch.float64)
        spread[:, list(layout.channels)] = weight
        matrix = torch.einsum("rh,sw,ochw->rsco", filters, filters, spread).flatten(0, 1)
        weights, offsets = self.net.pack((conv.name, "tiles"), matrix, bias, False)
        self._add(
            Instruction(
                PRODUCT, maps[1], rows=rows, vectors=outputs // lanes, tap=self.tap(maps[0], inputs),
                taps=1, weights=weights, repeats=36, in_repeat=rows * inputs,
                out_repeat=rows * outputs, weights_repeat=inputs * outputs,
            )
        )  # fmt: skip
        if offsets < 0:
            offsets = self.net.keep_floats(torch.zeros(outputs), outputs)
        return self._add(
            Instruction(
                TILES_OUT, **words, rows=rows, vectors=outputs // lanes, tap=self.tap(maps[1]),
                taps=1, bias=offsets, height=out.height, width=out.width,
                in_repeat=rows * outputs, **grid,
            )
        )  # fmt: skip

    def _flat_table(self, rows: int, width: int) -> int:
        """Rows of some width behind one another."""
        lines = rows // self.net.batch
        return self.net.table(Layout(1, 1, (), width), lines * width, lines, 1)

    def _temporary(self, size: int) -> int:
        """Scratch memory of a size."""
        free = self.buffers.setdefault(size, [])
        if free:
            return free.pop()
        offset = self.net.scratch(size)
        self.net.buffers.append((offset, size))
        return offset

    def _add(self, instruction: Instruction) -> Instruction:
        self.instructions.append(instruction)
        return instruction

    def _gate(self, number: int, gate: Gate) -> None:
        """Scales a map in place, of which the convolution before it sums the pixels."""
        source = gate.sources[0]
        maker, place = self.makers.get(source), self.places[source]
        alone = len(self.net.consumers[source]) == 1 and place.place == SCRATCH
        if maker is None or maker.kind not in (DEPTHWISE, SUMS) or not alone:
            raise Unsupported(f"the native engine has no gate but behind a convolution of each "
                              f"channel alone: {gate.name}")  # fmt: skip
        layout, batch = place.layout, self.net.batch
        sums = self._temporary(batch * maker.parts * layout.step * 4)
        self.buffers.setdefault(batch * maker.parts * layout.step * 4, []).append(sums)
        maker.sums = sums
        inner = gate.fc1.weight.shape[0]
        if (gate.name, "gate") not in self.net.weights:
            positions = list(layout.channels)
            first, second = torch.zeros(2, inner, layout.step)
            first[:, positions] = gate.fc1.weight.detach().float().flatten(1)
            second[:, positions] = gate.fc2.weight.detach().float().flatten(1).T
            bias = torch.zeros(layout.step)
            bias[positions] = gate.fc2.bias.detach().float()
            tensors = first, gate.fc1.bias, second, bias
            self.net.weights[gate.name, "gate"] = self.net.keep_floats(*tensors, 0), -1
        value, words, _ = self._end(number, may_add=False)
        self.net.program.gate_floats = max(
            self.net.program.gate_floats, batch * layout.step + inner
        )
        self._add(
            Instruction(
                SCALE, self.map_of(place), **words, rows=maker.rows, vectors=maker.vectors,
                in_half=int(layout.half), out_half=int(layout.half), inner=inner, sums=sums,
                weights=self.net.weights[gate.name, "gate"][0], parts=maker.parts,
                grid_rows=max(1, min(8, maker.rows * maker.vectors // 200)),
            )
        )  # fmt: skip
        self._alias(value, place)

    def _mean(self, number: int, mean: Mean) -> None:
        source = self.places[mean.sources[0]]
        layout, batch = source.layout, self.net.batch
        vectors, value = layout.step // self.net.lanes.lanes, number + 1
        grid = {"grid_vectors": min(vectors, 4)}
        target = self._target(value)[0]
        is_kept = mean.name in self.put
        newest = self._putting(mean.name)[0] if is_kept else target
        self._add(
            Instruction(
                MEAN, self.map_of(newest), rows=batch, vectors=vectors,
                in_half=int(layout.half), tap=self.tap(self.map_of(source)), taps=1,
                in_height=layout.height, in_width=layout.width, **grid,
            )
        )  # fmt: skip
        if is_kept:
            ages = range(0, mean.dilation * (mean.kernel - 1) + 1, mean.dilation)
            places = [newest, *(self._reading(mean.name, age, True) for age in ages[1:])]
            taps = [self.tap(self.map_of(place)) for place in places]
            self._add(
                Instruction(
                    WINDOW, self.map_of(target), rows=batch, vectors=vectors,
                    tap=taps[0], taps=len(taps), **grid,
                )
            )  # fmt: skip
        self._alias(value, target)

    def _pool(self, number: int, pool: Pool) -> None:
        if pool.averages or (pool.over_space and pool.depths):
            raise Unsupported(f"the native engine has no such pool: {pool.name}")
        if due(pool.timing, self.phase):
            inputs = self._inputs(pool)
            layout = inputs[0].layout
            value, words, _ = self._end(number, may_add=False)
            target, mask = self._target(value)
            out = target.layout
            (step_h, step_w), (pad_h, pad_w) = pool.step, pool.padding
            dilation_h, dilation_w = pool.options[0]
            origin = -(pad_h * layout.pitch + pad_w) * layout.step
            taps = [
                self.tap(self.words(place, out.height, out.width, pool.step, origin))
                for place in inputs
            ]
            self._add(
                Instruction(
                    POOL, self.map_of(target), **words, **mask,
                    rows=self.net.batch * out.height * out.width,
                    vectors=out.step // self.net.lanes.lanes,
                    in_half=int(layout.half), out_half=int(out.half), tap=taps[0], taps=len(taps),
                    height=out.height, width=out.width, in_height=layout.height,
                    in_width=layout.width, kernel_h=pool.size[0], kernel_w=pool.size[1],
                    stride_h=step_h, stride_w=step_w, pad_h=pad_h, pad_w=pad_w,
                    dilation_h=dilation_h, dilation_w=dilation_w,
                    pitch=layout.pitch * layout.step, step=layout.step,
                    grid_rows=max(1, min(8, out.height // 4)),
                )
            )  # fmt: skip
            self._alias(value, target)
        self._keep_input(pool)

    def _late(self, number: int, late: Late) -> None:
        at_home = self.net.homes.get(late.sources[0]) == late.name
        self.places[number + 1] = self._reading(late.name, late.frames, True)
        if not at_home:
            place, mask = self._putting(late.name)
            self._copy(self.places[late.sources[0]], place, **mask)

    def _join(self, number: int, join: Join) -> None:
        ready, is_due = [], due(join.timing, self.phase)
        for source, (name, length) in zip(join.sources, join.waits, strict=True):
            if is_due:
                ready.append(self._reading(name, length, True) if length else self.places[source])
            if name in self.put and self.net.homes.get(source) != name and source in self.places:
                place, mask = self._putting(name)
                self._copy(self.places[source], place, **mask)
        if not is_due:
            return
        value, words = number + 1, {}
        if not join.concatenates:
            value, words, _ = self._end(number, may_add=False)
        target, mask = self._target(value)
        if join.concatenates:
            at = 0
            for place in ready:
                part = target._replace(offset=target.offset + at * target.layout.size)
                self._copy(place, part, **mask)
                at += place.layout.step
        else:
            total = ready[0]
            for place in ready[1:-1]:
                self._copy(total, target, add=place)
                total = target
            self._copy(total, target, add=ready[-1], **words, **mask)
        self._alias(value, target)

    def _copy(self, place: Place, target: Place, add: Place | None = None, **words: int) -> None:
        """Copies a map, or the sum of two."""
        layout = place.layout
        rows = self.net.batch * layout.height * layout.width
        if add is not None:
            words["add"] = self.map_of(add)
            if add.layout.half != target.layout.half:
                raise Unsupported("the native engine has no sum of a map and a vector")
        vectors = layout.step // self.net.lanes.lanes
        self._add(
            Instruction(
                COPY, self.map_of(target), **words, rows=rows, vectors=vectors,
                in_half=int(layout.half), out_half=int(target.layout.half),
                tap=self.tap(self.map_of(place)), taps=1,
                grid_rows=max(1, min(8, rows * vectors // 500)),
            )
        )  # fmt: skip

    def _map(self, number: int, operation: Map) -> None:
        source = operation.sources[0]
        place, function = self.places[source], operation.function
        layout, value = place.layout, number + 1
        if operation.name == "flatten" and layout.height == layout.width == 1:
            self._alias(value, place)
        elif isinstance(function, Linear) and value == len(self.net.operations):
            self._classifier(function, place)
        elif type(function) in ACTIVATION:
            target, mask = self._target(value)
            self._copy(place, target, activation=ACTIVATION[type(function)], **mask)
            self._alias(value, target)
        else:
            name = type(function).__name__
            raise Unsupported(f"the native engine has no {name}: {operation.name}")

    def _classifier(self, layer: Linear, place: Place) -> None:
        layout, lanes = place.layout, self.net.lanes.lanes
        weight = torch.zeros(layout.step, layer.out_features)
        weight[list(layout.channels)] = layer.weight.detach().float().T
        weights, offsets = self.net.pack("classifier", weight[None], layer.bias, False)
        step = _aligned(layer.out_features, lanes)
        logits = Place(Layout(1, 1, (), step), LOGITS)
        self._add(
            Instruction(
                PRODUCT, self.map_of(logits), rows=self.net.batch, vectors=step // lanes,
                tap=self.tap(self.map_of(place), layout.step), taps=1, weights=weights,
                bias=offsets, **self._grid(self.net.batch, layout.step, step // lanes),
            )
        )  # fmt: skip


def _vectors(weight: Tensor, lanes: Lanes) -> int:
    return -(-weight.shape[0] // lanes.lanes)


FILTERS = (
    *((1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6)),
    *((1 / 24, 1 / 12, 1 / 6), (1 / 24, -1 / 12, 1 / 6), (0, 0, 1)),
)

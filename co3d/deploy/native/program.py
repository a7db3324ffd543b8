"""An explicit step as a program for `engine.cpp`.

Every value of the step gets a place: a map in scratch memory, or the newest slot of the ring that
keeps it, into which the instruction that makes it writes. An activation, or the sum with a
shortcut, becomes the end of the product before it.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ...nn.pointwise import ACTIVATIONS, Linear
from ..step import (
    Convolution,
    Explicit,
    Gate,
    Join,
    Late,
    Mean,
    Operation,
    Pool,
    Sample,
    SummingConvolution,
    Window,
    due,
)
from ..step import (
    Map as Pointwise,
)
from .layout import (
    LOGITS,
    SCRATCH,
    STATE,
    Instruction,
    Lanes,
    Layout,
    Map,
    Place,
    Ring,
    Tap,
    aligned,
    vector,
)

INPUT, PRODUCT, DEPTHWISE, SCALE, POOL, AVERAGE, COPY, TILES_IN, TILES_OUT, SUMS = range(10)
ACTIVATION = {ACTIVATIONS["ReLU"]: 1, ACTIVATIONS["SiLU"]: 2, ACTIVATIONS["Sigmoid"]: 3}
MAX_TAPS, MAX_FRAMES = 128, 32  # of a product, of a depthwise convolution
CHUNKS = 8  # into which the work of an instruction is cut at most
CHUNK = 150_000  # multiply-accumulates that are worth a chunk of their own
AHEAD = 1 << 20  # bytes of older state that a product fetches for what comes next, at most


class Unsupported(TypeError):
    """A layer that the engine cannot run."""


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
        self.scratch_bytes = self.gate_floats = self.state_bytes = 0
        self.phases, self.puts = [], []
        for phase in range(len(explicit.phases)):
            writer = _PhaseWriter(self, phase)
            writer.write()
            self.phases.append(writer.instructions)
            self.puts.append([ring.number for ring in writer.put.values()])
        for ring in self.rings.values():
            ring.offset = self.state_bytes
            self.state_bytes += ring.slots * ring.layout.bytes

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


class _PhaseWriter:
    """Writes the instructions of one phase."""

    def __init__(self, net: Compiler, phase: int) -> None:
        self.net, self.phase = net, phase
        self.instructions: list[Instruction] = []
        self.places: dict[int, Place] = {}
        self.makers: dict[int, Instruction] = {}
        self.absorbed: set[int] = set()  # operations that the instruction of another one does
        self.put = {name: net.rings[name] for name in net.explicit.phases[phase].writes}
        self.pending = [len(consumers) for consumers in net.consumers]
        self.free: dict[object, list[int]] = {}  # scratch memory, by kind
        self.values: dict[int, set[int]] = {}  # that lie in scratch memory, by its offset
        for offset, kind in net.buffers:
            self.free.setdefault(kind, []).append(offset)

    def write(self) -> None:
        """Writes all instructions that are due."""
        self._input()
        methods = {
            SummingConvolution: self._summing_convolution,
            Convolution: self._convolution,
            Gate: self._gate,
            Mean: self._mean,
            Pool: self._pool,
            Sample: self._sample,
            Late: self._late,
            Join: self._join,
            Pointwise: self._pointwise,
        }
        for number, operation in enumerate(self.net.operations):
            is_here = all(source in self.places for source in operation.sources)
            if number not in self.absorbed and (is_here or isinstance(operation, Join)):
                methods[type(operation)](number, operation)
            for source in operation.sources:
                self._release(source)
        self._fetch_ahead()

    def add(
        self,
        kind: int,
        out: Place,
        source: Layout,
        *maps: Map,
        lengths: Sequence[int] = (),
        **words,
    ) -> Instruction:
        """Appends an instruction that makes a map out of others in the layout `source`."""
        result, taps = out.layout, self.net.taps
        facts = {
            "rows": self.net.batch * result.height * result.width,
            "vectors": result.step // self.net.lanes.lanes,
            **{"height": result.height, "width": result.width, "out_half": result.half},
            **{"in_height": source.height, "in_width": source.width, "in_half": source.half},
            **{"pitch": source.pitch, "step": source.step},
            **{"tap": len(taps), "taps": len(maps)},
        }
        taps += [Tap(*pair) for pair in zip(maps, lengths or [0] * len(maps), strict=True)]
        self.instructions.append(Instruction(kind, self.map(out), **facts | words))
        return self.instructions[-1]

    # Memory

    def target(self, value: int) -> tuple[Place, dict]:
        """Where a value is to be written, and the words that say when it counts."""
        home = self.net.homes.get(value)
        if home in self.put:
            return self.newest(home)
        # A border stays zero, because only maps of one layout share memory.
        layout = self.net.layouts[value]
        kind = layout._replace(channels=())
        offset = self._scratch(layout.bytes * self.net.batch, kind)
        self.values[offset] = {value}
        return Place(layout, SCRATCH, offset), {}

    def _scratch(self, size: int, kind: object) -> int:
        free = self.free.setdefault(kind, [])
        return free.pop() if free else self.net.scratch(size, kind)

    def name(self, value: int, place: Place) -> None:
        """Says where a value lies, which may be where another one does."""
        self.places[value] = place
        if place.place == SCRATCH:
            self.values[place.offset].add(value)

    def _release(self, value: int) -> None:
        """A consumer is done: frees what nobody needs any more."""
        self.pending[value] -= 1
        place = self.places.get(value)
        if place is None or place.place != SCRATCH or place.offset not in self.values:
            return
        if not any(self.pending[other] for other in self.values[place.offset]):
            del self.values[place.offset]
            self.free[place.layout._replace(channels=())].append(place.offset)

    def newest(self, name: str) -> tuple[Place, dict]:
        """The slot of a ring for what is put in, and the words that say when that counts."""
        ring, queue = self.net.rings[name], self.net.explicit.queues[name]
        words = {"first": queue.first, "infinite": int(queue.initial < 0)}
        return Place(ring.layout, STATE, 0, ring.number, 0), words

    def earlier(self, name: str, depth: int, behind_put: bool) -> Place:
        """What was put in `depth` times ago, before this step.

        `behind_put`: whether it is read when this step has already put in something new.
        """
        ring = self.net.rings[name]
        if name not in self.put:
            return Place(ring.layout, STATE, 0, ring.number, depth - 1)
        ring.keeps_oldest |= behind_put and depth == ring.length
        return Place(ring.layout, STATE, 0, ring.number, depth)

    def map(
        self,
        place: Place,
        size: tuple[int, int] | None = None,
        stride: tuple[int, int] = (1, 1),
        origin: int = 0,
    ) -> Map:
        """The pixels of a place, or those at a stride from `origin` (in elements) on."""
        layout = place.layout
        between = None if place.place == STATE else layout.bytes // layout.size
        if place.place == LOGITS:
            between = layout.step
        rows = self.net.table(layout, between, *(size or (layout.height, layout.width)), stride)
        offset = place.offset + layout.first + origin * layout.size
        return Map(place.place, place.ring, place.back, offset, rows)

    def _fetch_ahead(self) -> None:
        """Lets each product fetch the older state that the instructions behind it read.

        That was last touched a step ago: without asking early, the arithmetic waits for it.
        """
        far: list[Map] = []
        for instruction in reversed(self.instructions):
            if instruction.kind == PRODUCT and instruction.repeats == 1:
                self._fetch(instruction, far)
                far = []
            if instruction.kind in (DEPTHWISE, SUMS):
                taps = self.net.taps[instruction.tap : instruction.tap + instruction.taps]
                far = [t.map for t in taps if t.map.place == STATE and t.map.back] + far
            if instruction.add.place == STATE:
                far = [instruction.add, *far]

    def _fetch(self, product: Instruction, far: list[Map]) -> None:
        product.ahead, total = len(self.net.taps), 0
        layouts = [ring.layout for ring in self.net.rings.values()]
        for ring, back in dict.fromkeys((at.ring, at.back) for at in far):
            size = layouts[ring].bytes
            total += size * self.net.batch
            if total > AHEAD:
                break
            for stream in range(self.net.batch):  # in the place of a table
                self.net.taps.append(Tap(Map(STATE, ring, back, 0, stream), size))
        product.aheads = len(self.net.taps) - product.ahead

    # The end of an instruction

    def end(self, number: int, may_add: bool = False) -> tuple[int, dict, Place | None]:
        """The value that an operation makes together with those that it absorbs, the words for
        that, and what it adds."""
        value, words, shortcut = number + 1, {}, None
        if may_add and self._activation(value) is None:
            join, shortcut = self._shortcut(value)
            if shortcut is not None:
                self.absorbed.add(join)
                value = join + 1
        if (activation := self._activation(value)) is not None:
            words["activation"] = activation
            self.absorbed.add(self.net.consumers[value][0])
            value = self.net.consumers[value][0] + 1
        return value, words, shortcut

    def _activation(self, value: int) -> int | None:
        """The activation that is the only consumer of a value."""
        consumer = self._only_consumer(value)
        return ACTIVATION.get(type(consumer.function)) if type(consumer) is Pointwise else None

    def _only_consumer(self, value: int) -> Operation | None:
        consumers = self.net.consumers[value]
        return self.net.operations[consumers[0]] if len(consumers) == 1 else None

    def _shortcut(self, value: int) -> tuple[int, Place | None]:
        """The sum that is the only consumer of a value, and what it adds, if that is there."""
        join = self._only_consumer(value)
        if not isinstance(join, Join) or join.concatenates or len(join.sources) != 2:
            return -1, None
        number, here = self.net.consumers[value][0], join.sources.index(value)
        other = join.sources[1 - here]
        (_, wait), (name, other_wait) = join.waits[here], join.waits[1 - here]
        if wait or other == value or not due(join.timing, self.phase):
            return -1, None
        if not other_wait:
            return number, self.places.get(other)
        if self.net.homes.get(other) != name:
            return -1, None
        return number, self.earlier(name, other_wait, other in self.places)

    # Operations

    def _input(self) -> None:
        batch, channels, height, width = self.net.explicit.frame_shape
        place, words = self.target(0)
        self.name(0, place)
        words |= {"rows": batch * height, "channels": channels, "step": place.layout.step}
        self.add(INPUT, place, place.layout, **words, grid_rows=_chunks(height * width, 4096))

    def _inputs(self, operation: Window) -> list[Place]:
        """The newest input and the earlier ones."""
        (source,) = operation.sources
        at_home = self.net.homes.get(source) == operation.name
        depths = operation.depths
        past = [self.earlier(operation.name, depth, at_home) for depth in depths]
        return [self.places[source], *past]

    def _put(self, name: str, source: int) -> None:
        """Puts a value into a ring, if it was not made there."""
        if name in self.put and self.net.homes.get(source) != name:
            place, words = self.newest(name)
            self._copy(self.places[source], place, **words)

    def _convolution(self, number: int, conv: Convolution) -> None:
        if due(conv.timing, self.phase):
            value, words, shortcut = self.end(number, may_add=True)
            place, mask = self.target(value)
            inputs = list(enumerate(self._inputs(conv)))
            maker = self._product(conv, inputs, conv.bias, place, shortcut, words | mask)
            self.name(value, place)
            self.makers[value] = maker
        self._put(conv.name, conv.sources[0])

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
        chunks = _chunks(rows * depth * columns, CHUNK)
        if rows > max(64, 12 * chunks):
            words["grid_rows"] = chunks
        else:  # few rows: by columns, whose weights are read once
            across = min(len(lanes.blocks(lanes.vectors(columns))), chunks)
            words["grid_vectors"] = across
            words["grid_rows"] = max(1, min(chunks // across, rows // 12))
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
        parts = _chunks(size[0], 4) if size[0] * size[1] > 64 else 1
        grid = {"parts": parts, "grid_rows": self.net.batch * parts}
        grid["grid_vectors"] = 1 if parts > 1 else min(vectors, 4)
        words |= grid | _pairs(kernel=kernel, stride=stride, dilation=dilation)
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
        offsets = [self._scratch(36 * 4 * repeat, repeat) for repeat in repeats]
        for repeat, offset in zip(repeats, offsets, strict=True):  # free behind this operation
            self.free[repeat].append(offset)
        first, second = (Place(*pair) for pair in zip(tiles, (SCRATCH,) * 2, offsets, strict=True))
        grid = {"grid_rows": _chunks(batch * down * across, 4)}
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

    def _gate(self, number: int, gate: Gate) -> None:
        """Scales a map in place, whose pixels the convolution before it sums."""
        (source,) = gate.sources
        maker, place = self.makers.get(source), self.places[source]
        summed = maker is not None and maker.kind in (DEPTHWISE, SUMS)
        if not summed or place.place != SCRATCH or len(self.net.consumers[source]) > 1:
            raise Unsupported(f"the native engine has no gate like {gate.name}")
        layout, batch = place.layout, self.net.batch
        size = batch * maker.parts * layout.step * 4
        maker.sums = self._scratch(size, size)
        self.free[size].append(maker.sums)
        first, second = gate.fc1.weight.flatten(1), gate.fc2.weight.flatten(1).T
        tensors = spread(first, layout), gate.fc1.bias, spread(second, layout)
        weights = self.net.keep_floats(gate.name, *tensors, spread(gate.fc2.bias, layout))
        gate_floats = batch * layout.step + len(first)
        self.net.gate_floats = max(self.net.gate_floats, aligned(gate_floats))
        value, words, _ = self.end(number)
        words |= {"inner": len(first), "sums": maker.sums, "parts": maker.parts, "weights": weights}
        chunks = _chunks(maker.rows * maker.vectors, 200)
        self.add(SCALE, place, layout, **words, grid_rows=chunks)
        self.name(value, place)

    def _mean(self, number: int, mean: Mean) -> None:
        source, (out, _) = self.places[mean.sources[0]], self.target(number + 1)
        grid = {"grid_vectors": min(source.layout.step // self.net.lanes.lanes, 4)}
        newest = self.newest(mean.name)[0] if mean.name in self.put else out
        self.add(AVERAGE, newest, source.layout, self.map(source), **grid)
        if newest is not out:
            ages = range(mean.dilation, mean.dilation * mean.kernel, mean.dilation)
            past = [self.earlier(mean.name, age, True) for age in ages]
            maps = [self.map(place) for place in (newest, *past)]
            self.add(AVERAGE, out, newest.layout, *maps, **grid)
        self.name(number + 1, out)

    def _pool(self, number: int, pool: Pool) -> None:
        if pool.averages or (pool.over_space and pool.depths):
            raise Unsupported(f"the native engine has no pool like {pool.name}")
        if due(pool.timing, self.phase):
            inputs = self._inputs(pool)
            value, words, _ = self.end(number)
            place, mask = self.target(value)
            layout, size = inputs[0].layout, (place.layout.height, place.layout.width)
            origin = -pool.padding[0] * layout.pitch - pool.padding[1] * layout.step
            maps = [self.map(x, size, pool.step, origin) for x in inputs]
            pairs = {"kernel": pool.size, "stride": pool.step, "pad": pool.padding}
            words |= mask | _pairs(**pairs, dilation=pool.options[0])
            self.add(POOL, place, layout, *maps, **words, grid_rows=_chunks(size[0], 4))
            self.name(value, place)
        self._put(pool.name, pool.sources[0])

    def _sample(self, number: int, sample: Sample) -> None:
        if due(sample.timing, self.phase):
            self.name(number + 1, self.places[sample.sources[0]])

    def _late(self, number: int, late: Late) -> None:
        self.name(number + 1, self.earlier(late.name, late.frames, True))
        self._put(late.name, late.sources[0])

    def _join(self, number: int, join: Join) -> None:
        for source, (name, _) in zip(join.sources, join.waits, strict=True):
            if source in self.places:
                self._put(name, source)
        if not due(join.timing, self.phase):
            return
        parts = [
            self.earlier(name, length, True) if length else self.places[source]
            for source, (name, length) in zip(join.sources, join.waits, strict=True)
        ]
        if join.concatenates:
            value, start = number + 1, 0
            place, mask = self.target(value)
            for part in parts:
                at = place._replace(offset=place.offset + start * place.layout.size)
                self._copy(part, at, **mask)
                start += part.layout.step
        else:
            value, words, _ = self.end(number)
            place, mask = self.target(value)
            total, *others, last = parts
            for part in others:
                self._copy(total, place, part)
                total = place
            self._copy(total, place, last, **words, **mask)
        self.name(value, place)

    def _copy(self, place: Place, out: Place, added: Place | None = None, **words) -> None:
        """Copies a map, or the sum of two."""
        layout = place.layout
        halves = {part.layout.half for part in (place, out, added) if part is not None}
        if len(halves) > 1:
            raise Unsupported("the native engine has no sum of bfloat16 and float32")
        if added is not None:
            words["add"] = self.map(added)
        words["vectors"] = layout.step // self.net.lanes.lanes
        words["grid_rows"] = _chunks(layout.height * layout.width * words["vectors"], 500)
        self.add(COPY, out, layout, self.map(place), **words)

    def _pointwise(self, number: int, operation: Pointwise) -> None:
        place, function = self.places[operation.sources[0]], operation.function
        layout = place.layout
        if operation.name == "flatten" and layout.height == layout.width == 1:
            self.name(number + 1, place)
        elif isinstance(function, Linear) and number + 1 == len(self.net.operations):
            matrix = spread(function.weight, layout).T[None]
            logits = Place(vector(function.out_features, self.net.lanes), LOGITS)
            self._matrix(
                *("classifier", matrix, function.bias, logits, layout, self.map(place)),
                lengths=[layout.step],
            )
        elif type(function) in ACTIVATION:
            value, words, _ = self.end(number)
            out, mask = self.target(value)
            self._copy(place, out, activation=ACTIVATION[type(function)], **mask)
            self.name(value, out)
        else:
            kind = type(function).__name__
            raise Unsupported(f"the native engine has no {kind}: {operation.name}")


def spread(x: Tensor, layout: Layout, length: int | None = None) -> Tensor:
    """Numbers (..., C), each where its channel lies in a pixel; zeros elsewhere."""
    x, length, channels = x.detach(), length or layout.step, list(layout.channels)
    if channels[-1] == len(channels) - 1:
        return F.pad(x, (0, length - len(channels)))
    wide = x.new_zeros(*x.shape[:-1], length)
    wide[..., channels] = x
    return wide


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


def _chunks(work: int, worth: int) -> int:
    """Into how many chunks work is cut, each worth the trouble."""
    return max(1, min(CHUNKS, work // worth))


def _pairs(**pairs: tuple[int, int]) -> dict[str, int]:
    """The words of vertical and horizontal numbers."""
    return {
        f"{name}_{axis}": number
        for name, pair in pairs.items()
        for axis, number in zip("hw", pair, strict=True)
    }


FILTERS = (
    *((1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6)),
    *((1 / 24, 1 / 12, 1 / 6), (1 / 24, -1 / 12, 1 / 6), (0, 0, 1)),
)

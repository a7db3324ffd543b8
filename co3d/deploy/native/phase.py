"""The instructions of one phase of a step, operation by operation."""

from collections import Counter
from functools import singledispatchmethod
from typing import TYPE_CHECKING

from ...nn.pointwise import ACTIVATIONS, Linear
from .. import operations as ops
from .convolutions import convolve, depthwise, is_depthwise, product
from .layout import Base, Instruction, Kind, Layout, Place, View, chunks, unsupported

if TYPE_CHECKING:
    from .program import Program

ACTIVATION = {ACTIVATIONS["ReLU"]: 1, ACTIVATIONS["SiLU"]: 2, ACTIVATIONS["Sigmoid"]: 3}
DEFAULTS = dict.fromkeys(("kernel", "stride", "dilation", "grid"), (1, 1)) | {"repeats": 1}


def is_activation(operation: ops.Operation | None) -> bool:
    """Whether it is a function that other instructions may end with."""
    return type(operation) is ops.Map and type(operation.function) in ACTIVATION


class PhaseWriter:
    """Writes the instructions of one phase.

    Attributes:
        writes: by ring, the instruction that first puts something into it.
        reads: by ring, the instruction that last reads what that replaces. What is added to a
            result may lie where that is written, pixel by pixel: it is read half an instruction
            before.
    """

    def __init__(self, net: "Program", phase: int) -> None:
        self.net = net
        self.instructions: list[Instruction] = []
        self.writes: dict[int, int] = {}
        self.reads: dict[int, float] = {}
        self.places: dict[int, Place] = {}
        self.makers: dict[Place, Instruction] = {}
        self.puts = set(net.explicit.phases[phase].writes)
        self.free = {kind: list(offsets) for kind, offsets in net.buffers.items()}
        self.pending: Counter[int] = Counter()  # readers to come, by offset in scratch memory
        self._write_frame()
        for number, self.operation in enumerate(net.operations):
            operation = self.operation
            is_here = all(source in self.places for source in operation.sources)
            can_run = is_here or isinstance(operation, ops.Join)  # of which some may wait in queues
            is_made = number + 1 in self.places  # by the instruction of another operation
            if can_run and not is_made and ops.due(operation.timing, phase):
                values, words = self._end(number, operation)
                self._name(self._write(operation, values[-1], **words), *values)
            for name, source in kept(operation):
                if name in self.puts and net.homes.get(source) != name:
                    self._copy(self.places[source], self._newest(name))
            for source in operation.sources:
                self._release(source)

    # Memory

    def _target(self, value: int) -> Place:
        """Where a value is to be written."""
        home, layout = self.net.homes.get(value), self.net.layouts[value]
        if home in self.puts:
            return self._newest(home)
        free = self.free.setdefault(self.net.kind(layout), [])
        return Place(layout, Base.SCRATCH, free.pop() if free else self.net.scratch(layout))

    def _newest(self, name: str) -> Place:
        """The slot of a ring for what is put in."""
        ring = self.net.rings[name]
        return Place(ring.layout, Base.STATE + ring.number, first=ring.first)

    def _earlier(self, name: str, depth: int) -> Place:
        """What was put in `depth` times ago, before this step."""
        ring = self.net.rings[name]
        return Place(ring.layout, Base.STATE + ring.number, back=depth - (name not in self.puts))

    def _name(self, place: Place, *values: int) -> None:
        """Says where values lie that are one map."""
        for value in values:
            self.places[value] = place
            if place.base == Base.SCRATCH:
                self.pending[place.offset] += len(self.net.consumers[value])

    def _release(self, value: int) -> None:
        """A consumer is done: frees what nobody needs any more."""
        place = self.places.get(value)
        if place is not None and place.base == Base.SCRATCH:
            self.pending[place.offset] -= 1
            if not self.pending[place.offset]:
                self.free[self.net.kind(place.layout)].append(place.offset)

    def view(
        self,
        place: Place,
        size: tuple[int, int] | None = None,
        stride: tuple[int, int] = (1, 1),
        origin: tuple[int, int] = (0, 0),
        length: int = 0,
    ) -> View:
        """The pixels of a place, or those at a stride from pixel `origin` on."""
        layout = place.layout
        rows = self.net.table(place, size or layout.size, stride)
        down, across = layout.top + origin[0], layout.side + origin[1]
        offset = place.offset + (down * layout.pitch + across * layout.step) * layout.element
        return View(place.base, place.back, offset, rows, length)

    # Instructions

    def add(
        self,
        kind: Kind,
        out: Place,
        source: Layout,
        *taps: View,
        added: Place | None = None,
        sums: tuple[View, ...] = (),
        **words,
    ) -> None:
        """Appends an instruction that makes a map out of others in the layout `source`.

        Args:
            added: to the result.
            sums: of `SUMS`: those begun earlier, and where the new ones go.
        """
        result, net, number = out.layout, self.net, len(self.instructions)
        may_widen = kind == Kind.AVERAGE or (kind == Kind.PRODUCT and result.half)
        halves = {result.half, source.half if not may_widen else result.half}
        views = [self.view(out), *sums]
        if added is not None:
            halves.add(added.layout.half)
            words["add"] = self.view(added)
            views.append(words["add"])
        if len(halves) > 1:
            raise unsupported(self.operation)
        for order, read in ((number - 0.5, views), (number, taps)):
            for view in read:
                if view.base >= Base.STATE and view.back == net.lengths[view.base - Base.STATE]:
                    self.reads[view.base - Base.STATE] = order
        for view in (views[0], *sums):
            if view.base >= Base.STATE and view.back == 0:
                self.writes.setdefault(view.base - Base.STATE, number)
        facts = {
            "out": views[0],
            "first": out.first,
            "rows": net.batch * result.size[0] * result.size[1],
            "vectors": result.step // net.lanes.lanes,
            "size": result.size,
            "in_size": source.size,
            "out_half": result.half,
            "in_half": source.half,
            "pitch": source.pitch,
            "step": source.step,
            "tap": len(net.taps),
            "taps": len(taps) + len(sums),
        }
        net.taps += [*taps, *sums]
        self.makers[out] = Instruction(kind=kind, **DEFAULTS | facts | words)
        self.instructions.append(self.makers[out])

    def _copy(self, place: Place, out: Place, **words) -> None:
        """Copies a map, or the sum of two."""
        layout, vectors = place.layout, place.layout.step // self.net.lanes.lanes
        grid = chunks(layout.size[0] * layout.size[1] * vectors, 500), 1
        self.add(Kind.POOL, out, layout, self.view(place), vectors=vectors, grid=grid, **words)

    def _end(self, number: int, operation: ops.Operation) -> tuple[list[int], dict]:
        """The values that an operation makes in one go with those that follow, and the words for
        that: a shortcut that is added, an activation."""
        values, words = [number + 1], {}
        if type(operation) in (ops.Convolution, ops.Pooling):
            words["added"] = self._shortcut(number + 1)
            if words["added"] is not None:
                values.append(self.net.consumers[number + 1][0] + 1)
        consumer = self.net.only_consumer(values[-1])
        can_end = isinstance(operation, ops.Convolution | ops.Pooling | ops.Gate | ops.Join)
        if can_end and is_activation(consumer):
            words["activation"] = ACTIVATION[type(consumer.function)]
            values.append(self.net.consumers[values[-1]][0] + 1)
        return values, words

    def _shortcut(self, value: int) -> Place | None:
        """What the sum that alone takes a value adds to it, if that is there."""
        join = self.net.only_consumer(value)
        if not isinstance(join, ops.Join) or join.concatenates or len(join.sources) != 2:
            return None
        here = join.sources.index(value)
        other, (name, wait) = join.sources[1 - here], join.waits[1 - here]
        if join.waits[here][1]:
            return None
        if not wait:
            return self.places.get(other)
        return self._earlier(name, wait) if self.net.homes.get(other) == name else None

    def _write_frame(self) -> None:
        _, channels, height, width = self.net.explicit.frame_shape
        place = self._target(0)
        self._name(place, 0)
        words = {"rows": self.net.batch * height, "grid": (chunks(height * width, 4096), 1)}
        self.add(Kind.INPUT, place, place.layout, channels=channels, **words)

    @singledispatchmethod
    def _write(self, operation: ops.Operation, value: int, **words) -> Place:
        """Writes the instructions that make a value; where that lies."""
        raise unsupported(operation)

    @_write.register
    def _(self, conv: ops.Convolution, value: int, **words) -> Place:
        out, inputs = self._target(value), self._inputs(conv)
        convolve(self, conv, dict(enumerate(inputs)), out, **words)
        return out

    @_write.register
    def _(self, conv: ops.SummingConvolution, value: int, **words) -> Place:
        """A product for each kernel slice: the first completes a result, the others go on."""
        x, out = self.places[conv.sources[0]], self._target(value)
        names = [conv.queue(tap) for tap in range(conv.kernel - 1)]
        begun = [self._earlier(name, conv.dilation) for name in names]
        new = [self._newest(name) for name in names]
        is_alike = conv.kernel == conv.taps[0].shape[3] == 3 and not out.first
        if is_alike and is_depthwise(conv):  # all in one instruction
            sums = tuple(self.view(place) for place in (*begun, *new))
            words |= {"sums": sums, "first_sums": new[0].first}
            depthwise(self, conv, dict.fromkeys(range(3), x), out, **words)
            return out
        for tap, goal in enumerate((out, *new)):
            added = begun[tap] if tap < len(begun) else None
            convolve(self, conv, {tap: x}, goal, added=added, **words)
            words = {}
        return out

    @_write.register
    def _(self, pool: ops.Pooling, value: int, **words) -> Place:
        if pool.averages or pool.initial or (pool.over_space and pool.depths):
            raise unsupported(pool)
        out, inputs = self._target(value), self._inputs(pool)
        size, (above, left) = out.layout.size, pool.padding
        views = [self.view(x, size, pool.step, (-above, -left)) for x in inputs]
        words |= {"kernel": pool.size, "stride": pool.step, "padding": pool.padding}
        words |= {"dilation": pool.options[0], "grid": (chunks(size[0], 4), 1)}
        self.add(Kind.POOL, out, inputs[0].layout, *views, **words)
        return out

    @_write.register
    def _(self, gate: ops.Gate, value: int, **words) -> Place:
        """Scales a map in place, whose pixels the convolution before it sums."""
        (source,), net = gate.sources, self.net
        place = self.places[source]
        layout, maker = place.layout, self.makers.get(place)
        is_summed = maker is not None and maker.kind in (Kind.DEPTHWISE, Kind.SUMS)
        if not is_summed or maker.activation or net.only_consumer(source) is None:
            raise unsupported(gate)
        parts = maker.grid[0] // net.batch
        maker.sums = 1
        net.spare_bytes = max(net.spare_bytes, 4 * net.batch * parts * layout.step)
        first, second = gate.fc1.weight.flatten(1), gate.fc2.weight.flatten(1).T
        tensors = layout.spread(first), gate.fc1.bias, layout.spread(second)
        weights = net.keep(gate.name, *tensors, layout.spread(gate.fc2.bias))
        words |= {"weights": weights, "inner": len(first), "parts": parts}
        words["grid"] = chunks(maker.rows * maker.vectors, 200), 1
        self.add(Kind.SCALE, place, layout, **words)
        return place

    @_write.register
    def _(self, mean: ops.Mean, value: int) -> Place:
        source, out = self.places[mean.sources[0]], self._target(value)
        grid = 1, min(source.layout.step // self.net.lanes.lanes, 4)
        newest = self._newest(mean.name) if mean.name in self.puts else out
        self.add(Kind.AVERAGE, newest, source.layout, self.view(source), grid=grid)
        if newest is not out:
            depths = range(mean.dilation, mean.dilation * mean.kernel, mean.dilation)
            past = [self._earlier(mean.name, depth) for depth in depths]
            views = [self.view(place) for place in (newest, *past)]
            self.add(Kind.AVERAGE, out, newest.layout, *views, grid=grid)
        return out

    @_write.register
    def _(self, pick: ops.Pick, value: int) -> Place:
        return self._inputs(pick)[-1]

    @_write.register
    def _(self, join: ops.Join, value: int, **words) -> Place:
        out = self._target(value)
        parts = [
            self._earlier(name, length) if length else self.places[source]
            for source, (name, length) in zip(join.sources, join.waits, strict=True)
        ]
        if join.concatenates:
            offset = out.offset
            for part in parts:
                self._copy(part, out._replace(offset=offset), **words)
                offset += part.layout.step * part.layout.element
            return out
        total, *others, last = parts
        for part in others:
            self._copy(total, out, added=part)
            total = out
        self._copy(total, out, added=last, **words)
        return out

    @_write.register
    def _(self, operation: ops.Map, value: int) -> Place:
        place, function = self.places[operation.sources[0]], operation.function
        if operation.name == "flatten" and place.layout.size == (1, 1):
            return place
        if isinstance(function, Linear) and value == len(self.net.operations):
            out = Place(self.net.layouts[value], Base.LOGITS)
            weight = function.weight[None, :, :, None, None]
            shape = ((1, 1), (0, 0), (1, 1))
            product(self, operation.name, weight, shape, [place], function.bias, out)
            return out
        if not is_activation(operation):
            raise unsupported(operation)
        out = self._target(value)
        self._copy(place, out, activation=ACTIVATION[type(function)])
        return out

    # Convolutions

    def _inputs(self, operation: ops.Window) -> list[Place]:
        """The newest input and the earlier ones."""
        past = [self._earlier(operation.name, depth) for depth in operation.depths]
        return [self.places[operation.sources[0]], *past]


def kept(operation: ops.Operation) -> list[tuple[str, int]]:
    """The queues that keep what an operation takes, and the values that they keep."""
    if isinstance(operation, ops.Join):
        names = [name for name, _ in operation.waits]
        return list(zip(names, operation.sources, strict=True))
    keeps_sums = isinstance(operation, ops.SummingConvolution | ops.Mean)
    if isinstance(operation, ops.Window) and not keeps_sums:
        return [(operation.name, operation.sources[0])]
    return []

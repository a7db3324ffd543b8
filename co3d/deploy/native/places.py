"""Where the values of one phase lie, and the instructions that make them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..operations import Join, Operation, Window, due
from ..operations import Map as Pointwise
from .kinds import ACTIVATION, POOL, Unsupported, chunks
from .layout import LOGITS, SCRATCH, STATE, Instruction, Layout, Map, Place, Tap

if TYPE_CHECKING:
    from .program import Compiler


class Places:
    """The memory of one phase, and its instructions so far."""

    def __init__(self, net: "Compiler", phase: int) -> None:
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
        offset = self.scratch(layout.bytes * self.net.batch, kind)
        self.values[offset] = {value}
        return Place(layout, SCRATCH, offset), {}

    def scratch(self, size: int, kind: object) -> int:
        """Scratch memory of a kind that is free, or new; where it begins."""
        free = self.free.setdefault(kind, [])
        return free.pop() if free else self.net.scratch(size, kind)

    def name(self, value: int, place: Place) -> None:
        """Says where a value lies, which may be where another one does."""
        self.places[value] = place
        if place.place == SCRATCH:
            self.values[place.offset].add(value)

    def release(self, value: int) -> None:
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

    def orders(self) -> tuple[dict[int, float], dict[int, float]]:
        """By ring, the instruction that first writes to it, and the last that reads what that
        replaces. What is added to a result may lie where that is written, pixel by pixel."""
        lengths = [ring.length for ring in self.net.rings.values()]
        writes: dict[int, float] = {}
        reads: dict[int, float] = {}
        for number, instruction in enumerate(self.instructions):
            taps = self.net.taps[instruction.tap : instruction.tap + instruction.taps]
            places = [(instruction.add, number - 0.5), (instruction.out, number)]
            for at, order in (*places, *((tap.map, number) for tap in taps)):
                if at.place == STATE and at.back == 0:
                    writes.setdefault(at.ring, number)
                if at.place == STATE and at.back == lengths[at.ring]:
                    reads[at.ring] = max(order, reads.get(at.ring, -1))
        return writes, reads

    def ordered_puts(self) -> list[int]:
        """The rings that get something, in the order in which they do."""
        writes, _ = self.orders()
        return sorted((ring.number for ring in self.put.values()), key=lambda n: writes.get(n, -1))

    def inputs(self, operation: Window) -> list[Place]:
        """The newest input and the earlier ones."""
        (source,) = operation.sources
        at_home = self.net.homes.get(source) == operation.name
        depths = operation.depths
        past = [self.earlier(operation.name, depth, at_home) for depth in depths]
        return [self.places[source], *past]

    def write_to_ring(self, name: str, source: int) -> None:
        """Puts a value into a ring, if it was not made there."""
        if name in self.put and self.net.homes.get(source) != name:
            place, words = self.newest(name)
            self.copy(self.places[source], place, **words)

    def copy(self, place: Place, out: Place, added: Place | None = None, **words) -> None:
        """Copies a map, or the sum of two."""
        layout = place.layout
        halves = {part.layout.half for part in (place, out, added) if part is not None}
        if len(halves) > 1:
            raise Unsupported("the native engine has no sum of bfloat16 and float32")
        if added is not None:
            words["add"] = self.map(added)
        words["vectors"] = layout.step // self.net.lanes.lanes
        words["grid_rows"] = chunks(layout.height * layout.width * words["vectors"], 500)
        self.add(POOL, out, layout, self.map(place), **words)

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

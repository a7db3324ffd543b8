"""The instructions of one phase, operation by operation."""

from ...nn.pointwise import Linear
from ..operations import (
    Convolution,
    Gate,
    Join,
    Late,
    Mean,
    Pool,
    Sample,
    SummingConvolution,
    due,
)
from ..operations import Map as Pointwise
from .convolutions import Convolutions
from .kinds import (
    ACTIVATION,
    AVERAGE,
    DEPTHWISE,
    INPUT,
    POOL,
    SCALE,
    SUMS,
    Unsupported,
    chunks,
    pairs,
    spread,
)
from .layout import LOGITS, SCRATCH, Place, aligned, vector


class Writer(Convolutions):
    """Writes the instructions of one phase."""

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
                self.release(source)

    def _input(self) -> None:
        batch, channels, height, width = self.net.explicit.frame_shape
        place, words = self.target(0)
        self.name(0, place)
        words |= {"rows": batch * height, "channels": channels, "step": place.layout.step}
        self.add(INPUT, place, place.layout, **words, grid_rows=chunks(height * width, 4096))

    def _gate(self, number: int, gate: Gate) -> None:
        """Scales a map in place, whose pixels the convolution before it sums."""
        (source,) = gate.sources
        maker, place = self.makers.get(source), self.places[source]
        summed = maker is not None and maker.kind in (DEPTHWISE, SUMS)
        if not summed or place.place != SCRATCH or len(self.net.consumers[source]) > 1:
            raise Unsupported(f"the native engine has no gate like {gate.name}")
        layout, batch = place.layout, self.net.batch
        size = batch * maker.parts * layout.step * 4
        maker.sums = self.scratch(size, size)
        self.free[size].append(maker.sums)
        first, second = gate.fc1.weight.flatten(1), gate.fc2.weight.flatten(1).T
        tensors = spread(first, layout), gate.fc1.bias, spread(second, layout)
        weights = self.net.keep_floats(gate.name, *tensors, spread(gate.fc2.bias, layout))
        gate_floats = batch * layout.step + len(first)
        self.net.gate_floats = max(self.net.gate_floats, aligned(gate_floats))
        value, words, _ = self.end(number)
        words |= {"inner": len(first), "sums": maker.sums, "parts": maker.parts, "weights": weights}
        parts = chunks(maker.rows * maker.vectors, 200)
        self.add(SCALE, place, layout, **words, grid_rows=parts)
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
            inputs = self.inputs(pool)
            value, words, _ = self.end(number)
            place, mask = self.target(value)
            layout, size = inputs[0].layout, (place.layout.height, place.layout.width)
            origin = -pool.padding[0] * layout.pitch - pool.padding[1] * layout.step
            maps = [self.map(x, size, pool.step, origin) for x in inputs]
            sizes = {"kernel": pool.size, "stride": pool.step, "pad": pool.padding}
            words |= mask | pairs(**sizes, dilation=pool.options[0])
            self.add(POOL, place, layout, *maps, **words, grid_rows=chunks(size[0], 4))
            self.name(value, place)
        self.write_to_ring(pool.name, pool.sources[0])

    def _sample(self, number: int, sample: Sample) -> None:
        if due(sample.timing, self.phase):
            self.name(number + 1, self.places[sample.sources[0]])

    def _late(self, number: int, late: Late) -> None:
        self.name(number + 1, self.earlier(late.name, late.frames, True))
        self.write_to_ring(late.name, late.sources[0])

    def _join(self, number: int, join: Join) -> None:
        for source, (name, _) in zip(join.sources, join.waits, strict=True):
            if source in self.places:
                self.write_to_ring(name, source)
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
                self.copy(part, at, **mask)
                start += part.layout.step
        else:
            value, words, _ = self.end(number)
            place, mask = self.target(value)
            total, *others, last = parts
            for part in others:
                self.copy(total, place, part)
                total = place
            self.copy(total, place, last, **words, **mask)
        self.name(value, place)

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
            self.copy(place, out, activation=ACTIVATION[type(function)], **mask)
            self.name(value, out)
        else:
            kind = type(function).__name__
            raise Unsupported(f"the native engine has no {kind}: {operation.name}")

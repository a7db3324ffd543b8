"""Runs exported files: a stream frame by frame with the API of a continual net, or clips."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..data.transforms import Transform
from ..nn.core import EMITS, FILLS, State
from ..nn.explicit import Queue
from .reading import read
from .record import Record, input_names, output_names
from .runtimes import RUNTIMES, Bound, OnnxRuntime, OpenVino

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Runner:
    """An exported net, ready to run on the CPU.

    Of a continual net `step` gives what the net's own gives, so that `co3d.Stream(runner)` works;
    a clip net is called. Shapes are those of the export, tensors are float32.

    `step` consumes the state passed in: its tensors are written over from the next step on, and
    only the state returned may be used. `co3d.clone(state)` forks one with explicit state; there
    may be any number of streams at a time, each from its own `begin`.

    Args:
        path: the file that `export` was given.
        runtime: "onnxruntime" or "openvino" (default: that of the format; OpenVINO runs both).
        threads: of the runtime (default: those of torch).

    Attributes:
        record: what the file says of itself.

    Raises:
        FileNotFoundError: if the file, or one that belongs to it, is not there.
        ValueError: for a file that is damaged or was not written by `export`, files that do not
            belong together, or a runtime that is not installed or does not run the format.
    """

    def __init__(
        self, path: str | Path, runtime: str | None = None, threads: int | None = None
    ) -> None:
        path = Path(path)
        default = "openvino" if path.suffix == ".xml" else "onnxruntime"
        if runtime not in (None, *RUNTIMES) or (runtime or default) == RUNTIMES[0] != default:
            raise ValueError(f"expected a runtime that runs {path.name}, given {runtime!r}")
        if threads is not None and threads < 1:
            raise ValueError(f"expected 1 or more threads, given {threads}")
        kind = OnnxRuntime if (runtime or default) == RUNTIMES[0] else OpenVino
        self.record, self._runtime = read(path, kind, threads or torch.get_num_threads())
        self._rings = _rings(self.record) if self.record.state == "explicit" else {}
        self._clip: tuple[Tensor, Tensor, Bound] | None = None

    @property
    def receptive_field(self) -> int:
        """Input frames that one output depends on."""
        return self.record.receptive_field

    @property
    def padding(self) -> int:
        """Aggregated temporal padding before a clip, in frames."""
        return self.record.padding

    @property
    def warmup(self) -> int:
        """Frames before the first output."""
        return self.record.warmup

    @property
    def stride(self) -> int:
        """Frames from one output to the next."""
        return self.record.stride

    @property
    def window(self) -> int:
        """Span of the running average, in input frames."""
        return self.record.window

    @property
    def transform(self) -> Transform:
        """The input transform of the weights."""
        facts = self.record.transform
        mean, std = tuple(facts["mean"]), tuple(facts["std"])
        return Transform(facts["image_size"], mean, std, facts["channel_order"])

    def scores(self, logits: Tensor) -> Tensor:
        """Scores of the classes, each between 0 and 1, as `co3d.scores`."""
        return logits.sigmoid() if self.record.scores == "sigmoid" else logits.softmax(1)

    def begin(self, fill: str = "zeros", emit: str = "valid") -> State:
        """The state before the first frame.

        Raises:
            ValueError: for another fill or emit than these, which need the net itself, or if this
                is a clip net.
        """
        if fill not in FILLS or emit not in EMITS or (fill, emit) != (FILLS[0], EMITS[0]):
            raise ValueError(
                f"expected fill 'zeros' and emit 'valid' of an exported net, given {fill!r} and "
                f"{emit!r}"
            )
        self._expect("step")
        return self._state(_Run(self), 0)

    def step(self, frame: Tensor, state: State | None = None) -> tuple[Tensor | None, State]:
        """Feeds a frame (B, C, H, W); gives logits (B, classes) or None, and the next state.

        Raises:
            ValueError: for another shape, or a state of another net or one already consumed.
            TypeError: for something that is no float32 tensor, or no state.
        """
        self._expect("step")
        self._check(frame)
        state = self.begin() if state is None else state
        run, number = self._run_of(state), state["number"]
        logits = run.step(frame, number)
        return logits, self._state(run, number + 1)

    def __call__(self, clip: Tensor) -> Tensor:
        """Logits (B, classes) of a clip (B, C, T, H, W).

        Raises:
            ValueError, TypeError: as `step`, or if this is a continual net.
        """
        self._expect("clip")
        self._check(clip)
        if self._clip is None:
            given = torch.empty(self.record.shape)
            logits = torch.empty(self.record.shape[0], self.record.classes)
            bound = self._runtime.bind(0, {"clip": given}, {"logits": logits})
            self._clip = given, logits, bound
        given, logits, run = self._clip
        np.copyto(given.numpy(), clip.detach().numpy())
        run()
        return logits.clone()

    def _expect(self, kind: str) -> None:
        if self.record.kind != kind:
            does = {"step": "is continual: call step", "clip": "needs whole clips: call it"}
            raise ValueError(f"expected another call: {self.record.model} {does[self.record.kind]}")

    def _check(self, x: Tensor) -> None:
        if not isinstance(x, Tensor) or x.dtype != torch.float32:
            given = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"expected a float32 tensor, given {given}")
        if x.device.type != "cpu":
            raise ValueError(f"expected a tensor on the CPU, given one on {x.device}")
        if tuple(x.shape) != self.record.shape:
            raise ValueError(
                f"expected the shape of the export, {self.record.shape}, given {tuple(x.shape)}"
            )

    def _state(self, run: "_Run", number: int) -> State:
        run.number = number
        return {
            "model": self.record.digest,
            "frame": self.record.shape,
            "run": run,
            "number": number,
            "layers": run.held(number),
        }

    def _run_of(self, state: State) -> "_Run":
        """Where a state lies in memory; a clone is moved to a place of its own."""
        if not isinstance(state, dict) or not isinstance(state.get("run"), _Run):
            raise TypeError(f"expected a state of a Runner, given {type(state).__name__}")
        run = state["run"]
        if run.runner is not self:
            raise ValueError("expected a state of this runner, given one of another")
        held = run.held(state["number"])
        mine = all(a is b for a, b in zip(_flat(held), _flat(state["layers"]), strict=True))
        if mine and state["number"] != run.number:
            raise ValueError("expected the state that the last step returned, given one consumed")
        if mine:
            return run
        fork = _Run(self)
        places = _flat(fork.held(state["number"]))
        for place, tensor in zip(places, _flat(state["layers"]), strict=True):
            place.copy_(tensor)
        return fork


def _flat(layers: Mapping[str, tuple[Tensor, ...]]) -> list[Tensor]:
    return [tensor for tensors in layers.values() for tensor in tensors]


class _Ring:
    """Where the tensors of a queue lie at a step: they stay, and their meaning goes round.

    `slots` are one more than the queue is long, so that a new one has room, and as many more as let
    all queues come round together.
    """

    def __init__(self, queue: Queue, slots: int, puts: list[int]) -> None:
        self.queue, self.slots = queue, slots
        self.puts = puts  # before each step of a round

    def slot(self, step: int, depth: int) -> int:
        """Of what was put in `depth` times before a step of the round; 0: of what will be."""
        return (self.puts[step] - depth) % self.slots


def _rings(record: Record) -> dict[str, _Ring]:
    """The rings of all queues, in a round of as few steps as does not waste memory."""
    phases = len(record.phases)
    per_period = {q.name: sum(q.name in p.writes for p in record.phases) for q in record.queues}

    def slots(queue: Queue, periods: int) -> int:
        """The fewest that are enough and divide what is put in during a round."""
        total, least = periods * per_period[queue.name], queue.length + 1
        found = (n for n in range(least, total + 1) if total % n == 0)
        return next(found, 0)

    def memory(periods: int) -> float:
        sizes = [(slots(q, periods), math.prod(q.shape)) for q in record.queues]
        return sum(n * size for n, size in sizes) if all(n for n, _ in sizes) else math.inf

    longest = max((q.length + 1 for q in record.queues), default=1)
    candidates = range(1, 4 * longest + 1)
    best = min(map(memory, candidates))
    periods = next(n for n in candidates if memory(n) <= 1.1 * best)
    rings = {}
    for queue in record.queues:
        puts = [0]
        for step in range(phases * periods):
            puts.append(puts[-1] + (queue.name in record.phases[step % phases].writes))
        rings[queue.name] = _Ring(queue, slots(queue, periods), puts[:-1])
    return rings


class _Run:
    """The memory of one stream, with the graphs bound to it at every step of a round.

    Nothing is allocated or copied in a step but the frame and the logits.
    """

    def __init__(self, runner: Runner) -> None:
        record = runner.record
        self.runner, self.number = runner, 0
        self.frame = torch.zeros(record.shape)
        self.given = self.frame.numpy()
        self.logits = torch.zeros(record.shape[0], record.classes)
        self.rings = runner._rings
        self.tensors = {
            name: tuple(
                torch.full(ring.queue.shape, ring.queue.initial, dtype=PRECISIONS[record.precision])
                for _ in range(ring.slots)
            )
            for name, ring in self.rings.items()
        }
        self.round = len(next(iter(self.rings.values())).puts) if self.rings else 1
        self.bound: dict[int, Bound] = {}
        self._held: dict[int, dict] = {}
        self.late = max((ring.queue.first for ring in self.rings.values()), default=0)

    def step(self, frame: Tensor, number: int) -> Tensor | None:
        step, record = number % self.round, self.runner.record
        phase = record.phases[number % len(record.phases)]
        np.copyto(self.given, frame.detach().numpy())  # torch would leave threads spinning
        if step not in self.bound:
            self.bound[step] = self._bind(step)
        self.bound[step]()
        if number < self.late:
            for name in phase.writes:
                if number < self.rings[name].queue.first:
                    ring = self.rings[name]
                    self.tensors[name][ring.slot(step, 0)].fill_(ring.queue.initial)
        return self.logits.clone() if phase.emits and number >= record.warmup else None

    def held(self, number: int) -> dict[str, tuple[Tensor, ...]]:
        """The state before a step: tensors by queue, the one put in last first."""
        step = number % self.round
        if step not in self._held:
            self._held[step] = {
                name: tuple(
                    self.tensors[name][ring.slot(step, depth)]
                    for depth in range(1, ring.queue.length + 1)
                )
                for name, ring in self.rings.items()
            }
        return self._held[step]

    def _bind(self, step: int) -> Bound:
        record = self.runner.record
        phase = step % len(record.phases)
        one = record.phases[phase]
        read = [self.tensors[n][self.rings[n].slot(step, depth)] for n, depth in one.reads]
        written = [self.tensors[n][self.rings[n].slot(step, 0)] for n in one.writes]
        inputs = dict(zip(input_names(record, phase), [self.frame, *read], strict=True))
        results = [*([self.logits] if one.emits else []), *written]
        outputs = dict(zip(output_names(record, phase), results, strict=True))
        return self.runner._runtime.bind(phase, inputs, outputs)

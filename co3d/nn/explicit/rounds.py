"""Streams whose steps are bound to memory once and then only called: exported graphs, CUDA graphs.

The tensors of the state stay where they are, and what they mean goes round: a queue of two tensors
lies in three places, of which each step writes to another one.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ..core import EMITS, FILLS, State
from .tape import Queue

Bound = Callable[[], Any]


class Phase(Protocol):
    """What a step at one phase takes and gives, as `Step` does."""

    reads: Sequence[tuple[str, int]]
    writes: Sequence[str]
    emits: bool


class Places(NamedTuple):
    """The memory that a step at a phase is bound to: it takes the frame, its number and what it
    reads of the state, and gives logits, where it does, and what it writes to the state."""

    phase: int
    frame: Tensor
    counter: Tensor
    read: list[Tensor]
    logits: Tensor | None
    written: list[Tensor]

    @property
    def results(self) -> list[Tensor]:
        """Of the step, in order."""
        return [*([] if self.logits is None else [self.logits]), *self.written]


@dataclass(frozen=True)
class Kinds:
    """What the tensors of a stream are like: frame (B, C, H, W) and number of classes."""

    frame: tuple[int, ...]
    classes: int
    dtype: torch.dtype = torch.float32  # of frame and logits
    state: torch.dtype = torch.float32
    device: torch.device = torch.device("cpu")


class Rounds:
    """The streams of a net, each in memory of its own.

    Args:
        owner: what tells a state of this net from others.
        warmup: frames before the first logits.
        queues, phases: frame n takes phase n modulo their number.
        bind: makes the functions, one for every step of a round.
    """

    def __init__(
        self,
        owner: str,
        kinds: Kinds,
        warmup: int,
        queues: Sequence[Queue],
        phases: Sequence[Phase],
        bind: Callable[[Places], Bound],
    ) -> None:
        self.owner, self.kinds, self.warmup = owner, kinds, warmup
        self.phases, self.bind = phases, bind
        self.rings = _rings(queues, phases)

    def begin(self, fill: str = FILLS[0], emit: str = EMITS[0]) -> State:
        """The state before the first frame.

        Raises:
            ValueError: for another fill or emit than these, which need the net itself.
        """
        if (fill, emit) != (FILLS[0], EMITS[0]):
            raise ValueError(
                f"expected fill 'zeros' and emit 'valid', others need the net itself, given "
                f"{fill!r} and {emit!r}"
            )
        return self._state(_Run(self), 0)

    def step(self, frame: Tensor, state: State | None = None) -> tuple[Tensor | None, State]:
        """Feeds a frame of the right kind; gives logits (B, classes) or None, and the next state.

        Raises:
            ValueError: for a state of another net or one already consumed.
            TypeError: for something that is no state.
        """
        state = self.begin() if state is None else state
        run, number = self._run_of(state), state["number"]
        return run.step(frame, number), self._state(run, number + 1)

    def _state(self, run: "_Run", number: int) -> State:
        run.number = number
        layers = run.held(number)
        return {
            **{"model": self.owner, "frame": self.kinds.frame, "run": run},
            **{"number": number, "layers": layers},
        }

    def _run_of(self, state: State) -> "_Run":
        """Where a state lies in memory; a clone is moved to a place of its own."""
        if not isinstance(state, dict) or not isinstance(state.get("run"), _Run):
            raise TypeError(
                f"expected a state that begin or step gave, given {type(state).__name__}"
            )
        run = state["run"]
        if run.rounds is not self:
            raise ValueError("expected a state of this net, given one of another")
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


@dataclass(frozen=True)
class _Ring:
    """Where the tensors of a queue lie.

    `slots` are one more than the queue is long, so that a new one has room, and as many more as let
    all queues come round together. `puts` counts what was put in before each step of a round.
    """

    queue: Queue
    slots: int
    puts: tuple[int, ...]

    def slot(self, step: int, depth: int) -> int:
        """Of what was put in `depth` times before a step of the round; 0: of what will be."""
        return (self.puts[step] - depth) % self.slots


def _rings(queues: Sequence[Queue], phases: Sequence[Phase]) -> dict[str, _Ring]:
    """The rings of all queues, in a round of as few steps as does not waste memory."""
    per_period = {q.name: sum(q.name in p.writes for p in phases) for q in queues}

    def slots(queue: Queue, periods: int) -> int:
        """The fewest that are enough and divide what is put in during a round."""
        total, least = periods * per_period[queue.name], queue.length + 1
        found = (n for n in range(least, total + 1) if total % n == 0)
        return next(found, 0)

    def memory(periods: int) -> float:
        sizes = [(slots(q, periods), math.prod(q.shape)) for q in queues]
        return sum(n * size for n, size in sizes) if all(n for n, _ in sizes) else math.inf

    longest = max((q.length + 1 for q in queues), default=1)
    candidates = range(1, 4 * longest + 1)
    best = min(map(memory, candidates))
    periods = next(n for n in candidates if memory(n) <= 1.1 * best)
    rings = {}
    for queue in queues:
        puts = [0]
        for step in range(len(phases) * periods):
            puts.append(puts[-1] + (queue.name in phases[step % len(phases)].writes))
        rings[queue.name] = _Ring(queue, slots(queue, periods), tuple(puts[:-1]))
    return rings


class _Run:
    """The memory of one stream, with the functions bound to it at every step of a round.

    Nothing is allocated or copied in a step but the frame and the logits.
    """

    def __init__(self, rounds: Rounds) -> None:
        kinds = rounds.kinds
        self.rounds, self.number = rounds, 0
        self.frame = torch.zeros(kinds.frame, dtype=kinds.dtype, device=kinds.device)
        self.counter = torch.zeros((), dtype=torch.int64, device=kinds.device)
        shape = kinds.frame[0], kinds.classes
        self.logits = torch.zeros(shape, dtype=kinds.dtype, device=kinds.device)
        self.tensors = {
            name: tuple(
                torch.full(
                    *(ring.queue.shape, ring.queue.initial),
                    **{"dtype": kinds.state, "device": kinds.device},
                )
                for _ in range(ring.slots)
            )
            for name, ring in rounds.rings.items()
        }
        rings = rounds.rings.values()
        self.round = max((len(ring.puts) for ring in rings), default=len(rounds.phases))
        self.bound: dict[int, Bound] = {}
        self._held: dict[int, dict] = {}

    def step(self, frame: Tensor, number: int) -> Tensor | None:
        rounds, step = self.rounds, number % self.round
        self._take(frame, number)
        if step not in self.bound:
            self.bound[step] = self._bind(step)
        self.bound[step]()
        emits = rounds.phases[number % len(rounds.phases)].emits
        return self.logits.clone() if emits and number >= rounds.warmup else None

    def _take(self, frame: Tensor, number: int) -> None:
        if self.frame.device.type == "cpu":  # torch would leave threads spinning
            self.frame.numpy()[...] = frame.detach().numpy()
            self.counter.numpy()[...] = number
        else:
            self.frame.copy_(frame)
            self.counter.fill_(number)

    def held(self, number: int) -> dict[str, tuple[Tensor, ...]]:
        """The state before a step: tensors by queue, the one put in last first."""
        step = number % self.round
        if step not in self._held:
            self._held[step] = {
                name: tuple(
                    self.tensors[name][ring.slot(step, depth)]
                    for depth in range(1, ring.queue.length + 1)
                )
                for name, ring in self.rounds.rings.items()
            }
        return self._held[step]

    def _bind(self, step: int) -> Bound:
        rounds = self.rounds
        number = step % len(rounds.phases)
        phase = rounds.phases[number]

        def tensor(name: str, depth: int) -> Tensor:
            return self.tensors[name][rounds.rings[name].slot(step, depth)]

        read = [tensor(*one) for one in phase.reads]
        written = [tensor(name, 0) for name in phase.writes]
        logits = self.logits if phase.emits else None
        return rounds.bind(Places(number, self.frame, self.counter, read, logits, written))

"""What exported files say of themselves: enough to run them with nothing else at hand."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .step import Queue

KEY = "co3d"  # of the record in the metadata of a file
PRECISIONS = ("float32", "bfloat16")
LIMITS = 10_000, 2**31  # phases or tensors in a queue, and numbers in a state, of a sane file


@dataclass(frozen=True)
class Ports:
    """The graph of a phase.

    It takes `frame`, `counter` (the number of the frame) and `state.QUEUE@DEPTH` for each of
    `reads`, depth 1 being what was put in last. It gives `logits`, where it `emits`, and
    `state.QUEUE` for each of `writes`. That of a clip net takes `clip` and gives `logits`.
    """

    reads: tuple[tuple[str, int], ...] = ()
    writes: tuple[str, ...] = ()
    emits: bool = True


@dataclass(frozen=True)
class Record:
    """Facts of an exported net. Frame n of a step takes phase n modulo their number."""

    version: str  # of co3d
    model: str  # name, or the class of a net without one
    kind: str  # "step" or "clip"
    precision: str  # of the arithmetic and the state; frames, clips and logits are float32
    shape: tuple[int, ...]  # of the frame or clip, batch first
    classes: int
    labels: tuple[str, ...]  # of the classes, if they are known
    scores: str  # what makes scores of the logits, "softmax" or "sigmoid"
    window: int  # frames, as the next four
    receptive_field: int
    padding: int
    warmup: int
    stride: int
    transform: dict[str, Any]  # of the input: image_size, mean, std, channel_order, fps
    weights: dict[str, str]  # where they come from: source, sha256, training_data, licence
    queues: tuple[Queue, ...]
    phases: tuple[Ports, ...]
    digest: str = ""  # sha256 of the other files of the export, one after the other

    def to_json(self) -> str:
        """The text that files carry; `from_json` reads it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Record":
        """The record in a text, which may come from anywhere.

        Raises:
            ValueError: if it is none, or has sizes that no export has.
        """
        try:
            facts = json.loads(text, object_hook=lambda part: {k: _tuples(part[k]) for k in part})
            queues = tuple(Queue(**queue) for queue in facts["queues"])
            phases = tuple(Ports(**ports) for ports in facts["phases"])
            record = cls(**{**facts, "queues": queues, "phases": phases})
            record._check()
        except (TypeError, KeyError, ValueError, AttributeError, RecursionError) as error:
            raise ValueError(f"its record cannot be read ({error})") from None
        return record

    def _check(self) -> None:
        """Raises ValueError for what could not be used to address memory."""
        lengths = {queue.name: queue.length for queue in self.queues}
        counts = [self.stride, *lengths.values()]
        sizes = [self.classes, *self.shape, *(n for queue in self.queues for n in queue.shape)]
        if not all(type(n) is int and n > 0 for n in (*counts, *sizes)):
            raise ValueError("sizes")
        numbers = sum(queue.length * math.prod(queue.shape) for queue in self.queues)
        if max(counts) > LIMITS[0] or numbers > LIMITS[1] or self.stride != len(self.phases):
            raise ValueError("lengths")
        if self.kind not in ("step", "clip") or self.precision not in PRECISIONS:
            raise ValueError("kinds")
        for ports in self.phases:
            if any(depth not in range(1, lengths[name] + 1) for name, depth in ports.reads):
                raise ValueError("depths")
            if set(ports.writes) - set(lengths) or len(set(ports.writes)) < len(ports.writes):
                raise ValueError("queues")

    def inputs(self, phase: int) -> list[str]:
        """The names of the inputs of a graph, in order."""
        reads = [f"state.{name}@{depth}" for name, depth in self.phases[phase].reads]
        return ["clip"] if self.kind == "clip" else ["frame", "counter", *reads]

    def outputs(self, phase: int) -> list[str]:
        """The names of the outputs of a graph, in order."""
        ports = self.phases[phase]
        return ["logits"] * ports.emits + [f"state.{name}" for name in ports.writes]


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def companions(path: Path, phases: int) -> list[Path]:
    """The other files of an export: graphs of further phases, then the weights."""
    if path.suffix == ".xml":
        return [path.with_suffix(".bin")]
    graphs = [path.with_name(f"{path.stem}.phase{n}.onnx") for n in range(1, phases)]
    return [*graphs, path.with_suffix(".weights")] if graphs else []


def digest_of(paths: Sequence[Path]) -> str:
    """The sha256 of some files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()

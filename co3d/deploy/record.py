"""What exported files say of themselves: enough to run them with nothing else at hand."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .operations import Queue

KEY = "co3d"  # of the record in the metadata of a file
PRECISIONS = ("float32", "bfloat16")
LIMITS = 10_000, 2**31  # phases or tensors in a queue, and numbers in a state, of a sane file


@dataclass(frozen=True)
class Ports:
    """The graph of a phase: the names of its inputs and outputs, in order.

    Inputs are `clip`, or `frame`, `counter` (the number of the frame, from 0) and `state.QUEUE@N`,
    which is what was put into a queue N times ago. Outputs are `logits`, and `state.QUEUE` for what
    is put into a queue. What a phase has no use for is left out.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Record:
    """Facts of an exported net. Frame n of a step takes phase n modulo their number."""

    version: str  # of co3d
    model: str  # name, or the class of a net without one
    precision: str  # of the arithmetic and the state; frames, clips and logits are float32
    shape: tuple[int, ...]  # of the frame or clip, batch first
    classes: int
    labels: tuple[str, ...]  # of the classes, if they are known
    scores: str  # what makes scores of the logits, "softmax" or "sigmoid"
    transform: dict[str, Any]  # of the input: what makes a `Transform`, and fps
    weights: dict[str, str]  # where they come from: source, sha256, training_data, licence
    window: int  # frames, as the next four
    receptive_field: int
    phases: tuple[Ports, ...]
    padding: int = 0
    warmup: int = 0
    stride: int = 1
    kind: str = "clip"  # or "step"
    queues: tuple[Queue, ...] = ()
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
        except (TypeError, KeyError, ValueError, RecursionError) as error:
            raise ValueError(f"its record cannot be read ({error})") from None
        return record

    def _check(self) -> None:
        counts = [self.stride, *(queue.length for queue in self.queues)]
        sizes = [self.classes, *self.shape, *(n for queue in self.queues for n in queue.shape)]
        if not all(type(n) is int and n > 0 for n in (*counts, *sizes)):
            raise ValueError("sizes")
        numbers = sum(queue.length * math.prod(queue.shape) for queue in self.queues)
        if max(counts) > LIMITS[0] or numbers > LIMITS[1] or self.stride != len(self.phases):
            raise ValueError("lengths")
        if self.kind not in ("step", "clip") or self.precision not in PRECISIONS:
            raise ValueError("kinds")


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

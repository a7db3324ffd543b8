"""What an exported file says of itself: enough to run it with nothing else at hand."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from ..nn.explicit import Queue

KEY = "co3d"  # of the record in a file's metadata
COUNTER = "counter"  # frames seen before this one: an input, or a variable of internal state
LIMIT = 10_000  # steps after which the buffers of a sane file have gone round


@dataclass(frozen=True)
class Phase:
    """One graph of a step.

    Attributes:
        reads: (queue, depth) of its inputs behind the frame and its number, depth 1 being what was
            put in last; they are called state.QUEUE@DEPTH.
        writes: queues that it puts a tensor into, called state.QUEUE.
        emits: whether it also gives logits.
    """

    reads: tuple[tuple[str, int], ...]
    writes: tuple[str, ...]
    emits: bool


@dataclass(frozen=True)
class Record:
    """Facts of an exported net.

    Attributes:
        version: of co3d.
        model: name, or the class of a net without one.
        kind: "step" or "clip".
        state: "explicit": tensors that go in and out, beside the number of the frame, by which the
            graph masks what comes before a layer's first frame; "internal": kept by the runtime.
        precision: of the arithmetic and of explicit state; frames, clips and logits are float32.
        shape: of the frame or clip, batch first.
        classes, labels: number and names of the classes; no names if they are not known.
        scores: what makes scores of the logits, "softmax" or "sigmoid".
        window, receptive_field, padding, warmup, stride: of a step, in frames.
        transform: of the input: image_size, mean, std, channel_order, and fps.
        weights: where they come from: source, sha256, training_data, licence.
        queues, phases: frame n takes phase n modulo their number; a clip has one, without state.
        files: the names of the graphs, then of the file that holds the weights, if any.
        digest: sha256 of the weights.
    """

    version: str
    model: str
    kind: str
    state: str
    precision: str
    shape: tuple[int, ...]
    classes: int
    labels: tuple[str, ...]
    scores: str
    window: int
    receptive_field: int
    padding: int
    warmup: int
    stride: int
    transform: dict[str, Any]
    weights: dict[str, str]
    queues: tuple[Queue, ...]
    phases: tuple[Phase, ...]
    files: tuple[str, ...]
    digest: str

    def to_json(self, phase: int) -> str:
        """The text that the graph of a phase carries; `from_json` reads it."""
        return json.dumps({**asdict(self), "phase": phase}, allow_nan=True)

    @classmethod
    def from_json(cls, text: str) -> tuple["Record", int]:
        """The record and the phase of the graph that carries it.

        Raises:
            ValueError: if the text is not such a record.
        """
        try:
            facts = json.loads(text)
            phase = facts.pop("phase")
            facts["queues"] = tuple(
                Queue(**{**queue, "shape": tuple(queue["shape"])}) for queue in facts["queues"]
            )
            facts["phases"] = tuple(
                Phase(
                    tuple((str(n), int(d)) for n, d in p["reads"]), tuple(p["writes"]), p["emits"]
                )
                for p in facts["phases"]
            )
            facts |= {key: tuple(facts[key]) for key in ("shape", "labels", "files")}
            record = cls(**facts)
            record._check(phase)
        except (TypeError, KeyError, ValueError, AttributeError, RecursionError) as error:
            raise ValueError(f"its record cannot be read ({error})") from None
        return record, phase

    def _check(self, phase: int) -> None:
        """Whether what will be used to address memory and files can be so."""
        numbers = [*self.shape, self.classes, self.stride, len(self.phases)]
        lengths = {queue.name: queue.length for queue in self.queues}
        sizes = [n for queue in self.queues for n in (*queue.shape, queue.length)]
        if not all(type(n) is int and n > 0 for n in (*numbers, *sizes)):
            raise ValueError("sizes")
        if self.kind not in ("step", "clip") or self.state not in ("explicit", "internal"):
            raise ValueError("kinds")
        if max((*lengths.values(), len(self.phases))) > LIMIT or phase not in range(
            len(self.phases)
        ):
            raise ValueError("lengths")
        for one in self.phases:
            if any(not 1 <= depth <= lengths[name] for name, depth in one.reads):
                raise ValueError("depths")
            if set(one.writes) - set(lengths) or len(set(one.writes)) < len(one.writes):
                raise ValueError("queues")
        if any(not _is_plain(name) for name in self.files) or len(self.files) < len(self.phases):
            raise ValueError("file names")


def _is_plain(name: str) -> bool:
    """A file in the same folder, not a way out of it."""
    return bool(name) and not set(name) & set("/\\:\0") and name not in (".", "..")


def input_names(record: Record, phase: int) -> list[str]:
    """The inputs of a graph, in order."""
    if record.kind == "clip":
        return ["clip"]
    counter = [COUNTER] if record.state == "explicit" else []
    reads = record.phases[phase].reads
    return ["frame", *counter, *(f"state.{name}@{depth}" for name, depth in reads)]


def output_names(record: Record, phase: int) -> list[str]:
    """The outputs of a graph, in order."""
    one = record.phases[phase]
    return [*(["logits"] if one.emits else []), *(f"state.{name}" for name in one.writes)]

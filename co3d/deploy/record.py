"""What an exported file says of itself: enough to run it with nothing else at hand."""

import json
import math
from dataclasses import dataclass
from typing import Any

import torch

from .operations import Queue

KEY = "co3d"  # of the record in the metadata of a file
DIGEST = "co3d_weights_sha256"  # likewise, of the file of weights of OpenVINO
LAYOUT = 2  # of files and records; a higher one cannot read a lower one
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Record:
    """Facts of an exported net.

    The graph of a clip net takes `clip` and gives `logits`. A step takes `frame`, `counter` (the
    number of the frame, from 0) and `state.QUEUE@N`, which was put into a queue N times ago, and
    gives `logits` and `state.QUEUE`, which is put into a queue; what it has no use for is left out.
    Frame n takes phase n modulo `stride`. Several phases are parts of one graph, in which their
    names begin with `phase0.`, `phase1.` and so on.
    """

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
    padding: int = 0
    warmup: int = 0
    stride: int = 1
    kind: str = "clip"  # or "step"
    queues: tuple[Queue, ...] = ()
    layout: int = LAYOUT

    @classmethod
    def from_json(cls, text: str) -> "Record":
        """The record in a text, which may come from anywhere.

        Raises:
            ValueError: if it is none, is of another layout, or has sizes that no export has.
        """
        try:
            facts = json.loads(text, object_hook=_with_tuples)
            if facts.get("layout") != LAYOUT:
                raise ValueError("another version of co3d wrote it: export the net again")
            facts["queues"] = tuple(Queue(**queue) for queue in facts["queues"])
            record = cls(**facts)
            sizes = [(queue.length, *queue.shape) for queue in record.queues]
            for counts in [record.shape, (record.stride, record.classes), *sizes]:
                whole = all(type(n) is int and 0 < n < 10**5 for n in counts)
                if not whole or math.prod(counts) > 2**31:
                    raise ValueError(f"sizes {counts}")
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"its record cannot be read ({error})") from None
        return record


def _with_tuples(facts: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(x) if isinstance(x, list) else x for key, x in facts.items()}

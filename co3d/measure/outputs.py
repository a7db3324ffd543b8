"""What a live run gives with each frame."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

TOP = 5


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of all classes, each between 0 and 1.

    Attributes:
        values: (classes,), on the CPU.
        labels: names of the classes.
    """

    values: Tensor
    labels: Sequence[str]

    def top(self, count: int = TOP) -> list[tuple[str, float]]:
        """The likeliest classes with their scores, likeliest first."""
        values, classes = self.values.sort(descending=True, stable=True)
        best = zip(classes[:count].tolist(), values[:count].tolist(), strict=True)
        return [(self.labels[number], value) for number, value in best]


@dataclass(frozen=True, eq=False)
class Step:
    """What became of a frame.

    Attributes:
        number: of the frame as fed, from 1.
        time_s: of the video.
        scores: None while the network has no output.
        decode_ms: from the source to the input of the network.
        step_ms: from there to the scores.
        frame: the input of the network, (3, S, S); this and the following where they are kept.
        picture: uint8 (H, W, 3).
        features: the vector before the classifier (D,).
    """

    number: int
    time_s: float
    scores: Scores | None
    decode_ms: float
    step_ms: float
    frame: Tensor | None = None
    picture: np.ndarray | None = None
    features: np.ndarray | None = None

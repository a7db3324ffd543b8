"""What a live run gives with each frame, and the files that it leaves."""

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from torch import Tensor

from ..nn import StreamNet

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


class Output:
    """A file that has its name once it is complete, and is gone if the run fails.

    A path of None writes nothing.

    Raises:
        ValueError: on entering, if the path is a folder or in a folder that is not there.
    """

    opened: dict[str, Any] = {"mode": "wb"}

    def __init__(self, path: Path | None) -> None:
        self.path = path

    @property
    def _part(self) -> Path:
        return self.path.with_name(self.path.name + ".part")

    def check(self) -> None:
        """Refuses a path that no file can have.

        Raises:
            ValueError: if it is a folder, or in a folder that is not there.
        """
        if self.path.is_dir() or not self.path.parent.is_dir():
            raise ValueError(f"cannot write {self.path}: name a file in an existing folder")

    def __enter__(self) -> Self:
        if self.path is not None:
            self.check()
            self._file = self._part.open(**self.opened)
            self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        if self.path is None:
            return
        try:
            with self._file:
                if kind is None:
                    self._end()
            if kind is None:
                os.replace(self._part, self.path)
        finally:
            self._part.unlink(missing_ok=True)

    def add(self, step: Step) -> None:
        """Takes a step, if it has a prediction and there is a file."""
        if self.path is not None and step.scores:
            self._add(step)

    def _begin(self) -> None:
        """Writes what comes before all steps."""

    def _add(self, step: Step) -> None:
        raise NotImplementedError

    def _end(self) -> None:
        """Writes what comes behind all steps."""


class Table(Output):
    """A CSV file with a row per prediction; blank where there are fewer than TOP classes."""

    opened = {"mode": "w", "newline": "", "encoding": "utf-8"}

    def _begin(self) -> None:
        self._writer = csv.writer(self._file, lineterminator="\n")
        ranks = range(1, TOP + 1)
        header = ["time_s", "frame", *(f"label{n}" for n in ranks)]
        header += (f"probability{n}" for n in ranks)
        self._writer.writerow([*header, "decode_ms", "step_ms"])

    def _add(self, step: Step) -> None:
        best = step.scores.top(TOP)
        labels, probabilities = zip(*best, *[("", "")] * (TOP - len(best)), strict=True)
        times = round(step.decode_ms, 3), round(step.step_ms, 3)
        row = [round(step.time_s, 6), step.number, *labels, *probabilities, *times]
        self._writer.writerow(row)


class Features(Output):
    """A NumPy archive (.npz) of the vectors before the classifier, all kept until the end.

    Arrays: `features` (N, D) float32, `time_s` (N,) of the video, `frame` (N,) as fed, from 1; and
    as text the model, its window, the frames per second and the origin of the weights.

    Raises:
        ValueError: for another suffix than .npz, else as `Output`.
    """

    def __init__(self, path: Path | None, model: StreamNet, fps: float) -> None:
        if path is not None and path.suffix != ".npz":
            raise ValueError(f"expected a file that ends in .npz for the features, given {path}")
        super().__init__(path)
        weights, self._steps = model.weights, []
        self._width = model.classifier.in_features
        self._facts = {
            "model": model.spec.name,
            "window": str(model.window),
            "fps": f"{fps:g}",
            "weights": weights.source,
            "weights_sha256": weights.sha256,
            "weights_data": weights.training_data,
        }

    def _add(self, step: Step) -> None:
        self._steps.append((step.features, step.time_s, step.number))

    def _end(self) -> None:
        count = len(self._steps)
        vectors = [vector for vector, _, _ in self._steps]
        np.savez(
            self._file,
            features=np.array(vectors, np.float32).reshape(count, self._width),
            time_s=np.array([time_s for _, time_s, _ in self._steps], np.float64),
            frame=np.array([number for _, _, number in self._steps], np.int64),
            **self._facts,
        )

"""Accuracy over the videos of a data set, with its denominators and intervals.

A video that cannot be scored is left out of the denominator, counted, and never replaced.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..data.dataset import Dataset, Video
from . import metrics, runs
from .readings import Reading
from .store import Store


@dataclass(frozen=True)
class Result:
    """What a reading predicted.

    Attributes:
        row: of results/accuracy.csv.
        scores: float32 (n_scored, classes), in the order of `videos`.
        videos: that were scored.
    """

    reading: Reading
    row: dict
    scores: np.ndarray
    videos: tuple[Video, ...]
    run: Store

    @property
    def right(self) -> np.ndarray:
        """Whether the first guess is right, per scored video."""
        return metrics.ranks(self.scores, [video.class_id for video in self.videos]) == 0

    @property
    def targets(self) -> np.ndarray:
        """Whether a scored video has a class, (n_scored, classes)."""
        return targets_of(self.videos, self.scores.shape[1])


def warnings(results: Sequence[Result]) -> list[str]:
    """What to look into before any number is believed: readings whose labels look permuted."""
    lines = []
    for result in results:
        row, names = result.row, list(map(str, range(result.scores.shape[1])))
        if row["top1"] is None:
            continue
        for video in result.videos:
            names[video.class_id] = video.label
        labels = [video.class_id for video in result.videos]
        if sentence := metrics.permuted_labels(result.scores.argmax(1), labels, names):
            window = f", window {row['window']}" if row["window"] else ""
            lines.append(f"{row['model']}, {row['protocol']}, {row['mode']}{window}: {sentence}")
    return lines


def evaluate(
    readings: Sequence[Reading], data: Dataset, *, limit: int = 0, **options
) -> tuple[list[Result], Counter]:
    """Scores every reading on every video; arguments and errors are those of `runs.run`.

    Returns:
        A result per reading, in their order, and where the time went.

    Raises:
        ValueError: for videos without a label, or a model of other classes.
    """
    check(readings, data)
    stores, times = runs.run(readings, data, limit=limit, **options)
    pairs = zip(readings, stores, strict=True)
    return [_result(reading, data, limit, store) for reading, store in pairs], times


def check(readings: Sequence[Reading], data: Dataset) -> None:
    """Refuses, before any work is done, what could not be scored.

    Raises:
        ValueError: for videos without a label, or a model of other classes.
    """
    if not data.multilabel and any(video.class_id is None for video in data.videos):
        raise ValueError(f"expected labelled videos, {data.split} of {data.name} has none")
    for reading in readings:
        if reading.classes != len(data.labels):
            raise ValueError(
                f"expected a model of the {len(data.labels)} classes of {data.name}, given "
                f"{reading.model.spec.name} with {reading.classes}"
            )


def scored(data: Dataset, store: Store) -> tuple[Video, ...]:
    """The videos that have a prediction."""
    return tuple(video for video in data.videos if store.records[video.id]["status"] == "ok")


def _result(reading: Reading, data: Dataset, limit: int, store: Store) -> Result:
    videos = scored(data, store)
    scores = np.array([store.records[video.id]["scores"] for video in videos], np.float32)
    scores = scores.reshape(len(videos), reading.classes)  # also of none
    row = {
        **reading.keys,
        **{"dataset": data.name, "split": data.split, "limit": limit},
        "n_expected": len(data.videos),
        "n_found": sum(video.path is not None for video in data.videos),
        "n_scored": len(videos),
        "macs_per_prediction": reading.macs,
        **dict.fromkeys(("top1", "top5", "ci_low", "ci_high", "map_official", "map_common")),
    }
    if videos and data.multilabel:
        row |= _several(scores, videos, data)
    elif videos:
        labels, n = [video.class_id for video in videos], len(videos)
        right, near = (metrics.top_k(scores, labels, k) for k in (1, 5))
        row |= {"top1": 100 * right / n, "top5": 100 * near / n}
        row["ci_low"], row["ci_high"] = metrics.wilson(right, n)
    return Result(reading, row, scores, videos, store)


def failures_as_wrong(row: Mapping) -> float | None:
    """Top-1 in per cent if every planned video without a prediction counts as wrong."""
    return None if row["top1"] is None else row["top1"] * row["n_scored"] / row["n_expected"]


def _several(scores: np.ndarray, scored: Sequence[Video], data: Dataset) -> dict[str, float]:
    """Of videos with several classes; those without a prediction rank last, or are left out.

    Sorted by id, so that ties and drawings do not depend on the order in which videos are listed.
    """
    videos = sorted(data.videos, key=lambda video: video.id)
    by_id = dict(zip([video.id for video in scored], scores, strict=True))
    last = np.full(len(data.labels), -np.inf)
    every = np.array([by_id.get(video.id, last) for video in videos], float)
    targets = targets_of(videos, len(data.labels))
    low, high = metrics.bootstrap(metrics.map_common, every, targets)
    return {
        "map_official": metrics.map_official(every, targets),
        "map_common": metrics.map_common(every, targets),
        "ci_low": low,
        "ci_high": high,
    }


def targets_of(videos: Sequence[Video], classes: int) -> np.ndarray:
    """Whether a video has a class, (N, classes)."""
    targets = np.zeros((len(videos), classes), bool)
    for row, video in zip(targets, videos, strict=True):
        row[list(video.class_ids)] = True
    return targets

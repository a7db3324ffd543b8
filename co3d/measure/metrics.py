"""Accuracies, average precisions, their intervals, and a check of the labels by predictions.

Scores are (N, classes), a row per video. NaN is refused: such a video has no prediction.
Wilson's interval of scipy and the average precision of scikit-learn differ from
results/accuracy.csv in the last digits, so they are oracles of the tests alone.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy.special import bdtrc
from torch import Tensor

Z95 = 1.959963984540054  # 97.5 % quantile of the normal distribution
Scores = np.ndarray | Tensor


def top_k(scores: Scores, labels: Sequence[int], k: int) -> int:
    """How many videos have their label among the k highest scores; ties as in `ranks`."""
    return int((ranks(scores, labels) < k).sum())


def ranks(scores: Scores, labels: Sequence[int]) -> np.ndarray:
    """How many classes rank before each video's label, (N,); 0 is right.

    Among classes with equal scores, the lower id comes first.

    Raises:
        ValueError: for NaN, or labels that do not fit the scores.
    """
    scores, labels = _checked(scores), np.asarray(labels, dtype=int)
    n, classes = scores.shape
    if labels.shape != (n,) or n and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(
            f"expected {n} labels from 0 to {classes - 1}, one per row, given {labels.size}"
        )
    own = scores[np.arange(n), labels][:, None]
    before = np.arange(classes) < labels[:, None]
    return ((scores > own) | (scores == own) & before).sum(axis=1)


def wilson(right: int, n: int) -> tuple[float, float]:
    """95 % interval of a proportion right / n, in per cent; (0, 100) if n is 0.

    https://doi.org/10.1080/01621459.1927.10502953
    """
    if not n:
        return 0.0, 100.0
    share, spread = right / n, Z95**2 / n
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(spread * (share * (1 - share) + spread / 4)) / (1 + spread)
    return 100 * max(0.0, middle - half), 100 * min(1.0, middle + half)


def map_official(scores: Scores, targets: Scores) -> float | None:
    """Mean average precision of Charades as its authors compute it, in per cent.

    Per class, videos are sorted by falling score (equal ones stay in order), and the precisions at
    the positives are averaged. Videos without any class or without a prediction (a row of -inf)
    come last, so a missing prediction costs. Classes without positives are left out; None if none
    is left.

    Args:
        scores: (N, classes).
        targets: (N, classes), whether the video has the class.

    Raises:
        ValueError: for NaN, single -inf in a row, or targets of another shape.
    """
    scores, targets = _multilabel(scores, targets)
    scores = np.where(targets.any(axis=1, keepdims=True), scores, -np.inf)
    order = np.argsort(-scores, axis=0, kind="stable")
    hits = np.take_along_axis(targets, order, axis=0)
    precisions = hits.cumsum(axis=0) / np.arange(1, len(hits) + 1)[:, None]
    present = targets.any(axis=0)
    sums = np.where(hits, precisions, 0).sum(axis=0)[present]
    return 100 * float((sums / targets.sum(axis=0)[present]).mean()) if present.any() else None


def map_common(scores: Scores, targets: Scores) -> float | None:
    """Mean average precision as most evaluators compute it, in per cent; arguments as above.

    Videos without a prediction are left out; those without any class are negatives.
    """
    precisions = average_precisions(scores, targets)
    present = np.isfinite(precisions)
    return float(precisions[present].mean()) if present.any() else None


def average_precisions(scores: Scores, targets: Scores) -> np.ndarray:
    """Average precision of each class as in `map_common`, (classes,); NaN without a positive.

    Videos of equal score are counted together: each positive has the precision at the last one.
    """
    scores, targets = _multilabel(scores, targets)
    scored, result = np.isfinite(scores).all(axis=1), np.full(scores.shape[1], np.nan)
    columns = zip(scores[scored].T, targets[scored].T, strict=True)
    for number, (column, positive) in enumerate(columns):
        if positive.any():
            order = np.argsort(-column, kind="stable")
            starts = np.flatnonzero(np.diff(column[order], prepend=np.inf))  # of equal scores
            hits = np.add.reduceat(positive[order].astype(int), starts)
            seen = np.append(starts[1:], len(order))
            result[number] = 100 * ((hits * hits.cumsum() / seen).sum() / hits.sum())
    return result


def bootstrap(
    statistic: Callable[..., float | None], *arrays: np.ndarray, repeats: int = 500, seed: int = 0
) -> tuple[float | None, float | None]:
    """95 % interval of a statistic of rows, which are drawn with replacement.

    Drawings for which the statistic is None are left out; (None, None) if none is left.
    """
    rng, n = np.random.default_rng(seed), len(arrays[0])
    draws = (rng.integers(n, size=n) for _ in range(repeats))
    values = [statistic(*(array[draw] for array in arrays)) for draw in draws]
    values = [value for value in values if value is not None]
    low, high = np.percentile(values, [2.5, 97.5]).tolist() if values else (None, None)
    return low, high


def _checked(scores: Scores) -> np.ndarray:
    scores = np.asarray(scores)
    if scores.ndim != 2:
        raise ValueError(f"expected scores (N, classes), given the shape {scores.shape}")
    broken = int(np.isnan(scores).any(axis=1).sum())
    if broken:
        raise ValueError(f"expected scores without NaN, given {broken} of {len(scores)} rows of it")
    return scores


def _multilabel(scores: Scores, targets: Scores) -> tuple[np.ndarray, np.ndarray]:
    scores, targets = _checked(scores).astype(float), np.asarray(targets).astype(bool)
    if scores.shape != targets.shape:
        raise ValueError(f"expected targets {scores.shape}, given {targets.shape}")
    odd = ~(np.isfinite(scores).all(axis=1) | (scores == -np.inf).all(axis=1))
    if odd.any():
        raise ValueError(
            "expected finite scores, or -inf for all classes of a video without a prediction, "
            f"given others for {int(odd.sum())} videos"
        )
    return scores, targets


def permuted_labels(
    predicted: Sequence[int], labels: Sequence[int], names: Sequence[str] = ()
) -> str:
    """A sentence if the predictions say that the label map is permuted, else "".

    A merely bad model shows neither of the two signs:

    Many classes, of five or more: each half of the videos gives every predicted class its most
    frequent label. With these names, the predictions of the other half are right at least twice as
    often, for a tenth of the videos and in two fifths of the classes, and not by chance (1e-4).

    A few classes: the videos of each are mostly predicted as the next one in a circle, and not by
    chance (1e-2, so from 7 videos on).

    Args:
        predicted: class ids with the highest score, (N,).
        labels: class ids by the label map, (N,).
        names: of the classes, for the sentence.
    """
    predicted, labels = np.asarray(predicted, dtype=int), np.asarray(labels, dtype=int)
    if predicted.shape != labels.shape:
        raise ValueError(f"expected {labels.size} predictions, given {predicted.size}")
    if not labels.size:
        return ""
    right, relabelled = predicted == labels, _relabelled(predicted, labels) == labels
    present = len(np.unique(labels))
    if (
        relabelled.sum() >= max(2 * right.sum(), 0.1 * labels.size)
        and len(np.unique(labels[relabelled])) >= 0.4 * present >= 2
        and _chance((relabelled & ~right).sum(), (right & ~relabelled).sum()) < 1e-4
    ):
        return (
            f"The label map looks permuted: {100 * right.mean():.1f} % of {labels.size} videos "
            f"are right, {100 * relabelled.mean():.1f} % after other names for the classes."
        )
    circles = _circles(_confusion(predicted, labels))
    if not circles:
        return ""
    named = [", ".join(names[c] if names else str(c) for c in circle) for circle in circles]
    return (
        f"Labels look exchanged ({'; '.join(named)}): most videos of each of these classes are "
        "predicted as the next one, those of the last as the first."
    )


def _confusion(predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Videos by label and prediction, (classes, classes)."""
    classes = 1 + max(predicted.max(), labels.max())
    counts = np.bincount(labels * classes + predicted, minlength=classes**2)
    return counts.reshape(classes, classes)


def _relabelled(predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Predictions under the names that the other half of the videos suggests."""
    half = pd.Series(labels).groupby(labels).cumcount().to_numpy() % 2
    result = predicted.copy()
    for fold in (0, 1):
        for guess in np.unique(predicted[half != fold]):
            suggested = np.bincount(labels[(half != fold) & (predicted == guess)]).argmax()
            result[(half == fold) & (predicted == guess)] = suggested
    return result


def _circles(confusion: np.ndarray) -> list[list[int]]:
    """Classes that are each mostly predicted as the next one, beyond chance; lowest id first."""
    following = {
        label: int(row.argmax())
        for label, row in enumerate(confusion)
        if 2 * row.max() > row.sum() and _chance(row.max(), row[label]) < 1e-2
    }
    circles = []
    for start in following:
        circle = [start]
        while (after := following.get(circle[-1], start)) not in circle:
            circle.append(after)
        if after == start == min(circle) and circle[-1] in following and len(circle) > 1:
            circles.append(circle)
    return circles


def _chance(more: int, fewer: int) -> float:
    """The chance of at least so many of one of two equally likely outcomes."""
    return bdtrc(more - 1, more + fewer, 0.5)

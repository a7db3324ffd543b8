"""Accuracies, average precisions, their intervals, and a check of the labels by predictions.

Scores are (N, classes), a row per video; the likeliest class has the highest score. NaN is refused:
a video whose scores are NaN has no prediction, and its status says so.

The intervals of results/accuracy.csv must stay equal to the last digit. Wilson's interval of scipy
and the average precision of scikit-learn differ there by rounding, so they serve as oracles in the
tests.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
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


def per_class(right: Sequence[bool], labels: Sequence[int], classes: int) -> np.ndarray:
    """Videos that are right, and all videos, of each class: (classes, 2)."""
    right, labels = np.asarray(right, dtype=bool), np.asarray(labels, dtype=int)
    hits = np.bincount(labels[right], minlength=classes)
    return np.stack([hits, np.bincount(labels, minlength=classes)], axis=1)


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


def paired_bootstrap(
    right: Sequence[bool], base: Sequence[bool], *, repeats: int = 10_000, seed: int = 0
) -> tuple[float, float, float]:
    """How much more of the same videos are right than in `base`, in points, with a 95 % interval.

    Videos are drawn with replacement, each with both of its outcomes. A mean difference depends
    only on how many drawn videos are better, worse and equal, so these counts are drawn instead.

    Raises:
        ValueError: for no videos, or not the same number.
    """
    right, base = np.asarray(right, dtype=bool), np.asarray(base, dtype=bool)
    if right.shape != base.shape or right.ndim != 1 or not right.size:
        raise ValueError(
            f"expected outcomes of the same one or more videos, given {right.size} and {base.size}"
        )
    n = right.size
    better, worse = (right & ~base).sum(), (base & ~right).sum()
    shares = np.array([better, worse, n - better - worse]) / n
    drawn = np.random.default_rng(seed).multinomial(n, shares, size=repeats)
    low, high = np.percentile(100 * (drawn[:, 0] - drawn[:, 1]) / n, [2.5, 97.5])
    return 100 * float(better - worse) / n, float(low), float(high)


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
    scored = np.isfinite(scores).all(axis=1)
    counts = np.ones((1, int(scored.sum())), int)
    return _counted_precisions(scores[scored], targets[scored], counts)[0]


def paired_map(
    scores: Scores, base: Scores, targets: Scores, *, repeats: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """How much higher `map_common` is than with the scores `base`, in points, with a 95 % interval.

    Videos are drawn with replacement, each with both of its predictions.

    Args:
        scores, base: finite, (N, classes), of the same videos.
        targets: (N, classes), whether the video has the class.

    Raises:
        ValueError: for no video with a class, or scores that are not of the same videos.
    """
    scores, targets = _multilabel(scores, targets)
    base, _ = _multilabel(base, targets)
    if not targets.any() or not (np.isfinite(scores).all() and np.isfinite(base).all()):
        raise ValueError("expected finite scores of one or more videos with a class")
    n = len(targets)
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=repeats)
    counts = np.concatenate([np.ones((1, n), int), drawn])
    ours, theirs = (_counted_precisions(x, targets, counts) for x in (scores, base))
    counted = np.isfinite(ours).any(axis=1)  # drawings without any class are left out
    gains = np.nanmean(ours[counted], axis=1) - np.nanmean(theirs[counted], axis=1)
    low, high = np.percentile(gains[1:], [2.5, 97.5])
    return float(gains[0]), float(low), float(high)


def _counted_precisions(scores: np.ndarray, targets: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Average precisions (R, classes) when video n is there counts[r, n] times; NaN likewise.

    Counting how often videos were drawn sorts them once for all R drawings.
    """
    result = np.full((len(counts), scores.shape[1]), np.nan)
    for number, (column, positive) in enumerate(zip(scores.T, targets.T, strict=True)):
        order = np.argsort(-column, kind="stable")
        if not positive.any():
            continue
        starts = np.flatnonzero(np.diff(column[order], prepend=np.inf))  # of equal scores
        sizes = np.add.reduceat(counts[:, order], starts, axis=1)
        hits = np.add.reduceat((counts * positive)[:, order], starts, axis=1)
        seen = np.maximum(sizes.cumsum(axis=1), 1)
        sums = (hits * hits.cumsum(axis=1) / seen).sum(axis=1)
        total = hits.sum(axis=1)
        np.divide(sums, total, out=result[:, number], where=total > 0)
    return 100 * result


def bootstrap(
    statistic: Callable[..., float | None], *arrays: np.ndarray, repeats: int = 500, seed: int = 0
) -> tuple[float | None, float | None]:
    """95 % interval of a statistic of rows, which are drawn with replacement."""
    rng, n = np.random.default_rng(seed), len(arrays[0])
    draws = (rng.integers(n, size=n) for _ in range(repeats))
    values = [statistic(*(array[draw] for array in arrays)) for draw in draws]
    values = [value for value in values if value is not None]
    if not values:
        return None, None
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


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

    Two signs, neither of which a merely bad model shows:

    Many classes, of five or more. The most frequent label of each predicted class is learned from
    every second video of each label. On the other videos, and the other way round, relabelled
    predictions are right at least twice as often as the predictions, for a tenth of the videos
    and in two fifths of the classes or more, and not by chance (1e-4).

    A few classes, whose videos are mostly predicted as the next one in a circle, each by more than
    chance (1e-2 against its own, so from 7 videos on).

    Args:
        predicted: class ids with the highest score, (N,).
        labels: class ids by the label map, (N,).
        names: of the classes, for the sentence.
    """
    predicted, labels = np.asarray(predicted, dtype=int), np.asarray(labels, dtype=int)
    if predicted.shape != labels.shape or predicted.ndim != 1:
        raise ValueError(f"expected {labels.size} predictions, given {predicted.size}")
    if not labels.size:
        return ""
    right, relabelled = predicted == labels, _relabelled(predicted, labels) == labels
    gained, lost = (relabelled & ~right).sum(), (right & ~relabelled).sum()
    present = len(np.unique(labels))
    if (
        relabelled.sum() >= max(2 * right.sum(), 0.1 * labels.size)
        and len(np.unique(labels[relabelled])) >= 0.4 * present >= 2
        and _chance(gained, lost) < 1e-4
    ):
        return (
            f"The label map looks permuted: {100 * right.mean():.1f} % of {labels.size} videos "
            f"are right, {100 * relabelled.mean():.1f} % after other names for the classes."
        )
    circles = _circles(predicted, labels)
    if not circles:
        return ""
    named = [", ".join(names[c] if names else str(c) for c in circle) for circle in circles]
    return (
        f"Labels look exchanged ({'; '.join(named)}): most videos of each of these classes are "
        "predicted as the next one, those of the last as the first."
    )


def _relabelled(predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Predictions under the names that the other half of the videos suggests."""
    half, result = np.empty_like(labels), predicted.copy()
    for label in np.unique(labels):
        videos = np.flatnonzero(labels == label)
        half[videos] = np.arange(len(videos)) % 2
    for fold in (0, 1):
        for guess in np.unique(predicted[half != fold]):
            suggested = np.bincount(labels[(half != fold) & (predicted == guess)]).argmax()
            result[(half == fold) & (predicted == guess)] = suggested
    return result


def _circles(predicted: np.ndarray, labels: np.ndarray) -> list[list[int]]:
    """Classes that are each mostly predicted as the next one, beyond chance; lowest id first."""
    following: dict[int, int] = {}
    for label in np.unique(labels).tolist():
        counts = np.bincount(predicted[labels == label], minlength=label + 1)
        other = int(counts.argmax())
        if 2 * counts[other] > counts.sum() and _chance(counts[other], counts[label]) < 1e-2:
            following[label] = other
    circles = []
    for start in following:
        circle, at = [start], following[start]
        while at in following and at not in circle:
            circle.append(at)
            at = following[at]
        if at == start == min(circle) and len(circle) > 1:
            circles.append(circle)
    return circles


def _chance(more: int, fewer: int) -> float:
    """The chance of at least so many of one of two equally likely outcomes."""
    from scipy.special import bdtrc

    return float(bdtrc(more - 1, more + fewer, 0.5)) if more else 1.0

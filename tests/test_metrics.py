"""Metrics by hand, with ties, gaps and nonsense; and what the check of the labels lets pass."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score

from co3d.measure.metrics import (
    bootstrap,
    map_common,
    map_official,
    permuted_labels,
    ranks,
    top_k,
    wilson,
)

NONE = [-np.inf] * 2  # no prediction


def test_ties_go_to_the_lower_class():
    scores = torch.tensor([[1.0, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 0]])
    assert ranks(scores, [0, 1, 2, 3]).tolist() == [0, 1, 2, 3]
    assert [top_k(scores, [0, 1, 2, 3], k) for k in (1, 2, 3, 4, 5)] == [1, 2, 3, 4, 4]
    assert top_k(torch.zeros(0, 4), [], 1) == 0


@given(st.integers(0, 2**32 - 1))
def test_ranks_equal_a_stable_sort(seed):
    rng = np.random.default_rng(seed)
    scores, labels = rng.integers(0, 4, (9, 6)).astype(np.float32), rng.integers(0, 6, 9)
    order = np.argsort(-scores, axis=1, kind="stable")
    assert ranks(scores, labels).tolist() == (order == labels[:, None]).argmax(axis=1).tolist()


def test_nonsense_is_refused():
    bad = np.array([[0.0, np.nan], [1, 0], [np.nan, np.nan]])
    with pytest.raises(ValueError, match="without NaN, given 2 of 3 rows"):
        map_common(bad, bad > 0)
    good = np.zeros((3, 2))
    with pytest.raises(ValueError, match="expected 3 labels from 0 to 1"):
        top_k(good, [0, -1, 1], 1)
    with pytest.raises(ValueError, match="expected targets"):
        map_common(good, good[:2])
    with pytest.raises(ValueError, match="for 1 videos"):
        map_official(np.array([[-np.inf, 0], [0.0, 0]]), np.ones((2, 2)))


@pytest.mark.parametrize(("right", "n"), [(0, 3), (3, 3), (500, 1008), (19_000, 19_761)])
def test_wilson_equals_scipy(right, n):
    interval = binomtest(right, n).proportion_ci(method="wilson")
    expected = 100 * interval.low, 100 * interval.high
    assert wilson(right, n) == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_bootstrap_against_the_formula():
    right = np.arange(1000) < 600
    low, high = bootstrap(np.mean, right, repeats=4000)
    spread = 1.96 * np.sqrt(0.6 * 0.4 / 1000)
    assert (low, high) == pytest.approx((0.6 - spread, 0.6 + spread), abs=0.002)
    assert bootstrap(np.mean, right, seed=1) == bootstrap(np.mean, right, seed=1) != (low, high)
    nothing = np.zeros((3, 2))
    assert bootstrap(map_common, nothing, nothing) == (None, None)


# Rows of scores, rows of targets, official and common mAP in per cent, all by hand.
CASES = {
    # Class 0: positives at places 1 and 3, (1 + 2/3) / 2. Class 1: at places 1 and 4, 3/4.
    "plain": (
        [[0.9, 0.1], [0.8, 0.7], [0.7, 0.4], [0.1, 0.9]],
        [[1, 1], [0, 0.0], [1, 0], [0, 1]],
        # The second video has no class: officially it comes last, (1 + 1) / 2 and (1 + 2/3) / 2.
        (100 + 100 * (1 + 2 / 3) / 2) / 2,
        (100 * (1 + 2 / 3) / 2 + 75) / 2,
    ),
    "perfect": ([[1, 0], [0, 1]], [[1, 0], [0, 1]], 100, 100),
    # Equal scores: officially in the order given, 1/2; together, 1/2.
    "tie, positive second": ([[0, 1], [0, 0]], [[0, 1], [1, 0]], 75, 75),
    # Officially first, 1; together, 1/2.
    "tie, positive first": ([[0, 0], [0, 1]], [[1, 0], [0, 1]], 100, 75),
    # The first has no prediction: officially its class 0 is at place 2 of 2; else it is left out,
    # and class 0 has no positive any more.
    "missing": ([NONE, [1, 1]], [[1, 0], [0, 1]], 75, 100),
    "no prediction at all": ([NONE, NONE], [[1, 0], [0, 1]], 75, None),
    # Class 1 has no positive and does not count.
    "class without positives": ([[0, 1], [1, 0]], [[1, 0], [0, 0]], 100, 50),
    "nothing labelled": ([[0, 1], [1, 0]], [[0, 0], [0, 0]], None, None),
    "no videos": (np.zeros((0, 2)), np.zeros((0, 2)), None, None),
}


@pytest.mark.parametrize("name", CASES)
def test_average_precision_by_hand(name):
    scores, targets, official, common = CASES[name]
    assert map_official(np.array(scores), np.array(targets)) == pytest.approx(official)
    assert map_common(np.array(scores), np.array(targets)) == pytest.approx(common)


def test_common_equals_scikit_learn():
    rng = np.random.default_rng(0)
    scores, targets = rng.integers(0, 20, (300, 9)) / 20, rng.random((300, 9)) < 0.1
    targets[:, 3] = False
    with_some = [number for number in range(9) if number != 3]
    parts = [average_precision_score(targets[:, n], scores[:, n]) for n in with_some]
    assert map_common(scores, targets) == pytest.approx(100 * np.mean(parts), rel=1e-12)


def predictions(classes: int, each: int, accuracy: float, seed: int = 0, biased: bool = False):
    """Labels, and predictions that are right so often; the others are any class, or class 1."""
    rng = np.random.default_rng(seed)
    labels = np.tile(np.arange(classes), each)
    others = np.ones_like(labels) if biased else rng.integers(0, classes, labels.size)
    return labels, np.where(rng.random(labels.size) < accuracy, labels, others)


# Classes, videos of each, accuracy under the right map.
ENOUGH = [(12, 84, 0.8), (12, 84, 0.3), (12, 6, 0.8), (400, 3, 0.7), (400, 50, 0.5)]


@pytest.mark.parametrize(("classes", "each", "accuracy"), ENOUGH)
def test_permuted_maps_are_caught(classes, each, accuracy):
    labels, predicted = predictions(classes, each, accuracy)
    assert permuted_labels(predicted, labels) == ""
    shuffled = np.random.default_rng(1).permutation(classes)
    for ids in (shuffled, np.roll(np.arange(classes), 1)):
        assert "permuted" in permuted_labels(predicted, ids[labels])


@pytest.mark.parametrize(("classes", "each", "accuracy"), [(12, 20, 0.8), (400, 50, 0.75)])
def test_two_swapped_classes_are_caught(classes, each, accuracy):
    labels, predicted = predictions(classes, each, accuracy)
    names = [f"class {number}" for number in range(classes)]
    swapped, circle = np.arange(classes), np.arange(classes)
    swapped[[2, 5]] = 5, 2
    sentence = permuted_labels(predicted, swapped[labels], names)
    assert sentence.startswith("Labels look exchanged (class 2, class 5): most videos")
    circle[[1, 3, 7]] = 3, 7, 1
    assert "exchanged (1, 7, 3):" in permuted_labels(predicted, circle[labels])


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("classes, each", [(12, 1), (12, 5), (12, 84), (400, 1), (400, 3), (2, 50)])
@pytest.mark.parametrize("accuracy", [0.0, 0.05, 0.5, 1.0])
def test_bad_models_and_few_videos_are_no_alarm(classes, each, accuracy, biased):
    for seed in range(5):
        labels, predicted = predictions(classes, each, accuracy, seed, biased)
        assert permuted_labels(predicted, labels) == ""


def test_confusion_without_a_circle_is_no_alarm():
    """A class that draws the videos of another is a weakness of the model, not of the map."""
    labels, predicted = predictions(12, 84, 0.9)
    predicted[labels == 4] = 9
    assert permuted_labels(predicted, labels) == ""
    half = labels % 2 == 1
    predicted[half] = labels[half] - 1  # every second class is never predicted
    assert permuted_labels(predicted, labels) == ""
    collapsed = np.where(np.isin(labels, [3, 4, 5]), 8, 1)
    assert permuted_labels(collapsed, labels) == ""
    first = np.repeat([0, 1, 2], 50)  # of an annotation that is sorted by class
    assert permuted_labels(np.array([7, 9, 4])[first], first) == ""
    assert permuted_labels([], []) == ""

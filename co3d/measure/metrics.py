"""Accuracies and their intervals."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

Z95 = 1.959963984540054  # 97.5 % quantile of the normal distribution


def top_k(scores: Tensor, labels: Sequence[int], k: int) -> int:
    """How many of the rows of `scores` (N, classes) have their label among the k highest."""
    best = scores.topk(min(k, scores.shape[1]), 1).indices
    return int((best == torch.as_tensor(labels)[:, None]).any(1).sum())


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

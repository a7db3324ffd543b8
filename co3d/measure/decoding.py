"""What networks are fed of a video, as it comes from the process that decoded it.

Frames that several plans want are transformed, sent and held once.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self, TypeVar

import numpy as np

from ..data.dataset import Video
from ..data.transforms import Transform
from .feeding import feed
from .plans import Plan

T = TypeVar("T")


class Part(NamedTuple):
    """Frames of one clip: their numbers in the video, under one transform, crop included."""

    transform: Transform
    indices: tuple[int, ...]

    def begins(self, other: "Part") -> bool:
        """Whether the other begins with these frames."""
        same = self.transform == other.transform
        return same and other.indices[: len(self.indices)] == self.indices


@dataclass
class Decoded:
    """A video as some plans want it.

    Attributes:
        indices: frame numbers per view, by plan; for plans whose status is "ok".
        statuses: status and note by plan.
        rows: where a frame's picture lies in `frames`, by transform.
        frames: float32 (3, N, S, S) by transform.
        seconds: that decoding took.
    """

    indices: dict[Plan, tuple[tuple[int, ...], ...]]
    statuses: dict[Plan, tuple[str, str]]
    rows: dict[Transform, dict[int, int]]
    frames: dict[Transform, np.ndarray]
    seconds: float

    @classmethod
    def failed(cls, plans: Sequence[Plan], status: str, note: str) -> Self:
        """A video that gave nothing to any plan."""
        return cls({}, dict.fromkeys(plans, (status, note)), {}, {}, 0.0)

    def parts(self, plan: Plan) -> list[Part]:
        """The clips of a plan: all crops of the first view, then of the next."""
        return [Part(t, view) for view in self.indices[plan] for t in plan.transforms]

    def clip(self, part: Part) -> np.ndarray:
        """Float32 (3, T, S, S)."""
        rows = self.rows[part.transform]
        return self.frames[part.transform][:, [rows[index] for index in part.indices]]


def decode(job: tuple[Video, Sequence[Plan]]) -> Decoded:
    """One decoding pass for all plans of a video. Runs in a process of its own."""
    video, plans = job
    started = time.perf_counter()
    found = dict(zip(plans, within_memory(feed, video, plans), strict=True))
    pictures: dict[Transform, dict[int, np.ndarray]] = {}
    for plan, fed in found.items():
        columns = iter(fed.clips.columns)
        for view in fed.indices:
            for transform in plan.transforms:
                frames = (frame.numpy() for frame in next(columns))
                pictures.setdefault(transform, {}).update(zip(view, frames, strict=True))
    return Decoded(
        {plan: fed.indices for plan, fed in found.items() if fed.status == "ok"},
        {plan: (fed.status, fed.note) for plan, fed in found.items()},
        {t: {number: row for row, number in enumerate(held)} for t, held in pictures.items()},
        {t: np.stack(list(held.values()), axis=1) for t, held in pictures.items()},
        time.perf_counter() - started,
    )


def within_memory(function: Callable[..., T], *arguments: object) -> T:
    """What the function gives; MemoryError also where it is torch that finds no memory."""
    try:
        return function(*arguments)
    except RuntimeError as error:
        if "can't allocate memory" in str(error):
            raise MemoryError from error
        raise

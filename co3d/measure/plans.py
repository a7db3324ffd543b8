"""A plan: all that decides what a model sees of any video, and how its predictions are read."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..data.sampling import Timeline
from ..data.transforms import Transform
from ..data.video import VideoError

RAW_FPS = 30.0  # that frame intervals are given at
MAX_FED = 2**14  # frames of one video to a stream; 18 minutes at 15 per second


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that decides input and prediction of one reading of any video.

    Attributes:
        protocol: a key of protocols.MODES, or "start-up".
        mode: "clip" (views of their own), "stream" or "clips" (over what a stream saw).
        frames: fed per view; of a `whole` video at least so many.
        fps: rate at which videos are sampled by time; None for protocol paper, which goes by
            number: there `interval` is the raw frames at 30 fps between two fed ones.
        views, crops: clips per video and squares per frame; their probabilities are averaged.
        position: share of the free span that lies before the frames, 0.5 = centred; None where
            several views are spread over the video, with `spread` as in protocols.Native.
        fill: what stands in for the frames before a stream's first, "zeros" or "replicate".
        predictions: how many last predictions of a stream are averaged.
        emit: "valid", or "always" to predict from a stream's first frame on.
        within: frames that the views of mode "clips" cover together, evenly spaced.
        whole: whether a stream gets all the video.
        transform: of the frames; with 3 crops that of the middle one.
    """

    protocol: str
    mode: str
    frames: int
    fps: float | None
    interval: float | None
    views: int
    crops: int
    position: float | None
    fill: str | None
    transform: Transform
    predictions: int = 1
    emit: str = "valid"
    spread: str = "ends"
    within: int | None = None
    whole: bool = False

    @property
    def length(self) -> int:
        """Frames that a video needs, unless it repeats its last one."""
        return self.within or self.frames

    @property
    def transforms(self) -> tuple[Transform, ...]:
        """One per crop, from left to right or top to bottom."""
        places = ("centre",) if self.crops == 1 else ("start", "centre", "end")
        return tuple(replace(self.transform, crop=place) for place in places)

    def indices(self, timeline: Timeline) -> tuple[tuple[int, ...], ...] | None:
        """Numbers of the frames, from 0, per view; None for a video that is too short.

        Only protocol paper repeats the last frame of a video that is too short, as its scripts
        did; by time a frame comes twice only where the video is slower than the rate.

        Raises:
            VideoError: if a whole video has more than MAX_FED frames at this rate.
        """
        take = self._by_time if self.interval is None else self._by_number
        shares = [self.position]
        if self.position is None:
            last = self.views - (self.spread == "ends")
            shares = [view / last for view in range(self.views)]
        blocks = [take(timeline, share) for share in shares]
        if None in blocks:
            return None
        if self.within is None:
            return tuple(blocks)
        starts = np.linspace(0, self.within - self.frames, self.views).round().astype(int)
        return tuple(blocks[0][start : start + self.frames] for start in starts.tolist())

    def _by_time(self, timeline: Timeline, share: float) -> tuple[int, ...] | None:
        count = timeline.count(self.fps)
        if count < self.length:
            return None
        if not self.whole:
            start = int(share * (count - self.length) + 1e-9)  # 1/3 of 9 is 3
            return tuple(timeline.at(self.fps, range(start, start + self.length)))
        if count > MAX_FED:
            raise VideoError(f"expected up to {MAX_FED} frames at {self.fps:g} fps, given {count}")
        return tuple(timeline.at(self.fps, range(count)))

    def _by_number(self, timeline: Timeline, share: float) -> tuple[int, ...] | None:
        n = len(timeline.times)
        span = self.interval * self.length / RAW_FPS * timeline.fps
        if math.isnan(span):
            return None  # a single frame, of no rate
        start = max(n - span, 0) * share
        numbers = np.linspace(start, start + span - 1, self.length).astype(int)
        return tuple(numbers.clip(0, n - 1).tolist())


def describe(plan: Plan, timeline: Timeline) -> str:
    """The frames that the plan takes of a video, a line per view, runs of them shortened."""
    views = plan.indices(timeline)
    if views is None and plan.fps is None:
        return "Too short: a single frame, whose rate is unknown."
    if views is None:
        need, have = plan.length, timeline.count(plan.fps)
        return f"Too short: {need} frames are needed at {plan.fps:g} fps, there are {have}."
    n = len(timeline.times)
    return "\n".join(
        f"view {view} of {plan.views}: {len(numbers)} of {n} frames: {_compact(numbers)}"
        for view, numbers in enumerate(views, start=1)
    )


def _compact(numbers: Sequence[int]) -> str:
    """Numbers with runs of four or more equal steps as "first..last by step"."""
    parts = []
    while numbers:
        steps = np.diff(numbers).tolist()
        same = [step == steps[0] for step in steps]
        run = 1 + [*same, False].index(False)
        if run < 4:
            run = 1
            parts.append(str(numbers[0]))
        elif steps[0]:
            parts.append(f"{numbers[0]}..{numbers[run - 1]} by {steps[0]}")
        else:
            parts.append(f"{numbers[0]} ({run} times)")
        numbers = numbers[run:]
    return ", ".join(parts)

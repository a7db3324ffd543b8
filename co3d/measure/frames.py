"""The frames that plans want of a video: opened once, decoded once for all plans."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..data import remote
from ..data.dataset import Video
from ..data.jpegs import FolderReader
from ..data.sampling import Timeline, decoded_timeline, opened, timeline_of
from ..data.transforms import Transform
from ..data.video import Reader, VideoError
from .plans import Plan, describe

Views = tuple[tuple[int, ...], ...]


@dataclass
class Frames:
    """What plans get from a video.

    Attributes:
        statuses: status and a sentence why, by plan: "ok"; "missing" (there is no file);
            "decode_error" (it cannot be used); "partial" (damaged before the last wanted frame, or
            at the end, for plans that count from there); "too_short"; "timeout".
        views: numbers of the frames, from 0, per view, by plan.
        pictures: float32 (3,S,S) by transform and number of the frame.
        seconds: that decoding took.
    """

    statuses: dict[Plan, tuple[str, str]]
    views: dict[Plan, Views] = field(default_factory=dict)
    pictures: dict[Transform, dict[int, np.ndarray]] = field(default_factory=dict)
    seconds: float = 0.0

    def parts(self, plan: Plan) -> list[tuple[Transform, tuple[int, ...]]]:
        """Transform and frame numbers of each clip: all crops of the first view, then the next."""
        return [(transform, view) for view in self.views[plan] for transform in plan.transforms]

    def clip(self, transform: Transform, numbers: Sequence[int]) -> np.ndarray:
        """These frames as a clip, float32 (3,T,S,S)."""
        return np.stack([self.pictures[transform][number] for number in numbers], axis=1)


def decode(job: tuple[Video, Sequence[Plan]]) -> Frames:
    """The frames of a video for each plan; what one plan gets does not depend on the others.

    Raises:
        OSError: if a video at an address cannot be fetched.
    """
    video, plans = job
    started, frames = time.perf_counter(), Frames({})
    with remote.local(video.path) as path:
        try:
            _read(path, video.frames_fps, plans, frames)
        except (ValueError, OSError) as error:  # VideoError is a ValueError
            frames = Frames(dict.fromkeys(plans, ("decode_error", _reason(error, path))))
    frames.seconds = time.perf_counter() - started
    return frames


def _read(path: Path, fps: float | None, plans: Sequence[Plan], frames: Frames) -> None:
    """Where the file's packets do not tell what can be decoded, it is decoded for that first."""
    with opened(path, fps) as reader:
        times = reader.packet_times()
        if times is not None:
            _take(reader, timeline_of(reader, times), plans, frames)
    if waiting := [plan for plan in plans if plan not in frames.statuses]:
        line = decoded_timeline(path, fps)
        with opened(path, fps) as reader:
            _take(reader, line, waiting, frames)
        for plan in waiting:
            frames.statuses.setdefault(plan, ("decode_error", "Decodes differently each time."))


def _take(
    reader: Reader | FolderReader, line: Timeline, plans: Sequence[Plan], frames: Frames
) -> None:
    """Decodes up to the last wanted frame. Plans have no status where other frames come than the
    timeline promises, unless damage is the reason."""
    waiting = {plan: _wanted(reader, line, plan, frames) for plan in plans}
    waiting = {plan: numbers for plan, numbers in waiting.items() if numbers}
    for number, (seconds, frame) in enumerate(reader.decode() if waiting else ()):
        if line.times[number : number + 1] != (seconds,) or line.origin != reader.origin:
            break
        picture = None
        for plan in [plan for plan, numbers in waiting.items() if number in numbers]:
            try:
                for transform in plan.transforms:
                    pictures = frames.pictures.setdefault(transform, {})
                    if number not in pictures:
                        picture = reader.rgb(frame) if picture is None else picture
                        pictures[number] = transform.frame(picture).numpy()
            except (ValueError, OSError) as error:
                frames.statuses[plan] = "decode_error", _reason(error, reader.source)
            else:
                waiting[plan].remove(number)
                if waiting[plan]:
                    continue
                damaged = reader.status == "partial"
                frames.statuses[plan] = ("partial", reader.note) if damaged else ("ok", "")
            del waiting[plan]
        if not waiting:
            return
    if reader.status == "partial":
        frames.statuses |= dict.fromkeys(waiting, ("partial", reader.note))


def _wanted(reader: Reader | FolderReader, line: Timeline, plan: Plan, frames: Frames) -> set[int]:
    """Numbers of the frames of a plan; none, and a status, if there are none."""
    try:
        views = plan.indices(line)
    except VideoError as error:
        frames.statuses[plan] = "decode_error", _reason(error, reader.source)
        return set()
    if views is None and not line.note:
        frames.statuses[plan] = "too_short", describe(plan, line)
        return set()
    if views is None or (line.note and (plan.whole or plan.position != 0)):  # counted from the end
        frames.statuses[plan] = "partial", line.note
        return set()
    frames.views[plan] = views
    return set().union(*views)


def _reason(error: Exception, source: str | Path) -> str:
    """The error's message without the folders of this machine."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text.removeprefix(f"{source}: ").replace(f"{Path(source).parent}/", "")

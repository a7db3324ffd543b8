"""The inputs of many plans from one decoding pass over a video."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..data.dataset import Video
from ..data.jpegs import FolderReader
from ..data.sampling import Timeline, opened, timeline, timeline_of
from ..data.video import Reader, VideoError
from .plans import Plan, describe


class Clips(Sequence[Tensor]):
    """Clips (3,T,S,S), put together when asked for, as views share most of their frames."""

    def __init__(self, columns: Sequence[Sequence[Tensor]] = ()) -> None:
        self._columns = columns

    def __len__(self) -> int:
        return len(self._columns)

    def __getitem__(self, index: int) -> Tensor:
        return torch.stack(tuple(self._columns[index]), dim=1)


@dataclass
class Fed:
    """What a plan gets from a video.

    Attributes:
        clips: one per view and crop, the crops of a view together; none unless `status` is "ok".
        indices: numbers of the frames, from 0, per view; likewise.
        status: "ok"; "missing" (there is no file); "decode_error" (it cannot be used); "partial"
            (damaged before the last wanted frame, or at the end, for plans that count from
            there); "too_short".
        note: why, in a sentence.
    """

    clips: Sequence[Tensor]
    indices: tuple[tuple[int, ...], ...]
    status: str
    note: str


@dataclass
class _Job:
    """A plan on its way through a video; `fed` is there once it is decided."""

    plan: Plan
    indices: tuple[tuple[int, ...], ...] = ()
    fed: Fed | None = None
    frames: dict[int, tuple[Tensor, ...]] = field(default_factory=dict)  # a picture per crop

    def __post_init__(self) -> None:
        self.wanted = frozenset().union(*self.indices)
        self.last = max(self.wanted, default=-1)

    def give_up(self, status: str, note: str) -> None:
        self.fed = Fed(Clips(), (), status, note)

    def finish(self) -> None:
        """All wanted frames are there."""
        columns = [
            [self.frames[number][crop] for number in view]
            for view in self.indices
            for crop in range(self.plan.crops)
        ]
        self.fed = Fed(Clips(columns), self.indices, "ok", "")


def feed(video: Video, plans: Sequence[Plan]) -> list[Fed]:
    """The inputs of each plan; what one plan gets does not depend on the others.

    Decodes once. Where the frames up to the last that a plan wants are not at the times that the
    packets promised, that plan is made anew from the times of decoding, and decoding done twice.
    """
    if video.path is None:
        return [Fed(Clips(), (), "missing", "There is no file of this video.") for _ in plans]
    try:
        jobs, times = _pass(video, plans, timeline(video.path, video.frames_fps))
        late = [n for n, job in enumerate(jobs) if job.fed is None]
        if late:
            again, _ = _pass(video, [plans[n] for n in late], times)
            for n, job in zip(late, again, strict=True):
                if job.fed is None:
                    job.give_up("decode_error", "It decodes to other frames each time.")
                jobs[n] = job
    except (ValueError, OSError) as error:  # VideoError is a ValueError
        return [Fed(Clips(), (), "decode_error", _reason(video, error)) for _ in plans]
    return [job.fed for job in jobs]


def _pass(
    video: Video, plans: Sequence[Plan], line: Timeline
) -> tuple[list[_Job], Timeline | None]:
    """Decodes for all plans, up to the last frame wanted.

    Jobs stay undecided where the frames are not those of the line; then what was decoded, to the
    end, makes the timeline that is returned.
    """
    jobs = [_job(plan, line, video) for plan in plans]
    waiting, times, as_promised = [job for job in jobs if job.fed is None], [], True
    if not waiting:
        return jobs, None
    with opened(video.path, video.frames_fps) as reader:
        for index, (time, frame) in enumerate(reader.decode()):
            times.append(time)
            if as_promised and not _promised(line, index, time, reader.origin):
                as_promised = False
                waiting = _undamaged(waiting, reader)
            if as_promised:
                _show(waiting, index, frame, reader, video)
                waiting = [job for job in waiting if job.fed is None]
            if not waiting:
                return jobs, None
        if as_promised:  # fewer frames came than were promised
            waiting = _undamaged(waiting, reader)
        return jobs, timeline_of(reader, times)


def _job(plan: Plan, line: Timeline, video: Video) -> _Job:
    """The plan for a video of this timeline, decided where no decoding is needed for that."""
    job = _Job(plan)
    try:
        indices = plan.indices(line)
    except VideoError as error:
        job.give_up("decode_error", _reason(video, error))
        return job
    if line.note and (plan.needs_end or indices is None):
        job.give_up("partial", line.note)
    elif indices is None:
        job.give_up("too_short", describe(plan, line))
    return job if job.fed else _Job(plan, indices)


def _promised(line: Timeline, index: int, time: float, origin: float) -> bool:
    return index < len(line.times) and (time, origin) == (line.times[index], line.origin)


def _undamaged(waiting: list[_Job], reader: Reader | FolderReader) -> list[_Job]:
    """Other frames than promised: by damage, which is final, or by a wrong promise."""
    if reader.status != "partial":
        return waiting
    for job in waiting:
        job.give_up("partial", reader.note)
    return []


def _show(
    waiting: Sequence[_Job], index: int, frame: object, reader: Reader | FolderReader, video: Video
) -> None:
    """Gives a frame to the jobs that want it, and decides those for which it is the last."""
    picture, inputs = None, {}  # of this frame, by transform
    for job in waiting:
        if index not in job.wanted:
            continue
        try:
            picture = reader.rgb(frame) if picture is None else picture
            for transform in job.plan.transforms:
                if transform not in inputs:
                    inputs[transform] = transform.frame(picture)
        except (ValueError, OSError) as error:
            job.give_up("decode_error", _reason(video, error))
            continue
        job.frames[index] = tuple(inputs[transform] for transform in job.plan.transforms)
        if index == job.last and reader.status == "partial":
            job.give_up("partial", reader.note)
        elif index == job.last:
            job.finish()


def _reason(video: Video, error: Exception) -> str:
    """The error's message without the folders of this machine."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text.removeprefix(f"{video.path}: ").replace(f"{video.path.parent}/", "")

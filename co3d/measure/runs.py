"""Networks over the videos of a data set, in runs that can be stopped, resumed and audited.

Each video is decoded once, for all readings. What they give is stored per video as it comes, and a
video that gives nothing has a status that says why; it is never replaced.
"""

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from .. import paths
from ..data.dataset import Dataset, Video
from ..data.sampling import timeline
from ..progress import bar
from .decoding import Decoded, decode
from .plans import Plan, describe
from .store import Store
from .workers import MEMORY, SECONDS, Failure, in_processes

STATUSES = ("ok", "partial", "decode_error", "missing", "too_short", "timeout", "nan")
NOTES = 10  # of videos that gave nothing, on the screen


class Planned(Protocol):
    """What can be run: its plan, and all that decides its predictions beside the data."""

    plan: Plan

    def header(self) -> dict: ...


@dataclass(frozen=True)
class Run:
    """What became of every planned video, by id, and the file that says so."""

    records: Mapping[str, Mapping[str, Any]]
    file: Path

    @property
    def statuses(self) -> Counter:
        """How many planned videos ended how."""
        return Counter(record["status"] for record in self.records.values())

    @property
    def notes(self) -> dict[str, str]:
        """Why a video gave nothing, by id."""
        return {v: record["note"] for v, record in self.records.items() if "note" in record}


@dataclass
class Times:
    """Where the time went: seconds of decoding (all processes added) and of the networks."""

    videos: int = 0
    decode_s: float = 0.0
    model_s: float = 0.0


def run(
    readings: Sequence[Planned],
    data: Dataset,
    predict: Callable[[Sequence[Any], Decoded], list[dict]],
    *,
    limit: int = 0,
    folder: Path | None = None,
    workers: int = 1,
    seconds: float = SECONDS,
    memory: int = MEMORY,
    progress: bool = True,
) -> tuple[list[Run], Times]:
    """Runs every reading on every video; one that was stopped goes on where it was.

    Args:
        readings: which networks are fed what.
        data: planned videos, missing ones included.
        predict: a record per reading, from the readings that lack a video, and the video.
        limit: what `data` was cut down to; 0 is all. Part of the run's key.
        folder: of all predictions (default: among the runs).
        workers: processes that decode.
        seconds, memory: that decoding one video may take, see `in_processes`.
        progress: whether to show a bar.

    Returns:
        A run per reading, in their order, and where the time went.

    Raises:
        ValueError: if another process is at work on the same run, or ids come twice.
        OSError: if the disk is full; the run can be continued.
    """
    folder = Path(folder or paths.logs_path() / "predictions") / f"{data.name}-{data.split}"
    bounds = {"seconds": seconds, "memory": memory}
    common = {
        "dataset": {"name": data.name, "split": data.split, "limit": limit, "plan": _digest(data)},
        "bounds": bounds,
    }
    sizes = {video.id: _size(video) for video in data.videos}
    if len(sizes) < len(data.videos):
        raise ValueError(f"{data.name} plans some videos twice: expected ids of their own")
    with ExitStack() as stack:
        stores = [
            stack.enter_context(Store(folder, {**reading.header(), **common}, sizes))
            for reading in readings
        ]
        times = Times()
        for video, waiting, decoded in _decoded(stores, readings, data, workers, bounds, progress):
            times.videos += 1
            times.decode_s += decoded.seconds
            started = time.perf_counter()
            records = predict([readings[n] for n in waiting], decoded)
            times.model_s += time.perf_counter() - started
            for n, record in zip(waiting, records, strict=True):
                stores[n].add(video.id, record)
        return [Run(store.records, store.finish()) for store in stores], times


def _decoded(
    stores: Sequence[Store],
    readings: Sequence[Planned],
    data: Dataset,
    workers: int,
    bounds: dict,
    progress: bool,
) -> Iterator[tuple[Video, list[int], Decoded]]:
    """Each video that a store lacks, the numbers of these stores, and what their plans want."""
    lacking = {
        video: [n for n, store in enumerate(stores) if video.id not in store.records]
        for video in data.videos
    }
    todo = [video for video in data.videos if lacking[video]]
    jobs = [
        (video, tuple(dict.fromkeys(readings[n].plan for n in lacking[video])))
        for video in todo
        if video.path
    ]
    outcomes = in_processes(decode, jobs, count=workers, **bounds)
    for video in bar(todo, f"{data.name} {data.split}", shown=progress):
        outcome = next(outcomes) if video.path else Failure("missing", "")
        if isinstance(outcome, Failure):
            outcome = Decoded.failed([readings[n].plan for n in lacking[video]], *outcome)
        yield video, lacking[video], outcome


def _digest(data: Dataset) -> str:
    """The start of the sha256 of what is planned: ids and classes of all videos, and the labels."""
    plan = [list(data.labels), *([video.id, list(video.class_ids)] for video in data.videos)]
    return hashlib.sha256(json.dumps(plan).encode()).hexdigest()[:16]


def _size(video: Video) -> int | None:
    """Bytes of a video's file, the number of entries of a folder of frames; None if missing."""
    if video.path is None:
        return None
    if video.path.is_dir():
        return len(os.listdir(video.path))
    return video.path.stat().st_size


def account(runs: Sequence[Run], times: Times) -> Iterator[str]:
    """Lines that say how the videos ended, where the time went, and where the predictions are."""
    statuses = sum((run.statuses for run in runs), Counter())
    counts = (f"{status} {statuses[status]}" for status in STATUSES if statuses[status])
    yield f"predictions by status: {', '.join(counts)}"
    notes = {video: note for run in runs for video, note in run.notes.items()}
    for video, note in list(notes.items())[:NOTES]:
        yield f"  {video}: {note}"
    if len(notes) > NOTES:
        yield f"  and {len(notes) - NOTES} more, see the files below"
    if times.videos:
        decode_ms, model_ms = (1000 * s / times.videos for s in (times.decode_s, times.model_s))
        yield (
            f"time per video: {decode_ms:.0f} ms to decode, {model_ms:.0f} ms in the networks "
            f"({times.videos} videos computed now)"
        )
    yield f"predictions: {runs[0].file.parent}"


def plan_lines(readings: Sequence[Planned], videos: Iterable[Video]) -> Iterator[str]:
    """Which frames of which video feed which model: lines of text.

    The timelines are read in this process, without the bounds of `run`.
    """
    for video in videos:
        if video.path is None:
            yield f"{video.id}: missing"
            continue
        try:
            line = timeline(video.path, video.frames_fps)
        except (ValueError, OSError) as error:
            yield f"{video.id}: {error}"
            continue
        yield f"{video.id}: {len(line.times)} frames, {line.fps:g} per second"
        for plan in dict.fromkeys(reading.plan for reading in readings):
            names = {r.model.spec.name: None for r in readings if r.plan == plan}
            frames = describe(plan, line).replace("\n", "\n    ")
            yield f"  {', '.join(names)}, {plan.protocol}, {plan.mode}: {frames}"

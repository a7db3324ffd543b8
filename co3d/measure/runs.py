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
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

from .. import paths
from ..data import remote
from ..data.dataset import Address, Dataset, Video
from ..data.sampling import timeline
from ..progress import bar
from .frames import Frames, decode
from .plans import describe
from .predict import predict
from .readings import Reading
from .store import Store
from .workers import MEMORY, SECONDS, Failure, Processes

STATUSES = ("ok", "partial", "decode_error", "missing", "too_short", "timeout", "nan")
NOTES = 10  # of videos that gave nothing, on the screen

Predict = Callable[[Sequence[Reading], Frames], list[dict]]


class Job(NamedTuple):
    """A video, and the numbers of the readings that lack it."""

    video: Video
    waiting: tuple[int, ...]


class Outcome(NamedTuple):
    """Records of a video, one for each reading that lacked it, and how long they took."""

    job: Job
    records: list[dict]
    decode_s: float = 0.0
    model_s: float = 0.0


class Local:
    """The engine that is this process, with `workers` processes that decode."""

    compute: Mapping[str, Any] = {}

    def __init__(self, workers: int = 1) -> None:
        self.workers = workers

    def outcomes(
        self, jobs: Sequence[Job], readings: Sequence[Reading], predict: Predict, bounds: dict
    ) -> Iterator[Outcome]:
        """The outcome of each job."""
        with Processes(self.workers, **bounds) as processes:
            yield from outcomes(jobs, readings, predict, processes)


def run(
    readings: Sequence[Reading],
    data: Dataset,
    *,
    limit: int = 0,
    folder: Path | None = None,
    workers: int = 1,
    engine: Any = None,
    predict: Predict = predict,
    seconds: float = SECONDS,
    memory: int = MEMORY,
    progress: bool = True,
) -> tuple[list[Store], Counter]:
    """Runs every reading on every video; one that was stopped goes on where it was.

    Args:
        readings: which networks are fed what.
        data: planned videos, missing ones included.
        limit: what `data` was cut down to; 0 is all. Part of the run's key.
        folder: of all predictions (default: among the runs).
        workers: processes that decode, where there is no other `engine` than this process.
        engine: where the work is done: `Local`, or a `cluster.Cluster`. Both leave the same bytes.
            Its `compute` replaces entries of the readings' headers.
        predict: a record per reading, from the readings that lack a video, and its frames.
        seconds, memory: that decoding one video may take, see `Processes`.
        progress: whether to show a bar.

    Returns:
        The records of each reading, in their order, and sums over the videos that were computed
        now: "videos", and seconds of decoding (all processes added) and of the networks.

    Raises:
        ValueError: if another process is at work on the same run, or ids come twice.
        OSError: if the disk is full; the run can be continued.
    """
    engine = engine or Local(workers)
    folder = Path(folder or paths.logs_path() / "predictions") / f"{data.name}-{data.split}"
    bounds = {"seconds": seconds, "memory": memory}
    planned = [list(data.labels), *([video.id, list(video.class_ids)] for video in data.videos)]
    digest = hashlib.sha256(json.dumps(planned).encode()).hexdigest()[:16]
    source = {"name": data.name, "split": data.split, "limit": limit, "plan": digest}
    sizes = {video.id: _size(video) for video in data.videos}
    if len(sizes) < len(data.videos):
        raise ValueError(f"{data.name} plans some videos twice: expected ids of their own")
    with ExitStack() as stack:
        stores = []
        for reading in readings:
            header = {**reading.header, "dataset": source, "bounds": bounds}
            header["compute"] = {**header["compute"], **engine.compute}
            stores.append(stack.enter_context(Store(folder, header, sizes)))
        jobs, times = [], Counter()
        for video in data.videos:
            lacking = [n for n, store in enumerate(stores) if video.id not in store.records]
            if lacking:
                jobs.append(Job(video, tuple(lacking)))
        results = stack.enter_context(closing(engine.outcomes(jobs, readings, predict, bounds)))
        for _ in bar(range(len(jobs)), f"{data.name} {data.split}", shown=progress):
            job, records, decode_s, model_s = next(results)
            times.update(videos=1, decode_s=decode_s, model_s=model_s)
            for n, record in zip(job.waiting, records, strict=True):
                stores[n].add(job.video.id, record)
        for store in stores:
            store.finish()
        return stores, times


def outcomes(
    jobs: Sequence[Job], readings: Sequence[Reading], predict: Predict, processes: Processes
) -> Iterator[Outcome]:
    """The outcome of each job in order, one video after the other; videos are decoded ahead."""
    plans = [list(dict.fromkeys(readings[n].plan for n in job.waiting)) for job in jobs]
    present = [(job.video, some) for job, some in zip(jobs, plans, strict=True) if job.video.path]
    decoded = iter(processes.results(decode, present))
    for job, some in zip(jobs, plans, strict=True):
        frames = next(decoded) if job.video.path else Failure("missing", "")
        if isinstance(frames, Failure):
            frames = Frames(dict.fromkeys(some, tuple(frames)))
        started = time.perf_counter()
        records = predict([readings[n] for n in job.waiting], frames)
        yield Outcome(job, records, frames.seconds, time.perf_counter() - started)


def _size(video: Video) -> int | None:
    """Bytes of a video's file, the number of entries of a folder of frames; None if missing."""
    if video.path is None:
        return None
    if isinstance(video.path, Address):
        return video.path.size
    return len(os.listdir(video.path)) if video.path.is_dir() else video.path.stat().st_size


def account(runs: Sequence[Store], times: Counter) -> Iterator[str]:
    """Lines that say how the videos ended, where the time went, and where the predictions are."""
    statuses = sum((run.statuses for run in runs), Counter())
    counts = (f"{status} {statuses[status]}" for status in STATUSES if statuses[status])
    yield f"predictions by status: {', '.join(counts)}"
    notes = {video: note for run in runs for video, note in run.notes.items()}
    for video, note in list(notes.items())[:NOTES]:
        yield f"  {video}: {note}"
    if len(notes) > NOTES:
        yield f"  and {len(notes) - NOTES} more, see the files below"
    if videos := times["videos"]:
        decode_ms, model_ms = (1000 * times[name] / videos for name in ("decode_s", "model_s"))
        yield (
            f"time per video: {decode_ms:.0f} ms to decode, {model_ms:.0f} ms in the networks "
            f"({videos} videos computed now)"
        )
    yield f"predictions: {runs[0].file.parent}"


def plan_lines(readings: Sequence[Reading], videos: Iterable[Video]) -> Iterator[str]:
    """Which frames of which video feed which model: lines of text.

    The timelines are read in this process, without the bounds of `run`.
    """
    for video in videos:
        if video.path is None:
            yield f"{video.id}: missing"
            continue
        try:
            with remote.local(video.path) as path:
                line = timeline(path, video.frames_fps)
        except (ValueError, OSError) as error:
            yield f"{video.id}: {error}"
            continue
        yield f"{video.id}: {len(line.times)} frames, {line.fps:g} per second"
        for plan in dict.fromkeys(reading.plan for reading in readings):
            names = {r.model.spec.name: None for r in readings if r.plan == plan}
            frames = describe(plan, line).replace("\n", "\n    ")
            yield f"  {', '.join(names)}, {plan.protocol}, {plan.mode}: {frames}"

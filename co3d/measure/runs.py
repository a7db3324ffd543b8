"""Networks over the videos of a data set, in runs that can be stopped, resumed and audited.

Each video is decoded once, for all readings. What they give is stored per video as it comes, and a
video that gives nothing has a status that says why; it is never replaced.
"""

import hashlib
import json
import os
import time
from collections import Counter, defaultdict
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


# Of a job: a record for each reading that lacked the video, and how long they took.
Outcome = tuple[Job, list[dict], Counter]


class Local:
    """The engine that is this process, with `workers` processes that decode."""

    compute: Mapping[str, Any] = {}

    def __init__(self, workers: int = 1) -> None:
        self.workers = workers

    def outcomes(
        self, jobs: Sequence[Job], readings: Sequence[Reading], predict: Predict
    ) -> Iterator[Outcome]:
        """The outcome of each job."""
        with Processes(self.workers) as processes:
            yield from outcomes(jobs, readings, predict, processes)


def run(
    readings: Sequence[Reading],
    data: Dataset,
    *,
    limit: int = 0,
    folder: Path | None = None,
    engine: Any = None,
    predict: Predict = predict,
    progress: bool = True,
) -> tuple[list[Store], Counter]:
    """Runs every reading on every video; one that was stopped goes on where it was.

    Args:
        readings: which networks are fed what.
        data: planned videos, missing ones included.
        limit: what `data` was cut down to; 0 is all. Part of the run's key.
        folder: of all predictions (default: among the runs).
        engine: where the work is done: `Local` (the default), or a `cluster.Cluster`. Both leave
            the same bytes. Its `compute` replaces entries of the readings' headers.
        predict: a record per reading, from the readings that lack a video, and its frames.
        progress: whether to show a bar.

    Returns:
        The records of each reading, in their order, and sums over the videos that were computed
        now: "videos", and seconds of decoding (all processes added) and of the networks.

    Raises:
        ValueError: if another process is at work on the same run, or ids come twice.
        OSError: if the disk is full; the run can be continued.
    """
    engine = engine or Local()
    folder = Path(folder or paths.logs_path() / "predictions") / f"{data.name}-{data.split}"
    bounds = {"seconds": SECONDS, "memory": MEMORY}
    planned = [list(data.labels), *([video.id, list(video.class_ids)] for video in data.videos)]
    digest = hashlib.sha256(json.dumps(planned).encode()).hexdigest()[:16]
    source = {"name": data.name, "split": data.split, "limit": limit, "plan": digest}
    sizes = {video.id: _size(video.path) for video in data.videos}
    if len(sizes) < len(data.videos):
        raise ValueError(f"{data.name} plans some videos twice: expected ids of their own")
    times = Counter()
    with ExitStack() as stack:
        stores = []
        for reading in readings:
            header = {**reading.header, "dataset": source, "bounds": bounds}
            header["compute"] = {**header["compute"], **engine.compute}
            stores.append(stack.enter_context(Store(folder, header, sizes)))
        numbers = range(len(stores))
        jobs = [
            Job(video, tuple(n for n in numbers if video.id not in stores[n].records))
            for video in data.videos
        ]
        jobs = [job for job in jobs if job.waiting]
        results = stack.enter_context(closing(engine.outcomes(jobs, readings, predict)))
        for _ in bar(range(len(jobs)), f"{data.name} {data.split}", shown=progress):
            job, records, spent = next(results)
            times += spent
            for n, record in zip(job.waiting, records, strict=True):
                stores[n].add(job.video.id, record)
        for store in stores:
            store.finish()
    return stores, times


def outcomes(
    jobs: Sequence[Job], readings: Sequence[Reading], predict: Predict, processes: Processes
) -> Iterator[Outcome]:
    """The outcome of each job in order, one video after the other; videos are decoded ahead."""
    plans = [tuple(dict.fromkeys(readings[n].plan for n in job.waiting)) for job in jobs]
    present = [(job.video, some) for job, some in zip(jobs, plans, strict=True) if job.video.path]
    decoded = iter(processes.results(decode, present))
    for job, some in zip(jobs, plans, strict=True):
        frames = next(decoded) if job.video.path else Failure("missing", "")
        if isinstance(frames, Failure):
            frames = Frames(dict.fromkeys(some, tuple(frames)))
        started = time.perf_counter()
        records = predict([readings[n] for n in job.waiting], frames)
        model_s = time.perf_counter() - started
        yield job, records, Counter(videos=1, decode_s=frames.seconds, model_s=model_s)


def _size(path: Path | Address | None) -> int | None:
    """Bytes of a video's file, the number of entries of a folder of frames; None if missing."""
    if path is None or isinstance(path, Address):
        return path and path.size
    return len(os.listdir(path)) if path.is_dir() else path.stat().st_size


def account(runs: Sequence[Store], times: Counter) -> Iterator[str]:
    """Lines that say how the videos ended, where the time went, and where the predictions are."""
    statuses = sum((run.statuses for run in runs), Counter())
    counts = (f"{status} {statuses[status]}" for status in STATUSES if statuses[status])
    yield f"predictions by status: {', '.join(counts)}"
    notes = {video: note for run in runs for video, note in run.notes.items()}
    yield from [f"  {video}: {note}" for video, note in notes.items()][:NOTES]
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
    plans = defaultdict(dict)  # names of models by plan
    for reading in readings:
        plans[reading.plan][reading.model.spec.name] = None
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
        for plan, names in plans.items():
            frames = describe(plan, line).replace("\n", "\n    ")
            yield f"  {', '.join(names)}, {plan.protocol}, {plan.mode}: {frames}"

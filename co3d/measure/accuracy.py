"""Accuracy over the videos of a data set, that can be stopped, resumed and audited.

Each video is decoded once, for all readings. What they predict is stored per video as it comes; a
video that cannot be scored has a status that says why, is left out of the denominator and never
replaced.
"""

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import paths
from ..data.dataset import Dataset, Video
from ..data.sampling import timeline
from ..progress import bar
from . import metrics
from .decoding import Decoded, decode
from .plans import describe
from .readings import Reading, predict
from .store import Store
from .workers import MEMORY, SECONDS, Failure, in_processes

STATUSES = ("ok", "partial", "decode_error", "missing", "too_short", "timeout", "nan")
NOTES = 10  # of videos that were not scored, on the screen


@dataclass(frozen=True)
class Result:
    """What a reading predicted.

    Attributes:
        row: of results/accuracy.csv.
        scores: float32 (n_scored, classes), in the order of `videos`.
        videos: that were scored.
        statuses: how many planned videos ended how.
        notes: why a video was not scored, by id.
        file: where the predictions are.
    """

    reading: Reading
    row: dict
    scores: np.ndarray
    videos: tuple[Video, ...]
    statuses: Counter
    notes: dict[str, str]
    file: Path


@dataclass
class Times:
    """Where the time went: seconds of decoding (all processes added) and of the networks."""

    videos: int = 0
    decode_s: float = 0.0
    model_s: float = 0.0


def evaluate(
    readings: Sequence[Reading],
    data: Dataset,
    *,
    limit: int = 0,
    folder: Path | None = None,
    workers: int = 1,
    seconds: float = SECONDS,
    memory: int = MEMORY,
    progress: bool = True,
) -> tuple[list[Result], Times]:
    """Scores every reading on every video; a run that was stopped goes on where it was.

    Args:
        readings: which networks predict how.
        data: planned videos, missing ones included.
        limit: what `data` was cut down to; 0 is all. Part of the run's key.
        folder: of the predictions (default: among the runs).
        workers: processes that decode.
        seconds, memory: that decoding one video may take, see `in_processes`.
        progress: whether to show a bar.

    Returns:
        A result per reading, in their order, and where the time went.

    Raises:
        ValueError: for videos without a label, or if another process is at work on the same run.
        OSError: if the disk is full; the run can be continued.
    """
    if not data.multilabel and any(video.class_id is None for video in data.videos):
        raise ValueError(
            f"expected labelled videos, the {data.split} split of {data.name} has none"
        )
    folder = Path(folder or paths.logs_path() / "predictions") / f"{data.name}-{data.split}"
    planned = {"name": data.name, "split": data.split, "limit": limit, "plan": _digest(data)}
    sizes = {video.id: _size(video) for video in data.videos}
    if len(sizes) < len(data.videos):
        raise ValueError(f"{data.name} plans some videos twice: expected ids of their own")
    bounds = {"seconds": seconds, "memory": memory}
    with ExitStack() as stack:
        stores = [
            stack.enter_context(Store(folder, reading.header(planned), sizes))
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
        files = [store.finish() for store in stores]
        pairs = zip(readings, stores, files, strict=True)
        return [_result(r, data, limit, store.records, file) for r, store, file in pairs], times


def _decoded(
    stores: Sequence[Store],
    readings: Sequence[Reading],
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


def _result(
    reading: Reading, data: Dataset, limit: int, records: dict[str, dict], file: Path
) -> Result:
    """The row, and what it is made of."""
    scored = [video for video in data.videos if records[video.id]["status"] == "ok"]
    scores = np.array([records[video.id]["scores"] for video in scored], np.float32)
    plan = {"dataset": data.name, "split": data.split, "limit": limit}
    plan |= {
        "n_expected": len(data.videos),
        "n_found": sum(v.path is not None for v in data.videos),
    }
    row = {**reading.keys, **plan, "n_scored": len(scored), "macs_per_prediction": reading.macs}
    row |= dict.fromkeys(("top1", "top5", "ci_low", "ci_high", "map_official", "map_common"))
    if scored:
        row |= _several(scores, scored, data) if data.multilabel else _single(scores, scored)
    return Result(
        *(reading, row, scores, tuple(scored)),
        Counter(record["status"] for record in records.values()),
        {video: record["note"] for video, record in records.items() if "note" in record},
        file,
    )


def failures_as_wrong(row: Mapping) -> float | None:
    """Top-1 in per cent if every planned video without a prediction counts as wrong."""
    return None if row["top1"] is None else row["top1"] * row["n_scored"] / row["n_expected"]


def _single(scores: np.ndarray, videos: Sequence[Video]) -> dict:
    n, labels = len(videos), [video.class_id for video in videos]
    right = metrics.top_k(scores, labels, 1)
    low, high = metrics.wilson(right, n)
    top5 = 100 * metrics.top_k(scores, labels, 5) / n
    return {"top1": 100 * right / n, "top5": top5, "ci_low": low, "ci_high": high}


def _several(scores: np.ndarray, scored: Sequence[Video], data: Dataset) -> dict:
    """Of videos with several classes; those without a prediction rank last, or are left out."""
    every = np.full((len(data.videos), len(data.labels)), -np.inf)
    rows = {video.id: row for row, video in enumerate(data.videos)}
    every[[rows[video.id] for video in scored]] = scores
    targets = targets_of(data.videos, len(data.labels))
    low, high = metrics.bootstrap(metrics.map_common, every, targets)
    return {
        "map_official": metrics.map_official(every, targets),
        "map_common": metrics.map_common(every, targets),
        "ci_low": low,
        "ci_high": high,
    }


def targets_of(videos: Sequence[Video], classes: int) -> np.ndarray:
    """Whether a video has a class, (N, classes)."""
    targets = np.zeros((len(videos), classes), bool)
    for row, video in zip(targets, videos, strict=True):
        row[list(video.class_ids)] = True
    return targets


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


def account(results: Sequence[Result], times: Times) -> Iterator[str]:
    """Lines that say how the videos ended, where the time went, and where the predictions are."""
    statuses = sum((result.statuses for result in results), Counter())
    counts = (f"{status} {statuses[status]}" for status in STATUSES if statuses[status])
    yield f"predictions by status: {', '.join(counts)}"
    notes = {video: note for result in results for video, note in result.notes.items()}
    for video, note in list(notes.items())[:NOTES]:
        yield f"  {video}: {note}"
    if len(notes) > NOTES:
        yield f"  and {len(notes) - NOTES} more, see the files below"
    if times.videos:
        decode, model = (1000 * s / times.videos for s in (times.decode_s, times.model_s))
        yield (
            f"time per video: {decode:.0f} ms to decode, {model:.0f} ms in the networks "
            f"({times.videos} videos computed now)"
        )
    yield f"predictions: {results[0].file.parent}"


def plan_lines(readings: Sequence[Reading], videos: Iterable[Video]) -> Iterator[str]:
    """Which frames of which video feed which model: lines of text."""
    for video in videos:
        if video.path is None:
            yield f"{video.id}: missing"
            continue
        line = timeline(video.path, video.frames_fps)
        yield f"{video.id}: {len(line.times)} frames, {line.fps:g} per second"
        for plan in dict.fromkeys(reading.plan for reading in readings):
            names = {r.keys["model"]: None for r in readings if r.plan == plan}
            yield f"  {', '.join(names)}, {plan.protocol}, {plan.mode}: {describe(plan, line)}"

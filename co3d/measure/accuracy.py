"""Accuracy over the videos of a data set, that can be stopped, resumed and audited.

Each video is decoded once, for all readings. What they predict is stored per video as it comes; a
video that cannot be scored has a status that says why, is left out of the denominator and never
replaced.
"""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import paths
from ..data.dataset import Dataset, Video
from ..progress import bar
from . import metrics
from .decoding import decode
from .readings import Reading, predict
from .store import Store
from .workers import MEMORY, SECONDS, Failure, in_processes

STATUSES = ("ok", "partial", "decode_error", "missing", "too_short", "timeout", "nan")


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
) -> list[Result]:
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
        A result per reading, in their order.

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
            times.add(decoded.seconds)
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
        row |= _multilabel(scores, scored, data) if data.multilabel else _single(scores, scored)
    return Result(
        *(reading, row, scores, tuple(scored)),
        Counter(record["status"] for record in records.values()),
        {video: record["note"] for video, record in records.items() if "note" in record},
        file,
    )

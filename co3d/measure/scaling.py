"""How a run grows: videos per second against actors, and the most that its driver can take in."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..data.dataset import Dataset, Video
from . import runs
from .cluster import Cluster, engine
from .decoding import Decoded
from .readings import Reading, predict

KINETICS400 = {"val": 19_881, "train": 241_255}  # videos that were published
GPUS = (1, 8, 64, 512)
ASSUMED = 4.0  # videos per second of a GPU: none was measured


def rates(readings: Sequence[Reading], data: Dataset, actors: Sequence[int]) -> Iterator[dict]:
    """Rows of the table `scaling`: each number of actors over the same videos, on Ray started here.

    Time is taken from when every actor has given something. The first row is of this process alone,
    its start included.
    """
    for count in (0, *actors):
        with engine("local") if not count else Cluster(device="cpu", actors=count) as found:
            yield _row("videos", count, len(data.videos), _seconds(readings, data, predict, found))


def ceiling(videos: int = 4000, actors: int = 2) -> dict:
    """The row of a network that costs nothing: what Ray and the driver can do at most."""
    data = Dataset("made", "test", ("a",), tuple(Video(f"{n:08d}", "a", 0, None, (0,))
                   for n in range(videos)))  # fmt: skip
    with Cluster(device="cpu", actors=actors) as found:
        seconds = _seconds([Free()], data, free, found)
    return _row("driver", actors, videos, seconds)


class Free:
    """A reading of no network; its records are as long as those of 400 classes."""

    plan, model, trunk = None, None, None

    def header(self) -> dict:
        """As of `runs.Planned`."""
        return {"compute": {}}


def free(readings: Sequence[Any], video: Decoded) -> list[dict]:
    """Records at no cost."""
    return [{"status": "ok", "scores": [0.123456789] * 400} for _ in readings]


def expected(rows: Sequence[dict], assumed: float = ASSUMED) -> list[dict]:
    """Hours for Kinetics-400 on so many GPUs, by rows of `rates` and `ceiling`.

    Args:
        assumed: videos per second of one GPU, for one reading.

    Returns:
        split, gpus, hours, and what holds the run back: "gpus", or "driver" where these would
        deliver more than it takes in.
    """
    most = max(row["videos_per_s"] for row in rows if row["work"] == "driver")
    found = []
    for split, videos in KINETICS400.items():
        for gpus in GPUS:
            rate = min(gpus * assumed, most)
            limit = "gpus" if gpus * assumed < most else "driver"
            hours = videos / rate / 3600
            found.append({"split": split, "gpus": gpus, "hours": hours, "held by": limit})
    return found


def _seconds(readings: Sequence, data: Dataset, function: runs.Predict, found: Any) -> float:
    """Of a run past the start of its actors: from the first outcome to the last."""
    timed = _Timed(found)
    with tempfile.TemporaryDirectory() as folder:
        runs.run(readings, data, function, folder=Path(folder), engine=timed, progress=False)
    return timed.seconds * len(data.videos) / max(1, len(data.videos) - timed.before)


class _Timed:
    """An engine whose time is taken from when all actors have given something."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.compute = inner, inner.compute
        self.before = self.seconds = 0

    def outcomes(self, *arguments: Any) -> Iterator[runs.Outcome]:
        count = getattr(self.inner, "actors", 0) or 0
        wanted = count * getattr(self.inner, "videos", 0) * 2
        started = time.perf_counter()
        for number, outcome in enumerate(self.inner.outcomes(*arguments), start=1):
            now = time.perf_counter()
            if number == wanted:
                self.before, started = number, now
            self.seconds = now - started
            yield outcome


def _row(work: str, actors: int, videos: int, seconds: float) -> dict:
    return {"work": work, "actors": actors, "videos": videos, "videos_per_s": videos / seconds}

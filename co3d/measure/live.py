"""A continual net on one video, frame by frame, as it would run on a camera."""

import csv
import os
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile
from pathlib import Path
from types import TracebackType

import numpy as np
from tqdm import tqdm

from ..data.sampling import resample
from ..data.transforms import Transform
from ..data.video import Reader
from ..nn import Stream, StreamNet

TOP = 5
KEPT = 10_000  # frames of which the summary takes the latency


@dataclass(frozen=True)
class Step:
    """What became of one frame: the `number`-th that was fed (from 1), at `time_s` of the video.

    `top` holds (label, probability) of the likeliest classes, likeliest first, and is empty while
    the stream has no output. `latency_ms` runs from the decoded picture to the prediction.
    """

    number: int
    time_s: float
    top: tuple[tuple[str, float], ...]
    latency_ms: float


def run(
    model: StreamNet,
    transform: Transform,
    labels: Sequence[str],
    frames: Iterable[tuple[float, np.ndarray]],
    limit_s: float | None = None,
) -> Iterator[Step]:
    """Feeds pictures (time in seconds, uint8 (H,W,3)) one at a time, up to `limit_s` of video."""
    stream, device = Stream(model), next(model.parameters()).device
    if limit_s is not None:
        frames = takewhile(lambda frame: frame[0] < limit_s, frames)
    for number, (time_s, picture) in enumerate(frames, 1):
        started = time.perf_counter()
        logits = stream(transform.frame(picture)[None].to(device))
        top = () if logits is None else _top(logits[0].softmax(0).tolist(), labels)
        yield Step(number, time_s, top, 1000 * (time.perf_counter() - started))


def _top(probabilities: list[float], labels: Sequence[str]) -> tuple[tuple[str, float], ...]:
    best = sorted(zip(labels, probabilities, strict=True), key=lambda pair: -pair[1])
    return tuple(best[:TOP])


def watch(
    reader: Reader,
    model: StreamNet,
    transform: Transform,
    labels: Sequence[str],
    *,
    fps: float,
    limit_s: float | None = None,
    table: Path | None = None,
) -> None:
    """Runs `model` over an open video fed at `fps` and prints the likeliest classes per second.

    Raises:
        ValueError: if the video ends before the first prediction; VideoError if nothing decodes.
    """
    name, span, first = model.spec.name, model.receptive_field, model.warmup + 1
    print(f"{name}: warm-up {model.warmup} frames ({model.warmup / fps:.1f} s) before the first "
          f"prediction, {span} ({span / fps:.1f} s) until all that it sees is video")  # fmt: skip
    # A camera has no end, so what is kept has one.
    steps, started, interrupted = deque(maxlen=KEPT), time.perf_counter(), False
    with Table(table) as rows:
        frames = run(model, transform, labels, resample(reader, fps), limit_s)
        bar = tqdm(frames, unit=" frames", disable=not sys.stderr.isatty(), leave=False)
        try:
            for second, group in groupby(bar, key=lambda step: int(step.time_s)):
                for step in group:
                    steps.append(step)
                    rows.add(step)
                bar.write(_line(second, step, first, span), file=sys.stdout)
        except KeyboardInterrupt:  # the usual end of a camera: what was seen is kept
            interrupted = True
        bar.close()
        if not any(step.top for step in steps) and not interrupted:
            raise ValueError(
                f"{reader.source}: ends after {len(steps)} frames at {fps:g} per second, but the "
                f"first prediction of {name} comes with frame {first} ({first / fps:.1f} s). "
                f"{reader.note}".rstrip()
            )
    _summarise(steps, time.perf_counter() - started, reader, fps)
    if interrupted:
        raise KeyboardInterrupt


def _line(second: int, step: Step, first: int, span: int) -> str:
    """The last prediction within a second of video."""
    if not step.top:
        return f"{second:5d} s  warming up: frame {step.number} of {first}"
    shown = "  ".join(f"{label} {100 * p:.0f} %" for label, p in step.top)
    return f"{second:5d} s  {shown}" + ("  (start-up)" if step.number < span else "")


def _summarise(steps: Sequence[Step], seconds: float, reader: Reader, fps: float) -> None:
    if not steps:
        return
    times = [step.latency_ms for step in steps if step.top] or [s.latency_ms for s in steps]
    median, p95 = np.percentile(times, [50, 95])
    total = steps[-1].number
    rate = total / seconds
    print(f"{total} frames in {seconds:.1f} s: {rate:.0f} frames per second "
          f"({rate / fps:.1f} x real time)")  # fmt: skip
    print(f"latency from picture to prediction: median {median:.1f} ms, p95 {p95:.1f} ms")
    if reader.note:
        print(f"{reader.source}: {reader.note}", file=sys.stderr)


class Table:
    """A CSV file with one row per prediction, under its name once complete; None writes nothing."""

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def __enter__(self) -> "Table":
        if self.path is None:
            return self
        if self.path.is_dir() or not self.path.parent.is_dir():
            raise ValueError(f"cannot write {self.path}: name a file in an existing folder")
        self._file = self._part.open("w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file, lineterminator="\n")
        ranks = range(1, TOP + 1)
        header = ["time_s", "frame", *(f"label{n}" for n in ranks)]
        self._writer.writerow([*header, *(f"probability{n}" for n in ranks), "latency_ms"])
        return self

    @property
    def _part(self) -> Path:
        return self.path.with_name(self.path.name + ".part")

    def add(self, step: Step) -> None:
        """One row, if the step has a prediction; blank where there are fewer classes."""
        if self.path is None or not step.top:
            return
        pairs = [*step.top, *[("", "")] * (TOP - len(step.top))]
        labels, probabilities = zip(*pairs, strict=True)
        time_s, latency = round(step.time_s, 6), round(step.latency_ms, 3)
        self._writer.writerow([time_s, step.number, *labels, *probabilities, latency])

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        if self.path is None:
            return
        self._file.close()
        if kind is None:
            os.replace(self._part, self.path)
        else:
            self._part.unlink()

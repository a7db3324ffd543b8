"""Time per prediction at batch 1, throughput, and the memory of a stream's state.

Weights are random: neither time nor memory depends on them. All models are built first and then
take turns, so that a machine that slows down or warms up does so for all of them.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..nn import ClipNet, StreamNet, state_bytes
from ..progress import bar
from ..zoo import create, spec

IMPLEMENTATION = "co3d eager"
TURNS = 10  # of every model, each of a tenth of its measurements
TRIALS = 3
GEMM_CPU, GEMM_OTHERS = 2048, 8192  # rows of the square matrices behind the peak

Clock = Callable[[], float]  # seconds


@dataclass(frozen=True)
class Subject:
    """What is timed: `period` calls of `work` make one prediction, which the last of them gives.

    A clip net has a period of 1, a continual net that of its temporal strides. `state_mb` is None
    without a state.
    """

    model: str
    mode: str
    window: int | None
    period: int
    work: Callable[[], Tensor | None]
    state_mb: float | None = None
    implementation: str = IMPLEMENTATION


@dataclass(frozen=True)
class Speed:
    """The measurements of one subject, in seconds.

    Attributes:
        latencies: of the call that gives the prediction: from clip or frame to logits.
        periods: of all calls that a prediction needs. At period 1 they are the latencies.
        peak: MACs per second of a matrix product in the same run.
    """

    subject: Subject
    latencies: tuple[float, ...]
    periods: tuple[float, ...]
    threads: int
    peak: float

    @property
    def ms_per_frame(self) -> float | None:
        """Mean over a period of its median; None for a clip net."""
        if self.subject.mode == "clip":
            return None
        return 1000 * float(np.median(self.periods)) / self.subject.period

    def row(self) -> dict[str, Any]:
        """A row of the table `benchmark`.

        `throughput_per_s` is one over the median of the periods: predictions per second of one
        stream or of clips one after the other. At period 1 it is 1000 / latency_ms_median.
        `latency_ms_std` is that of these measurements (divided by their number), and peak memory
        is blank.
        """
        ms = 1000 * np.array(self.latencies)
        return {
            "model": self.subject.model,
            "implementation": self.subject.implementation,
            "mode": self.subject.mode,
            "window": self.subject.window,
            "batch": 1,
            "threads": self.threads,
            "latency_ms_median": float(np.median(ms)),
            "latency_ms_p95": float(np.percentile(ms, 95)),
            "latency_ms_std": float(ms.std()),
            "throughput_per_s": 1 / float(np.median(self.periods)),
            "peak_mem_mb": None,
            "state_mb": self.subject.state_mb,
            "gemm_peak_gmacs": self.peak / 1e9,
        }


@torch.inference_mode()
def measure(
    names: Sequence[str],
    *,
    window: int | None = None,
    repeats: int = 100,
    threads: int | None = None,
    device: str = "cpu",
    progress: bool = True,
) -> list[Speed]:
    """Times one prediction of each model `repeats` times, all models in turns.

    Args:
        names: of models; of each continual one the step past its warm-up is timed.
        window: of the continual ones (default: their own).
        threads: of torch (default: as it is).
        device: that torch can use.
        progress: whether to show bars.

    Raises:
        ValueError: for an unknown model, a window that does not fit, or numbers below 1.
    """
    if repeats < 1 or (threads is not None and threads < 1):
        raise ValueError(f"expected 1 or more repeats and threads, given {repeats} and {threads}")
    records = [spec(name) for name in dict.fromkeys(names)]
    clock = clock_of(device)
    with _threads(threads), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        subjects = []
        for record in bar(records, "warm-up", shown=progress):
            subjects.append(subject(record.name, window, device, clock))
        product = _product(device)
        times, peak = interleaved(subjects, product, repeats, clock, progress)
        used = torch.get_num_threads()
    return [
        Speed(one, *map(tuple, zip(*pairs, strict=True)), used, peak)
        for one, pairs in zip(subjects, times, strict=True)
    ]


def subject(name: str, window: int | None, device: str, clock: Clock) -> Subject:
    """A model of random weights, warm and ready to be timed."""
    record = spec(name)
    try:
        model = create(name, window if record.continual else None).to(device)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    size = record.image_size
    if not record.continual:
        clip = torch.randn(1, 3, record.frames, size, size, device=device)
        clip = _in_faster_layout(model, clip, clock)
        return Subject(name, "clip", None, 1, lambda: model(clip))
    steps = Steps(model, torch.randn(1, 3, size, size, device=device))
    megabytes = state_bytes(steps.state) / 1e6
    return Subject(name, "stream", model.window, model.stride, steps, megabytes)


class Steps:
    """Steps of a stream past its warm-up; the last of every period gives a prediction."""

    def __init__(self, model: StreamNet, frame: Tensor) -> None:
        self.model, self.frame, self.state = model, frame, None
        for _ in range(model.receptive_field):
            self()
        while self() is None:
            pass

    def __call__(self) -> Tensor | None:
        y, self.state = self.model.step(self.frame, self.state)
        return y


def interleaved(
    subjects: Sequence[Subject],
    product: Callable[[], int],
    repeats: int,
    clock: Clock,
    progress: bool = False,
) -> tuple[list[list[tuple[float, float]]], float]:
    """Measures in turns; a turn of a subject begins with a prediction that is not timed, which
    brings what it needs into the caches.

    Args:
        product: does a matrix product and returns its multiply-accumulates.

    Returns:
        For each subject (latency, period) of every repeat, and the best rate of the product.
    """
    turns = min(TURNS, repeats)
    times, peak = [[] for _ in subjects], 0.0
    for turn in bar(range(turns), "turns", shown=progress):
        count = repeats * (turn + 1) // turns - repeats * turn // turns
        for one, held in zip(subjects, times, strict=True):
            _timed(one, clock)
            held += [_timed(one, clock) for _ in range(count)]
        begun = clock()
        macs = product()
        peak = max(peak, macs / (clock() - begun))
    return times, peak


def _timed(one: Subject, clock: Clock) -> tuple[float, float]:
    """Seconds of the call that predicts, and of the whole period."""
    begun = clock()
    for _ in range(one.period - 1):
        one.work()
    last = clock() if one.period > 1 else begun
    one.work()
    done = clock()
    return done - last, done - begun


def _in_faster_layout(model: ClipNet, clip: Tensor, clock: Clock) -> Tensor:
    """The clip in whichever of torch's two layouts this model is faster on, here and now."""

    def seconds(layout: Tensor) -> float:
        one = Subject("", "clip", None, 1, lambda: model(layout))
        return min([_timed(one, clock) for _ in range(1 + TRIALS)][1:])[0]

    return min((clip, clip.to(memory_format=torch.channels_last_3d)), key=seconds)


def _product(device: str) -> Callable[[], int]:
    """A product of two square matrices, float32."""
    n = GEMM_CPU if torch.device(device).type == "cpu" else GEMM_OTHERS
    a, b = torch.randn(2, n, n, device=device)
    out = a @ b

    def multiply() -> int:
        torch.mm(a, b, out=out)
        return n**3

    return multiply


def clock_of(device: str) -> Clock:
    """The time when a device has done what it was given."""
    if torch.device(device).type == "cpu":
        return time.perf_counter

    def clock() -> float:
        torch.accelerator.synchronize()
        return time.perf_counter()

    return clock


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)

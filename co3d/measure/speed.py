"""Time per prediction at batch 1, throughput in batches, and what the machine could do at best.

All models are built first and then take turns, so that a machine that slows down or warms up does
so for all of them, and for the matrix product and the copy that are measured beside them.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..progress import bar
from ..zoo import spec
from . import rungs
from .memory import largest_batch
from .subjects import LeftOut, Subject, subjects

TURNS = 10  # of every model, each of a tenth of its measurements
LEAST = 3  # measurements, however long they take
REST = 0.06  # seconds; threads of ONNX Runtime were seen to spin for 45 ms after a step, torch's 4
GEMM_CPU, GEMM_OTHERS = 2048, 8192  # rows of the square matrices behind the peak
COPIED = 64 * 2**20  # bytes: more than caches hold

Clock = Callable[[], float]  # seconds
Gauge = Callable[[], int]  # does some work and returns how much


@dataclass(frozen=True)
class Speed:
    """The measurements of one subject, in seconds.

    Attributes:
        latencies: of the call that gives the prediction: from clip or frame to logits.
        periods: of all calls that a prediction needs. At period 1 they are the latencies.
        peak: MACs per second of a matrix product of this precision in the same run.
        copy: bytes per second of a copy, read and written, in the same run.
    """

    subject: Subject
    latencies: tuple[float, ...]
    periods: tuple[float, ...]
    threads: int
    peak: float
    copy: float | None = None

    @property
    def ms_per_frame(self) -> float | None:
        """Mean over a period of its median; None for a clip net."""
        if self.subject.mode == "clip":
            return None
        return 1000 * float(np.median(self.periods)) / self.subject.period

    def row(self) -> dict[str, Any]:
        """A row of the table `benchmark`.

        `throughput_per_s` is the batch over the median of the periods: predictions per second of
        as many streams, or of clips one batch after the other. At batch and period 1 it is
        1000 / latency_ms_median. `latency_ms_std` is that of these measurements (divided by their
        number). What cannot be seen is None.
        """
        one, ms = self.subject, 1000 * np.array(self.latencies)
        seen = one.footprint
        return {
            **self._key(),
            "latency_ms_median": float(np.median(ms)),
            "latency_ms_p95": float(np.percentile(ms, 95)),
            "latency_ms_std": float(ms.std()),
            "throughput_per_s": one.batch / float(np.median(self.periods)),
            "peak_mem_mb": _mega(seen.peak),
            "state_mb": one.state_mb,
            "gemm_peak_gmacs": self.peak / 1e9,
            "alloc_mb": _mega(seen.allocated),
            "moved_mb": _mega(seen.moved),
            "copy_peak_gb_per_s": None if self.copy is None else self.copy / 1e9,
            "repeats": len(self.latencies),
            "macs_per_prediction": one.macs,
        }

    def raw(self) -> list[dict[str, Any]]:
        """Rows of the table `latencies`: every measurement, in order."""
        return [
            {**self._key(), "repeat": number, "latency_ms": 1000 * seconds}
            for number, seconds in enumerate(self.latencies, 1)
        ]

    def _key(self) -> dict[str, Any]:
        names = ("model", "implementation", "mode", "window", "batch")
        return {**{name: getattr(self.subject, name) for name in names}, "threads": self.threads}


def _mega(count: int | None) -> float | None:
    return None if count is None else count / 1e6


@torch.inference_mode()
def measure(
    names: Sequence[str],
    *,
    window: int | None = None,
    repeats: int = 100,
    seconds: float | None = None,
    threads: int | None = None,
    device: str = "cpu",
    implementations: Collection[str] = (rungs.EAGER,),
    precisions: Collection[str] = ("float32",),
    memory: float | None = None,
    progress: bool = True,
) -> tuple[list[Speed], list[str]]:
    """Times one prediction of each model `repeats` times, all models and forms in turns.

    Args:
        names: of models; of each continual one the step past its warm-up is timed.
        window: of the continual ones (default: their own).
        seconds: that the measurements of one subject may take; it has fewer then, at least 3.
        threads: of torch (default: as it is).
        device: that torch can use.
        implementations: names in `rungs.RUNGS`.
        precisions: "float32", "bfloat16", "float16" (on a GPU).
        memory: MB; each subject is also timed in the largest batch, a power of two, that fits,
            with a tenth of the repeats. Where memory cannot be watched, that is the batch of
            "co3d eager".
        progress: whether to show bars.

    Returns:
        The measurements, and a sentence on each form that cannot be had here.

    Raises:
        ValueError: for an unknown model, form or precision, a window that does not fit, numbers
            below 1, or if nothing is left to time.
    """
    _check(repeats, threads, implementations, precisions)
    records = [spec(name) for name in dict.fromkeys(names)]
    ordered = [name for name in rungs.RUNGS if name in implementations]  # eager before exports
    options = (window, device, ordered, precisions)
    clock = clock_of(device)
    with _threads(threads), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found: list[Subject | LeftOut] = []
        for record in bar(records, "warm-up", shown=progress):
            found += subjects(record, *options)
        chosen = [one for one in found if isinstance(one, Subject)]
        left_out = [one for one in found if isinstance(one, LeftOut)]
        if not chosen:
            told = "; ".join(sentences(left_out)) or "no models given"
            raise ValueError(f"nothing to time: {told}")
        gauges = {p: _product(device, p) for p in {one.precision for one in chosen}}
        counts = [_affordable(one, repeats, seconds, clock) for one in chosen]
        gauges["copy"] = _copy(device)
        times, best = interleaved(chosen, gauges, counts, clock, progress, REST)
        if memory:
            for one, pairs in _batches(chosen, memory, counts, clock, left_out, progress):
                chosen, times = [*chosen, one], [*times, pairs]
        used = torch.get_num_threads()
    return [
        Speed(one, *map(tuple, zip(*pairs, strict=True)), used, best[one.precision], best["copy"])
        for one, pairs in zip(chosen, times, strict=True)
    ], sentences(left_out)


def sentences(left_out: Iterable[LeftOut]) -> list[str]:
    """What is left out and why, the models of one form and reason together."""
    models: dict[tuple[str, ...], list[str]] = {}
    for model, *form in left_out:
        models.setdefault(tuple(form), []).append(model)
    return [
        f"left out: {implementation}, {precision} ({', '.join(names)}): {reason}"
        for (implementation, precision, reason), names in models.items()
    ]


def _check(
    repeats: int,
    threads: int | None,
    implementations: Collection[str],
    precisions: Collection[str],
) -> None:
    if repeats < 1 or (threads is not None and threads < 1):
        raise ValueError(f"expected 1 or more repeats and threads, given {repeats} and {threads}")
    for given, known in ((implementations, rungs.RUNGS), (precisions, rungs.PRECISIONS)):
        if unknown := [name for name in given if name not in known]:
            raise ValueError(f"expected some of {', '.join(known)}, given {unknown[0]!r}")


def interleaved(
    subjects: Sequence[Subject],
    gauges: Mapping[str, Gauge],
    repeats: Sequence[int],
    clock: Clock,
    progress: bool = False,
    rest: float = 0.0,
) -> tuple[list[list[tuple[float, float]]], dict[str, float]]:
    """Measures in turns; a turn of a subject begins with a prediction that is not timed, which
    brings what it needs into the caches. Subjects with fewer repeats than there are turns are too
    slow for that to matter.

    A runtime's threads go on spinning for a while when its work is done, on the cores that the next
    one needs: `rest` seconds are waited for that before every turn.

    Args:
        gauges: do some work and return its amount.
        repeats: measurements of each subject.

    Returns:
        For each subject (latency, period) of every repeat, and the best rate of each gauge.
    """
    turns = min(TURNS, max(repeats))
    times: list[list[tuple[float, float]]] = [[] for _ in subjects]
    best = dict.fromkeys(gauges, 0.0)
    for turn in bar(range(turns), "turns", shown=progress):
        for one, held, wanted in zip(subjects, times, repeats, strict=True):
            count = wanted * (turn + 1) // turns - wanted * turn // turns
            if count:
                time.sleep(rest)
            if count and wanted >= turns:
                _timed(one, clock)
            held += [_timed(one, clock) for _ in range(count)]
        time.sleep(rest)
        for name, gauge in gauges.items():
            begun = clock()
            amount = gauge()
            best[name] = max(best[name], amount / (clock() - begun))
    return times, best


def _timed(one: Subject, clock: Clock) -> tuple[float, float]:
    """Seconds of the call that predicts, and of the whole period."""
    begun = clock()
    for _ in range(one.period - 1):
        one.work()
    last = clock() if one.period > 1 else begun
    one.work()
    done = clock()
    return done - last, done - begun


def _affordable(one: Subject, repeats: int, seconds: float | None, clock: Clock) -> int:
    """How many measurements fit into `seconds`, by the fastest of up to three that do."""
    if seconds is None:
        return repeats
    tried = [_timed(one, clock)[1]]
    while len(tried) < LEAST and sum(tried) < seconds:
        tried.append(_timed(one, clock)[1])
    return min(repeats, max(LEAST, int(seconds / max(min(tried), 1e-9))))


def _batches(
    subjects: Sequence[Subject],
    memory: float,
    repeats: Sequence[int],
    clock: Clock,
    left_out: list[LeftOut],
    progress: bool,
) -> Iterator[tuple[Subject, list[tuple[float, float]]]]:
    """Each subject in the largest batch that fits, one after the other, where that is above 1."""
    eager: dict[tuple[str, str], int] = {}
    for one, count in bar(list(zip(subjects, repeats, strict=True)), "batches", shown=progress):
        kind = (one.model, one.precision)
        if seen := _seen(one):
            batch = largest_batch(1e6 * memory, seen, _seen(one.again(2)))
        elif kind in eager:
            batch = eager[kind]
        else:
            reason = f"its memory cannot be watched: time {rungs.EAGER}, too"
            form = f"{one.implementation} in batches", one.precision
            left_out.append(LeftOut(one.model, *form, reason))
            continue
        many = one.again(batch) if batch > 1 else one
        while batch > 1 and (_seen(many) or 0) > 1e6 * memory:  # it was no straight line
            batch //= 2
            many = one.again(batch)
        if one.implementation == rungs.EAGER:
            eager[kind] = batch
        if batch > 1:
            times, _ = interleaved([many], {}, [max(LEAST, count // 10)], clock)
            yield many, times[0]


def _seen(one: Subject) -> int | None:
    """Bytes that a prediction takes, by a GPU's allocator or as watched on a CPU."""
    return one.footprint.peak or one.footprint.allocated


def _product(device: str, precision: str) -> Gauge:
    """A product of two square matrices; counts its multiply-accumulates."""
    n = GEMM_CPU if torch.device(device).type == "cpu" else GEMM_OTHERS
    a, b = torch.randn(2, n, n, device=device).to(rungs.PRECISIONS[precision])
    out = a @ b

    def multiply() -> int:
        torch.mm(a, b, out=out)
        return n**3

    return multiply


def _copy(device: str) -> Gauge:
    """A copy of memory; counts bytes read and written."""
    source, target = torch.zeros(2, COPIED, dtype=torch.uint8, device=device)

    def copy() -> int:
        target.copy_(source)
        return 2 * COPIED

    return copy


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

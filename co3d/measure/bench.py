"""Time of networks in each form: one harness for `co3d bench` and the notebooks.

The forms of a clip net and of its stream are built together, take turns, and are freed before the
next pair. So memory stays small, and a machine that slows down does so for all forms of a pair,
and for the matrix products and the copy that are measured beside them.
"""

import gc
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from itertools import chain
from math import inf
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..nn import StreamNet, state_bytes
from ..progress import bar
from ..zoo import spec
from .complexity import cost_clip, cost_steps
from .forms import (
    EAGER,
    FILES,
    FORMS,
    OPTIMISED,
    PEERS,
    PRECISIONS,
    Case,
    build,
    exported,
    start_up,
    started_peer,
    unavailable,
)
from .gauges import Clock, Gauge, clock_of, gauges_of, memory_of
from .peers import LeftOut, Peer

TURNS = 5  # of every form, each of a fifth of its measurements, and of one at least
WARM = 0.04  # seconds of untimed predictions at the start of a turn, one at least
SLOW = 0.1  # seconds; a prediction that takes longer finds nothing in the caches anyway
REST = 0.06  # seconds; threads of ONNX Runtime were seen to spin for 45 ms after a step, torch's 4
MEMORY = ("peak_mem_mb", "alloc_mb", "moved_mb")


class Subject(NamedTuple):
    """What is timed: `period` calls of `work` make one prediction, which the last of them gives.

    Attributes:
        facts: the columns of its row other than times.
    """

    facts: Mapping[str, Any]
    period: int
    work: Callable[[], Tensor | None]

    def predict(self) -> None:
        """All work of one prediction."""
        for _ in range(self.period):
            self.work()


@torch.inference_mode()
def measure(
    names: Iterable[str],
    *,
    window: int | None = None,
    repeats: int = 100,
    seconds: float | None = None,
    threads: int | None = None,
    device: str = "cpu",
    forms: Mapping[str, Collection[str]] | None = None,
    batch: int = 1,
    progress: bool = True,
) -> tuple[list[dict], list[str]]:
    """Times one prediction of each network `repeats` times in each form.

    Args:
        names: of models; for continual ones the step past the warm-up is timed.
        window: of the continual ones, in frames (default: their own).
        seconds: limit for the measurements of one form, which may then be fewer, but at least 5.
        threads: of a prediction on the CPU (default: torch's).
        device: as torch names it.
        forms: some of `FORMS`, by precision: "float32", "bfloat16" or "float16" (on a GPU;
            default: eager and optimised in float32).
        batch: streams or clips computed at once.
        progress: show a bar.

    Returns:
        Rows of the table `benchmark`, with `precision`, and a sentence on each form that cannot run
        here.

    Raises:
        ValueError: for an unknown model, form or precision, a window that does not fit, numbers
            below 1, or if nothing is left to time.
    """
    forms = {"float32": (EAGER, OPTIMISED)} if forms is None else forms
    _check(min(repeats, 1 if threads is None else threads, batch), forms)
    pairs: dict[str, list[tuple[Case, str, str]]] = {}
    for name in dict.fromkeys(names):
        is_stream = spec(name).continual
        case = Case(name, window if is_stream else None, batch)
        pairs.setdefault(spec(name).name.removeprefix("co"), []).extend(
            (case, form, precision)
            for precision in forms
            for form in FORMS
            if form in forms[precision] and (is_stream or form not in PEERS)
        )
    left_out: dict[tuple, list[str]] = {}  # models by form, precision and reason
    rows: list[dict] = []
    with torch.random.fork_rng(devices=[]), ExitStack() as stack:
        torch.manual_seed(0)
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(threads or torch.get_num_threads())
        jobs = chain(*pairs.values())
        exported(job for job in jobs if job[1] in FILES and not unavailable(*job[1:], device))
        gauges, clock = gauges_of(device, forms), clock_of(device)
        for pair in bar(pairs.values(), "networks", shown=progress):
            subjects = []
            for case, form, precision in pair:
                try:
                    subjects.append(subject(case, form, precision, device=device))
                except LeftOut as error:
                    left_out.setdefault((form, precision, str(error)), []).append(case.name)
            rows += interleaved(subjects, repeats, seconds, gauges, clock)
            subjects.clear()
            started_peer.cache_clear()
            gc.collect()
    sentences = [
        f"left out: {form}, {precision} ({', '.join(models)}): {reason}"
        for (form, precision, reason), models in left_out.items()
    ]
    if not rows:
        raise ValueError(f"nothing to time: {'; '.join(sentences) or 'no models given'}")
    return rows, sentences


@torch.inference_mode()
def subject(
    case: Case,
    form: str = EAGER,
    precision: str = "float32",
    *,
    streams: int = 1,
    device: str = "cpu",
) -> Subject:
    """A network in one form; a stream is past its start-up.

    Args:
        streams: batches that a call serves one after the other.

    Raises:
        LeftOut: if the form or the precision cannot run here.
        ValueError: for an unknown model or a window that does not fit.
    """
    net = case.net()
    if reason := unavailable(form, precision, torch.device(device).type):
        raise LeftOut(reason)
    before = torch.cuda.memory_allocated(device) if "cuda" in device else 0
    model, example = build(case, form, precision, device)
    is_stream = isinstance(net, StreamNet)
    work = Steps(model, example, net.warmup, streams) if is_stream else lambda: model(example)
    facts = {
        "model": case.name,
        "implementation": form,
        "precision": precision,
        "mode": "stream" if is_stream else "clip",
        "window": net.window if is_stream else case.window,
        "batch": case.batch,
        "streams": case.batch * streams,
        "threads": torch.get_num_threads(),
        "state_mb": work.state_bytes() / case.batch / 1e6 if is_stream else None,
        **dict.fromkeys(MEMORY),
        "macs_per_prediction": macs(case._replace(batch=1)),
        "stride": net.stride if is_stream else None,
    }
    timed = Subject(facts, facts["stride"] or 1, work)
    if form not in FILES and getattr(model, "engine", "torch") == "torch":
        facts |= memory_of(timed.predict, device, before, is_stream)
    return timed


class Steps:
    """Steps of streams past their start-up; the last of every period gives a prediction.

    Args:
        model: has `step` and `steps`; a peer is past its start-up already.
        frame: (B, C, H, W) that is fed every time.
        warmup: frames before the first prediction.
        streams: that take a step one after the other in each call.
    """

    def __init__(self, model: Any, frame: Tensor, warmup: int, streams: int = 1) -> None:
        self.model, self.frame = model, frame
        self.states = [None] * streams
        if not isinstance(model, Peer):
            self.states = [start_up(model, frame, warmup) for _ in range(streams)]
        while self() is None:
            pass

    def __call__(self) -> Tensor | None:
        for n, state in enumerate(self.states):
            y, self.states[n] = self.model.step(self.frame, state)
        return y

    def state_bytes(self) -> int:
        """Memory of the state of one batch."""
        if isinstance(self.model, Peer):
            return self.model.state_bytes()
        return state_bytes(self.states[0])


@cache
def macs(case: Case) -> int:
    """Multiply-accumulates of a prediction by the formula: of clips, or of a period's steps."""
    net, example = case.net(), case.input("meta")
    if isinstance(net, StreamNet):
        return sum(cost.macs for cost in cost_steps(net, example))
    return cost_clip(net, example).macs


@torch.inference_mode()
def interleaved(
    subjects: Sequence[Subject],
    repeats: int,
    seconds: float | None = None,
    gauges: Sequence[Gauge] = (),
    clock: Clock = time.perf_counter,
) -> list[dict]:
    """Measures all subjects in turns.

    A turn begins with a rest, as a runtime's threads go on spinning for a while after their work,
    on the cores that the next one needs. Then come predictions that are not timed, which fill the
    caches, as in a loop over the frames of a stream.

    Args:
        repeats: measurements of each subject.
        seconds: limit for those of one subject, which are then fewer, but one a turn at least.
        gauges: as from `gauges_of`, measured in every turn.
        clock: gives the time in seconds when all work is done.

    Returns:
        A row for each: its facts, and times as `_row` describes them.
    """
    turns, best = min(TURNS, repeats), {}
    times: list[list[tuple[float, float]]] = [[] for _ in subjects]
    for turn in range(1, turns + 1):
        for subject, measured in zip(subjects, times, strict=True):
            time.sleep(REST)
            if not measured or measured[-1][1] < SLOW:
                end = clock() + WARM
                subject.predict()
                while clock() < end:
                    subject.predict()
            end = clock() + (seconds or inf) / turns
            measured.append(_timed(subject, clock))
            while len(measured) < repeats * turn // turns and clock() < end:
                measured.append(_timed(subject, clock))
        time.sleep(REST)
        for name, amount, work in gauges:
            begun = clock()
            work()
            best[name] = max(best.get(name, 0), amount / (clock() - begun))
    return [_row(subject.facts, own, best) for subject, own in zip(subjects, times, strict=True)]


def _timed(subject: Subject, clock: Clock) -> tuple[float, float]:
    """Seconds of the call that predicts, and of the whole period."""
    begun = clock()
    for _ in range(subject.period - 1):
        subject.work()
    last = clock() if subject.period > 1 else begun
    subject.work()
    end = clock()
    return end - last, end - begun


def _row(facts: Mapping[str, Any], times: list[tuple[float, float]], best: Mapping) -> dict:
    """A row by column; None is what was not measured.

    Latency is that of the call that gives the prediction, from clip or frame to logits.
    `throughput_per_s` is the batch over the median time of all calls that a prediction needs:
    predictions per second of as many streams, or of clips one batch after the other.
    """
    latencies, periods = np.array(times).T
    p5, median, p95 = np.percentile(1000 * latencies, [5, 50, 95]).tolist()
    gemm, copy = best.get(facts.get("precision")), best.get("copy")
    return {
        **facts,
        "latency_ms_median": median,
        "latency_ms_p5": p5,
        "latency_ms_p95": p95,
        "latency_ms_std": float(1000 * latencies.std()),
        "throughput_per_s": facts["batch"] / float(np.median(periods)),
        "gemm_peak_gmacs": gemm and gemm / 1e9,
        "copy_peak_gb_per_s": copy and copy / 1e9,
        "repeats": len(times),
    }


def _check(least: int, forms: Mapping[str, Collection[str]]) -> None:
    if least < 1:
        raise ValueError(f"expected 1 or more repeats, threads and batch, given {least}")
    for known, given in ((PRECISIONS, forms), (FORMS, chain(*forms.values()))):
        for name in given:
            if name not in known:
                raise ValueError(f"expected some of {', '.join(known)}, given {name!r}")

"""What a machine does at best, measured beside what networks do; the share of Python in a step."""

import time
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import torch

from ..deploy import optimize
from ..nn import Conv3d, Linear, RunningWindow, Sequential, Stream, StreamNet
from ..zoo import create
from .forms import EAGER, PRECISIONS, unavailable

SIDE_CPU, SIDE_GPU = 2048, 8192  # of the square matrices whose product torch computes
CHANNELS, SIZE = 512, 64  # of the convolution over one pixel that the native engine computes
COPIED = 64 * 2**20  # bytes: more than caches hold

Clock = Callable[[], float]  # seconds
Gauge = Callable[[], int]  # does some work and returns how much


def gauges_of(device: str, precisions: Iterable[str]) -> dict[str, list[Gauge]]:
    """What the machine does at best: products of matrices by precision, and a copy of memory.

    A product counts its multiply-accumulates, a copy the bytes that it reads and writes. On a CPU
    the native engine multiplies too, as torch's product leaves much of some CPUs unused.
    """
    kind = torch.device(device).type
    gauges: dict[str, list[Gauge]] = {"copy": [_copy(device)]}
    for precision in precisions:
        if not unavailable(EAGER, precision, kind):
            gauges[precision] = [_product(device, precision)]
            gauges[precision] += [_native_product(precision)] if kind == "cpu" else []
    return gauges


def rate(gauge: Gauge, clock: Clock) -> float:
    """The amount of a gauge per second."""
    begun = clock()
    amount = gauge()
    return amount / (clock() - begun)


def _product(device: str, precision: str) -> Gauge:
    """Of two square matrices in torch."""
    n = SIDE_CPU if torch.device(device).type == "cpu" else SIDE_GPU
    a, b = torch.randn(2, n, n, device=device).to(PRECISIONS[precision])
    out = a @ b

    def multiply() -> int:
        torch.mm(a, b, out=out)
        return n**3

    return multiply


def _native_product(precision: str) -> Gauge:
    """Of pixels by channels and the weights of a convolution over one pixel, optimised."""
    body = Sequential(Conv3d(CHANNELS, CHANNELS, 1), RunningWindow(1))
    net = StreamNet(body, Linear(CHANNELS, 1)).eval()
    frame = torch.randn(1, CHANNELS, SIZE, SIZE)
    fast, state = optimize(net, frame, PRECISIONS[precision]), None

    def multiply() -> int:
        nonlocal state
        _, state = fast.step(frame, state)
        return CHANNELS * CHANNELS * SIZE * SIZE

    return multiply


def _copy(device: str) -> Gauge:
    """Of bytes from one place in memory to another."""
    source, target = torch.zeros(2, COPIED, dtype=torch.uint8, device=device)

    def copied() -> int:
        target.copy_(source)
        return 2 * COPIED

    return copied


def clock_of(device: str) -> Clock:
    """The time when a device has done what it was given, in seconds."""
    if torch.device(device).type == "cpu":
        return time.perf_counter

    def clock() -> float:
        torch.accelerator.synchronize()
        return time.perf_counter()

    return clock


def python_share(name: str, steps: int = 200) -> float | None:
    """Share of an optimised step that is spent in Python; None without the native engine.

    The engine's function is replaced by one that takes its time, all steps are timed as a whole,
    and what the engine did not take is Python's: the checks of frame and state, the tensor for the
    logits, and the new state.
    """
    net = create(name)
    frame = torch.randn(1, 3, net.spec.image_size, net.spec.image_size)
    fast = optimize(net, frame)
    if fast.engine != "native":
        return None
    engine, spent = fast._backend, []
    library = engine._library

    def step(*arguments: Any) -> int:
        begun = time.perf_counter()
        status = library.co3d_step(*arguments)
        spent.append(time.perf_counter() - begun)
        return status

    engine._library = SimpleNamespace(co3d_step=step, co3d_advise=library.co3d_advise)
    stream = Stream(fast)
    for _ in range(net.warmup):
        stream(frame)
    spent.clear()
    begun = time.perf_counter()
    for _ in range(steps):
        stream(frame)
    return 1 - sum(spent) / (time.perf_counter() - begun)

"""How long exported nets take, against the window and against the number of streams at a time.

All subjects are built first and take turns, so that a machine that slows down does so for all.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..export import FORMATS, Runner, export
from ..nn import StreamNet
from ..zoo import create

RUNTIMES = {"onnxruntime": "onnx", "openvino": "openvino"}
TURNS = 5  # of every subject, each of a part of its measurements
Work = Callable[[], Any]


def exported(net: Any, example: Tensor, folder: Path, stem: str, runtime: str) -> Runner:
    """A net, written into a folder and opened by a runtime in its own format."""
    path = Path(folder) / f"{stem}{FORMATS[RUNTIMES[runtime]]}"
    export(net, path, example)
    return Runner(path)


def measure(
    name: str,
    windows: Iterable[int],
    counts: Iterable[int],
    folder: Path,
    *,
    size: int | None = None,
    repeats: int = 50,
) -> list[dict]:
    """Latency against the window and against the number of streams, all in one run.

    At each window: a prediction by a stream, and by the clip net that sees the window at once; both
    are exported, of torch the step as it is, for comparison. At the native window, for each number
    of streams: a frame of each, in one batch, and one after the other.

    Args:
        name: of a continual net without temporal strides; weights are random.
        windows: in frames.
        counts: of streams.
        folder: for the exported files.
        size: of the frames in pixels (default: the model's own).
        repeats: measurements of each.

    Returns:
        Rows of the table `deployment`.
    """
    net = create(name)
    size = size or net.spec.image_size
    works = _windows(name, windows, folder, size) | _streams(net, counts, folder, size)
    times = _times(works, repeats)
    names = ("implementation", "mode", "window", "batch", "streams")
    return [
        {
            "model": name,
            **dict(zip(names, key, strict=True)),
            "threads": torch.get_num_threads(),
            "latency_ms_median": float(np.median(ms)),
            "latency_ms_p95": float(np.percentile(ms, 95)),
        }
        for key, ms in times.items()
    ]


def _windows(name: str, windows: Iterable[int], folder: Path, size: int) -> dict[tuple, Work]:
    works, regular = {}, create(create(name).spec.weights)
    frame = torch.randn(1, 3, size, size)
    for window in windows:
        net = create(name, window=window)
        clip = torch.randn(1, 3, window, size, size)
        works["torch", "stream", window, 1, 1] = _stepping([net], [frame])
        for runtime in RUNTIMES:
            runner = exported(net, frame, folder, f"{name}-{window}", runtime)
            works[runtime, "stream", window, 1, 1] = _stepping([runner], [frame])
            runner = exported(regular, clip, folder, f"{regular.spec.name}-{window}", runtime)
            works[runtime, "clip", window, 1, 1] = _calling(runner, clip)
    return works


def _streams(net: StreamNet, counts: Iterable[int], folder: Path, size: int) -> dict[tuple, Work]:
    works, name = {}, net.spec.name
    frame = torch.randn(1, 3, size, size)
    for runtime in RUNTIMES:
        single = exported(net, frame, folder, f"{name}-1", runtime)
        for count in counts:
            works[runtime, "stream", net.window, 1, count] = _stepping([single] * count, [frame])
            if count > 1:
                batch = frame.repeat(count, 1, 1, 1)
                runner = exported(net, batch, folder, f"{name}-batch-{count}", runtime)
                works[runtime, "stream", net.window, count, count] = _stepping([runner], [batch])
    return works


def _stepping(nets: Sequence[StreamNet | Runner], frames: Sequence[Tensor]) -> Work:
    """A step of each, all past their warm-up."""
    (frame,), states = frames, []
    for net in nets:
        state = net.begin()
        for _ in range(net.warmup + net.stride):
            _, state = net.step(frame, state)
        states.append(state)

    def work() -> None:
        for n, net in enumerate(nets):
            _, states[n] = net.step(frame, states[n])

    return work


def _calling(runner: Runner, clip: Tensor) -> Work:
    return lambda: runner(clip)


def _times(works: dict[tuple, Work], repeats: int) -> dict[tuple, list[float]]:
    """Milliseconds of all works, which take turns."""
    times = {key: [] for key in works}
    for turn in range(TURNS):
        for key, work in works.items():
            work()  # not timed: threads of the one before may still be looking for work
            for _ in range(turn, repeats, TURNS):
                start = time.perf_counter()
                work()
                times[key].append(1000 * (time.perf_counter() - start))
    return times

"""One pass over a stream for many windows: they differ only in the average at the end."""

from collections.abc import Iterable

import torch
from torch import Tensor

from .blocks import Sequential
from .net import StreamNet, window_of
from .pool import RunningWindow

CHUNK = 32  # frames computed at once


@torch.no_grad()
def steps_of_windows(
    net: StreamNet,
    windows: Iterable[int],
    clip: Tensor,
    fill: str = "zeros",
    emit: str = "valid",
    chunk: int = CHUNK,
) -> dict[int, Tensor | None]:
    """What `steps(clip)` gives from a new state, for twins of `net` with other windows.

    The layers before the running average, which are nearly all of the work, run once.

    Args:
        net: with a window that divides all others, such as its stride.
        windows: in input frames.
        clip: (B, C, T, H, W).
        fill, emit: as in `begin`.
        chunk: frames that are computed at once; fewer need less memory.

    Returns:
        Logits (B, classes, T') by window, None where T frames are too few.

    Raises:
        ValueError: for a window that is not a multiple of that of `net`.
    """
    windows = list(windows)
    for window in windows:
        if window < 1 or window % net.window:
            raise ValueError(f"expected windows in multiples of {net.window}, given {window}")
    parts = list(net.body)
    last = next(n for n, part in enumerate(parts) if window_of(part) is not None)
    trunk, rest = Sequential(*parts[: last + 1]), parts[last + 1 :]
    state, pooled = trunk.begin(fill, emit), []
    for frames in clip.split(chunk, 2):
        y, state = trunk.steps(frames, state)
        pooled += [] if y is None else [y]
    logits = dict.fromkeys(windows)
    for window in windows if pooled else ():
        head = Sequential(RunningWindow(window // net.window), *rest)
        y, _ = head.steps(torch.cat(pooled, 2), head.begin(fill, emit))
        logits[window] = None if y is None else net.classifier(y.flatten(2))
    return logits

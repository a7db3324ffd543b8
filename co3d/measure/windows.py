"""One pass over a stream for many windows: they differ only in the average at the end."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ..nn import Conv3d, Linear, RunningWindow, Sequential, StreamNet

CHUNK = 32  # frames computed at once


@torch.no_grad()
def steps_of_windows(
    net: StreamNet,
    windows: Iterable[int],
    clip: Tensor,
    fill: str = "zeros",
    emit: str = "valid",
    chunk: int = CHUNK,
    trunk: Any = None,
) -> dict[int, Tensor | None]:
    """What `steps(clip)` gives from a new state, for twins of `net` with other windows.

    The layers before the running average, which are nearly all of the work, run once.

    Args:
        net: with a window that divides all others, such as its stride.
        windows: in input frames.
        clip: (B, C, T, H, W).
        fill, emit: as in `begin`.
        chunk: frames that are computed at once; fewer need less memory.
        trunk: what steps the layers before the average (default: themselves), such as the
            optimised form of `trunk_of(net)`.

    Returns:
        Logits (B, classes, T') by window, None where T frames are too few.

    Raises:
        ValueError: for a window that is not a multiple of that of `net`.
    """
    windows = list(windows)
    for window in windows:
        if window < 1 or window % net.window:
            raise ValueError(f"expected windows in multiples of {net.window}, given {window}")
    layers, rest = _split(net)
    trunk = trunk or layers
    state, vectors = trunk.begin(fill, emit), []
    for frames in clip.split(chunk, 2):
        y, state = trunk.steps(frames, state)
        vectors += [] if y is None else [y.flatten(2)]
    logits = dict.fromkeys(windows)
    for window in windows if vectors else ():
        head = Sequential(RunningWindow(window // net.window), *rest)
        y, _ = head.steps(torch.cat(vectors, 2)[..., None, None], head.begin(fill, emit))
        logits[window] = None if y is None else net.classifier(y.flatten(2))
    return logits


def trunk_of(net: StreamNet) -> StreamNet:
    """The layers before the running average as a net, whose outputs are what is averaged.

    It ends in a classifier, as nets do, which changes nothing.
    """
    layers, rest = _split(net)
    convolutions = (part for part in rest if isinstance(part, Conv3d))
    width = getattr(next(convolutions, None), "in_channels", net.classifier.in_features)
    weight = next(net.parameters())
    identity = Linear(width, width, bias=False, device=weight.device, dtype=weight.dtype)
    identity.weight.data.copy_(torch.eye(width))
    return StreamNet(layers, identity).eval()


def _split(net: StreamNet) -> tuple[Sequential, list[Any]]:
    """The layers with the smallest window in them, and those behind it."""
    parts = list(net.body)
    for n, part in enumerate(parts, 1):
        if any(isinstance(inner, RunningWindow) for inner in part.modules()):
            return Sequential(*parts[:n]), parts[n:]
    raise ValueError("expected a running window in the body of the network, given none")

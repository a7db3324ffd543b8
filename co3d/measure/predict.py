"""Predictions of networks from the frames of one video, which share what they can.

Equal clips are computed once. Streams of one network that begin with the same frames share one
pass over them, whatever their windows.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..deploy import OptimizedStream
from ..nn import Conv3d, Linear, RunningWindow, Sequential, StreamNet
from ..zoo.checkpoints import scores
from .frames import Frames
from .readings import CHUNK, Reading
from .store import numbers

Logits = dict[Reading, list[Tensor]]  # (predictions, classes) of each clip or crop
OPTIMISED: WeakKeyDictionary[StreamNet, dict] = WeakKeyDictionary()  # forms by threads and size


@torch.inference_mode()
def predict(readings: Sequence[Reading], frames: Frames) -> list[dict]:
    """A record per reading of one video: its status and, where that is "ok", what was predicted.

    "scores" are logits where there is one prediction, else the mean of probabilities; a stream
    that emits always has the likeliest class at every output, "classes".
    """
    ready = [reading for reading in readings if frames.statuses[reading.plan][0] == "ok"]
    logits = _streams([reading for reading in ready if reading.trunk], frames)
    computed: dict[tuple, Tensor] = {}
    for reading in ready:
        for part in frames.parts(reading.plan) if not reading.trunk else ():
            key = reading.model, part
            if key not in computed:
                computed[key] = reading.model(reading.batch(frames.clip(*part)))
            logits[reading].append(computed[key])
    records = []
    for reading in readings:
        status, note = frames.statuses[reading.plan]
        record = {"status": status, "note": note} if note else {"status": status}
        records.append(_record(reading, torch.cat(logits[reading])) if status == "ok" else record)
    return records


def _streams(readings: Sequence[Reading], frames: Frames) -> Logits:
    """The longest stream of a network also serves those that are fed the first of its frames."""
    longest = sorted(readings, key=lambda reading: -reading.plan.frames)
    waiting = [(reading, *part) for reading in longest for part in frames.parts(reading.plan)]
    logits = defaultdict(list)
    while waiting:
        first, transform, seen = waiting[0]
        plan, clip = first.plan, first.batch(frames.clip(transform, seen))
        group = [
            (reading, crop, view)
            for reading, crop, view in waiting
            if reading.trunk is first.trunk
            and (reading.plan.fill, reading.plan.emit, crop) == (plan.fill, plan.emit, transform)
            and view == seen[: len(view)]
        ]
        waiting = [each for each in waiting if each not in group]
        outputs = steps_of_windows(
            first.trunk,
            {reading.model.window for reading, *_ in group},
            clip,
            plan.fill,
            plan.emit,
            trunk=_optimised(first.trunk, clip) if first.engine == "native" else None,
        )
        for reading, _, view in group:
            columns = outputs[reading.model.window][0].T[: len(reading.outputs(len(view)))]
            last = reading.plan.predictions if plan.emit == "valid" else 0
            logits[reading].append(columns[-last:])
    return logits


def _optimised(net: StreamNet, clip: Tensor) -> OptimizedStream:
    """The layers before the running average, optimised once per process for such frames."""
    forms = OPTIMISED.setdefault(net, {})
    threads, frame = torch.get_num_threads(), clip[:, :, 0]
    if (threads, frame.shape) not in forms:
        fast = OptimizedStream(trunk_of(net), frame, threads=threads, engine="native")
        forms[threads, frame.shape] = fast
    return forms[threads, frame.shape]


def _record(reading: Reading, logits: Tensor) -> dict:
    if not logits.isfinite().all():
        return {"status": "nan"}
    if reading.plan.emit == "always":
        return {"status": "ok", "classes": logits.argmax(1).tolist()}
    values = logits[0] if len(logits) == 1 else scores(reading.model, logits).mean(0)
    return {"status": "ok", "scores": numbers(values.cpu().numpy())}


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
    """
    layers, rest = _split(net)
    trunk = trunk or layers
    state, vectors = trunk.begin(fill, emit), []
    for frames in clip.split(chunk, 2):
        y, state = trunk.steps(frames, state)
        vectors += [] if y is None else [y.flatten(2)]
    logits = dict.fromkeys(windows)
    for window in logits if vectors else ():
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

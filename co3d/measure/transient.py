"""Accuracy of streams against the frames seen since a reset (the paper's study of the start-up).

Streams emit from the first frame on, whatever stands in for the frames that they have not seen.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import replace
from itertools import product

import numpy as np
import torch

from ..data.dataset import Dataset
from ..nn import ClipNet
from ..nn.blocks import Residual
from ..zoo import spec
from . import accuracy, protocols, runs
from .readings import Reading, twin


def start_ups(
    models: Iterable[tuple[str, ClipNet]],
    dataset: str,
    frames: int,
    fills: Sequence[str] = ("zeros", "replicate"),
    windows: Sequence[int | None] = (None,),
    fps: float | None = None,
) -> list[Reading]:
    """Readings of continual nets by name, with the clip nets that hold their weights.

    Args:
        frames: of each video that are fed.
        windows: in frames; None is the native one.
        fps: rate of sampling by time; None: that of streams on the data set, see `protocols.plan`.
    """
    streams = [(name, regular) for name, regular in models if spec(name).continual]
    readings = []
    for (name, regular), window, fill in product(streams, windows, fills):
        net = twin(name, regular, window or spec(name).window)
        plan = protocols.plan(net, dataset, "first-valid", fps=fps, fill=fill)
        plan = replace(plan, protocol="start-up", frames=frames, emit="always")
        readings.append(Reading(net, plan, twin(name, regular)))
    return readings


def without_waiting_shortcuts(name: str, regular: ClipNet) -> ClipNet:
    """A copy of a clip net in which those shortcuts give zeros that have to wait in its stream.

    It is what a stream is left with until its padding has passed.

    Args:
        name: of the continual net.
    """
    alone = deepcopy(regular)
    for path, part in twin(name, regular).named_modules():
        if isinstance(part, Residual) and part.timing.padding:
            shortcut = alone.get_submodule(path).shortcut
            shortcut.register_forward_hook(lambda module, args, y: torch.zeros_like(y))
    return alone


def evaluate(
    readings: Sequence[Reading], data: Dataset, *, limit: int = 0, **options
) -> tuple[list[dict], Counter]:
    """Rows of results/transient.csv; arguments and errors are those of `accuracy.evaluate`.

    Raises:
        ValueError: also for videos with several classes each.
    """
    if data.multilabel:
        raise ValueError(f"expected one class per video, {data.name} has several")
    accuracy.check(readings, data)
    stores, times = runs.run(readings, data, limit=limit, **options)
    rows = []
    for reading, store in zip(readings, stores, strict=True):
        videos = accuracy.scored(data, store)
        right = np.array(
            [np.equal(store.records[v.id]["classes"], v.class_id) for v in videos], float
        )
        keys = {name: reading.keys[name] for name in ("model", "weights", "window", "fill", "fps")}
        keys |= {"dataset": data.name, "split": data.split, "limit": limit}
        for n, seen in enumerate(reading.outputs(reading.plan.frames) if videos else ()):
            top1 = 100 * float(right[:, n].mean())
            rows.append({**keys, "frames_seen": seen, "n_scored": len(videos), "top1": top1})
    return rows, times

"""Sizes, costs and stream constants of every model: the rows of results/models.csv."""

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..nn import ClipNet, StreamNet, state_bytes
from ..zoo import create, list_models, spec
from .complexity import Cost, cost_clip, cost_steps, steady_state

WIDE = 64  # the paper's extended window
CHARADES = ("slow_8x8_r50", "coslow_8x8_r50")  # have published weights for its 157 classes
COSTS = (
    *("macs_clip", "flops_paper_clip"),
    *("macs_step", "macs_frame", "flops_paper_step", "flops_paper_frame"),
    *("flops_once_step", "flops_once_frame", "window_sum"),
    *("receptive_field", "padding", "warmup", "stride", "state_mb"),
)


def rows(names: Iterable[str] | None = None) -> Iterator[dict[str, Any]]:
    """A row of results/models.csv for each setting of the named models (default: all).

    Raises:
        ValueError: for an unknown name.
    """
    for name in list_models() if names is None else names:
        for setting in settings(name):
            yield row(name, **setting)


def settings(name: str) -> list[dict[str, Any]]:
    """The arguments of `row` for one model: native and published lengths, and others we use."""
    record = spec(name)
    if record.continual:
        option, lengths = "window", {record.window, WIDE, *(p.window for p in record.published)}
        lengths |= {p.frames for p in spec(record.weights).published}
    else:
        option, lengths = "frames", {record.frames, *(p.frames for p in record.published)}
    chosen = [{option: length} for length in sorted(lengths)]
    more = [{**setting, "num_classes": 157} for setting in chosen] if name in CHARADES else []
    if record.continual and on_meta(name).stride > 1:
        more.append({"window": record.window, "dense": True})
    return chosen + more


def row(
    name: str,
    *,
    window: int | None = None,
    frames: int | None = None,
    num_classes: int | None = None,
    dense: bool = False,
) -> dict[str, Any]:
    """One row of results/models.csv; None where a column does not apply.

    Args:
        frames: of the clip of a regular net (default: as published).
        window, num_classes, dense: as in `co3d.create`.

    Raises:
        ValueError: as `co3d.create`.
    """
    record = spec(name)
    model = on_meta(name, window=window, num_classes=num_classes, dense=dense)
    classes = model.classifier.out_features
    window = model.window if record.continual else None
    frames = None if record.continual else frames or record.frames
    costs = _stream(model, dense) if record.continual else _clip(model, frames)
    published = {(p.frames, p.window): round(p.gflops * 1e9) for p in record.published}
    is_published = classes == record.num_classes and not dense
    return {
        "model": name,
        "window": window,
        "image_size": record.image_size,
        "frames": frames,
        "num_classes": classes,
        "dense": int(dense),
        "params": sum(parameter.numel() for parameter in model.parameters()),
        **dict.fromkeys(COSTS),
        **costs,
        "flops_published": published.get((frames, window)) if is_published else None,
    }


def matches_published(row: dict[str, Any]) -> bool | None:
    """Whether a row's FLOPs round to the published ones, to two digits of 10^9; None without."""
    if row["flops_published"] is None:
        return None
    counts = row["flops_paper_clip"] or row["flops_paper_step"], row["flops_published"]
    ours, published = (f"{flops / 1e9:.2f}" for flops in counts)
    return ours == published


def _clip(model: ClipNet, frames: int) -> dict[str, Any]:
    cost = cost_clip(model, _image(model, frames))
    return {"macs_clip": cost.macs, "flops_paper_clip": cost.once}


def _stream(model: StreamNet, dense: bool) -> dict[str, Any]:
    native = model.spec.window
    costs = _native_steps(model.spec.name, model.classifier.out_features, dense)
    held = sum(cost.pools_held for cost in costs)
    return {
        "macs_step": max(cost.macs for cost in costs),
        "macs_frame": sum(cost.macs for cost in costs) / len(costs),
        "flops_paper_step": max(cost.published for cost in costs),
        "flops_paper_frame": (sum(cost.published for cost in costs) + held) / len(costs),
        "flops_once_step": max(cost.once for cost in costs),
        "flops_once_frame": (sum(cost.once for cost in costs) + held) / len(costs),
        "window_sum": max(cost.window_sum for cost in costs) * model.window // native,
        "receptive_field": model.receptive_field,
        "padding": model.padding,
        "warmup": model.warmup,
        "stride": model.stride,
        "state_mb": state_bytes(steady_state(model, _image(model))) / 1e6,
    }


@cache
def _native_steps(name: str, num_classes: int, dense: bool) -> list[Cost]:
    """The costs of a period at the native window, on which only the sum over it depends."""
    model = on_meta(name, num_classes=num_classes, dense=dense)
    return cost_steps(model, _image(model))


def on_meta(name: str, **options: Any) -> ClipNet | StreamNet:
    """`co3d.create` without memory for the weights."""
    with torch.device("meta"):
        return create(name, **options)


def _image(model: ClipNet, *frames: int) -> Tensor:
    """A frame, or a clip of so many frames, as the model takes it, without memory."""
    size = model.spec.image_size
    return torch.empty(1, 3, *frames, size, size, device="meta")

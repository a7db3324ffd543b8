"""Sizes, costs and stream constants of every model: the rows of results/models.csv."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch

from ..nn import ClipNet, StreamNet, state_bytes
from ..zoo import Spec, create, list_models, spec
from .complexity import Cost, cost_clip, cost_steps, steady_state

WIDE = 64  # the paper's extended window
CHARADES = ("slow_8x8_r50", "coslow_8x8_r50")  # have published weights for its 157 classes


def rows(names: Iterable[str] | None = None) -> Iterator[dict[str, Any]]:
    """A row of results/models.csv for each setting of the named models (default: all).

    Raises:
        ValueError: for an unknown name.
    """
    for name in list_models() if names is None else names:
        for setting in settings(name):
            yield row(name, **setting)


def settings(name: str) -> list[dict[str, Any]]:
    """The arguments of `row` for one model: published and native lengths, and what else is used."""
    record = spec(name)
    published = {p.window if record.continual else p.frames for p in record.published}
    if not record.continual:
        chosen = [{"frames": frames} for frames in sorted({record.frames, *published})]
    else:
        clips = {p.frames for p in spec(record.weights).published}
        windows = sorted({record.window, WIDE, *published, *clips})
        chosen = [{"window": window} for window in windows]
    more = [{**setting, "num_classes": 157} for setting in chosen] if name in CHARADES else []
    if record.continual and _on_meta(name).stride > 1:
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
        ValueError: as `co3d.create`, and for frames of a continual net.
    """
    record = spec(name)
    if frames is not None and record.continual:
        raise ValueError(f"expected no frames for {name}, which takes any number, given {frames}")
    if frames is not None and frames < 1:
        raise ValueError(f"expected 1 frame or more for {name}, given {frames}")
    model = _on_meta(name, window=window, num_classes=num_classes, dense=dense)
    window = model.window if record.continual else None
    frames = None if record.continual else frames or record.frames
    published = {(p.frames, p.window): p.gflops for p in record.published}
    usual = model.classifier.out_features == record.num_classes and not dense
    gflops = published.get((frames, window)) if usual else None
    return {
        "model": name,
        "window": window,
        "image_size": record.image_size,
        "frames": frames,
        "num_classes": model.classifier.out_features,
        "dense": int(dense),
        "params": sum(parameter.numel() for parameter in model.parameters()),
        **(_stream(model, record, dense) if frames is None else _clip(model, record, frames)),
        "flops_published": None if gflops is None else round(gflops * 1e9),
    }


def matches_published(figures: dict[str, Any]) -> bool | None:
    """Whether a row's FLOPs round to the published ones, to two digits of 10^9; None without."""
    if figures["flops_published"] is None:
        return None
    here = figures["flops_paper_clip"] or figures["flops_paper_step"]
    return f"{here / 1e9:.2f}" == f"{figures['flops_published'] / 1e9:.2f}"


_CLIP = ("macs_clip", "flops_paper_clip")
_STREAM = (
    *("macs_step", "macs_frame", "flops_paper_step", "flops_paper_frame"),
    *("flops_once_step", "flops_once_frame", "window_sum"),
    *("receptive_field", "padding", "warmup", "stride", "state_mb"),
)


def _clip(model: ClipNet, record: Spec, frames: int) -> dict[str, Any]:
    size = record.image_size
    cost = cost_clip(model, torch.empty(1, 3, frames, size, size, device="meta"))
    return {**dict.fromkeys(_STREAM), "macs_clip": cost.macs, "flops_paper_clip": cost.once}


def _stream(model: StreamNet, record: Spec, dense: bool) -> dict[str, Any]:
    costs = _costs(record.name, model.window, model.classifier.out_features, dense)
    frame = torch.empty(1, 3, record.image_size, record.image_size, device="meta")
    held = sum(cost.pools_held for cost in costs)
    return {
        **dict.fromkeys(_CLIP),
        "macs_step": max(cost.macs for cost in costs),
        "macs_frame": _mean([cost.macs for cost in costs]),
        "flops_paper_step": max(cost.published for cost in costs),
        "flops_paper_frame": _mean([cost.published for cost in costs], held),
        "flops_once_step": max(cost.once for cost in costs),
        "flops_once_frame": _mean([cost.once for cost in costs], held),
        "window_sum": max(cost.window_sum for cost in costs),
        "receptive_field": model.receptive_field,
        "padding": model.padding,
        "warmup": model.warmup,
        "stride": model.stride,
        "state_mb": state_bytes(steady_state(model, frame)) / 1e6,
    }


def _costs(name: str, window: int, num_classes: int, dense: bool) -> list[Cost]:
    """The costs of a period; only the sum over the window depends on it, in proportion."""
    native = spec(name).window
    costs = _costs_at_native_window(name, num_classes, dense)
    return [replace(cost, window_sum=cost.window_sum * window // native) for cost in costs]


@lru_cache
def _costs_at_native_window(name: str, num_classes: int, dense: bool) -> tuple[Cost, ...]:
    size = spec(name).image_size
    model = _on_meta(name, num_classes=num_classes, dense=dense)
    return tuple(cost_steps(model, torch.empty(1, 3, size, size, device="meta")))


def _mean(counts: Sequence[int], more: int = 0) -> float:
    return (sum(counts) + more) / len(counts)


def _on_meta(name: str, **options: Any) -> ClipNet | StreamNet:
    with torch.device("meta"):
        return create(name, **options)


_LINE = "{:<20}{:>9}{:>8}{:>8}{:>8}{:>7}{:>7}{:>6}{:>8}{:>8}{:>17}{:>7}{:>10}{:>8}{:>6}{:>8}"
_UNITS = ((9, "G"), (6, "M"), (3, "k"), (0, ""))
HEAD = "\n".join(
    _LINE.format(*names)
    for names in (
        (*("", "", "MACs", "MACs", "MACs", "clip", "", "", "", "", "first", "", "FLOPs"),
         *("FLOPs", "", "FLOPs")),
        (*("model", "params", "clip", "step", "frame", "frames", "window", "RF", "padding"),
         *("warm-up", "output", "stride", "published", "here", "same", "once")),
    )
)  # fmt: skip


def line(row: dict[str, Any], fps: float) -> str:
    """A row as text under HEAD, blank where nothing applies; `fps` is the model's native rate."""
    counts = [_units(row[name]) for name in ("params", "macs_clip", "macs_step", "macs_frame")]
    cells = [row[name] for name in ("frames", "window", "receptive_field", "padding", "warmup")]
    first = None if row["warmup"] is None else row["warmup"] + 1
    cells += [first and f"{first} ({first / fps:.1f} s)", row["stride"]]
    published = row["flops_published"]
    cells += [published and f"{published / 1e9:.2f} G"]
    cells += [_units(row["flops_paper_clip"] or row["flops_paper_step"])]
    cells += [{True: "yes", False: "NO", None: None}[matches_published(row)]]
    cells += [_units(row["flops_paper_clip"] or row["flops_once_step"])]
    shown = ("" if cell is None else cell for cell in cells)
    return _LINE.format(row["model"], *counts, *shown).rstrip()


def _units(number: float | None) -> str:
    """Four digits: 1.963 G, 152.7 M, 63.04 k."""
    if number is None:
        return ""
    power, unit = next(pair for pair in _UNITS if number >= 10 ** pair[0])
    return f"{number / 10**power:#.4g} {unit}"

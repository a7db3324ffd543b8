"""Figures of the studies: accuracy since a reset, and against window, frame rate and clip position.

Curves of different origin, published and measured here, are in rows of panels of their own.
"""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from .style import (
    INK,
    MUTED,
    STYLE,
    WIDTH,
    Drawing,
    color,
    label,
    name_ends,
    order,
)

_SHADE = "#EAEAEA"


def phases(curves: pd.DataFrame, marks: pd.DataFrame) -> pd.DataFrame:
    """Top-1 of start-ups by origin, model and fill: three phases, and the overshoot.

    Args:
        curves: as of `start_up`.
        marks: by model, columns padding, warmup and receptive_field, in frames.

    Returns:
        The highest top-1 up to the padding and up to the first output that a stream gives by
        itself, the mean from 95 % of RF on, when it has forgotten its beginning but for the rims
        of its first layers, and the second less the third.
    """
    curves = curves.join(marks, on="model")
    seen, keys = curves["frames_seen"], ["origin", "model", "fill"]
    parts = {
        "up to the padding": curves[seen <= curves["padding"]],
        "up to the first output": curves[seen <= curves["warmup"] + 1],
    }
    table = pd.DataFrame({name: part.groupby(keys)["top1"].max() for name, part in parts.items()})
    filled = curves[seen >= 0.95 * curves["receptive_field"]]
    table["from about RF on"] = filled.groupby(keys)["top1"].mean()
    return table.assign(overshoot=table["up to the first output"] - table["from about RF on"])


@mpl.rc_context(STYLE)
def start_up(curves: pd.DataFrame, marks: pd.DataFrame) -> Figure:
    """Top-1 against the frames seen since a reset, for both fills, a panel per model.

    Args:
        curves: columns origin (a row of panels each), model, fill, frames_seen, top1.
        marks: by model, columns padding and warmup in frames; clip and chance, both top-1.
    """
    fig, panels = _panels(curves, height=3.0)
    for first, (model, ax) in zip(_firsts(panels), panels.items(), strict=True):
        own, mark = curves[curves["model"] == model], marks.loc[model]
        ax.axvspan(0, mark["padding"] + 0.5, color=_SHADE, lw=0)
        ax.axvline(mark["warmup"] + 1, color=MUTED, ls=":", lw=1.2)
        ax.axhline(mark["chance"], color=MUTED, lw=0.8)
        ax.axhline(mark["clip"], color="#9A9A9A", lw=1.3)
        _draw_fills(ax, own, color(model))
        ax.set(xlim=(0, own["frames_seen"].max() + 1), ylim=(0, _top(curves, own)))
        about = f"padding {mark['padding']:.0f}\nfirst output {mark['warmup'] + 1:.0f}"
        _title(ax, model, about)
        if first:
            _explain(ax, mark)
    fig.supxlabel(
        "frames seen since the reset   (grey: aggregated padding, dotted: first output that a "
        "stream gives by itself,\nlines across: grey the clip net, thin and dark chance)",
        fontsize=8.5,
    )
    fig.supylabel("top-1 accuracy (%)", fontsize=9.5)
    return fig


def _explain(ax: Axes, mark: pd.Series) -> None:
    """Names the lines of the first panel of a row."""
    note = {"va": "bottom", "size": 7.5, "color": MUTED}
    ax.text(0.6, mark["clip"], "clip net", **note)
    ax.text(ax.get_xlim()[1], mark["chance"], "chance", ha="right", **note)
    place = {"loc": "lower right", "bbox_to_anchor": (1.02, 0.18), "borderaxespad": 0}
    ax.legend(title="state begins as", title_fontsize=8, fontsize=8, **place)


def _draw_fills(ax: Axes, curves: pd.DataFrame, shade: str) -> None:
    looks = {
        "zeros": {"color": shade, "lw": 2.0},
        "replicate": {"color": INK, "lw": 1.2, "ls": "--", "label": "first frame"},
    }
    for fill, look in looks.items():
        own = curves[curves["fill"] == fill].sort_values("frames_seen")
        ax.plot(own["frames_seen"], own["top1"], **{"label": fill, **look}, gid=fill)


def sweep(accuracy: pd.DataFrame) -> pd.DataFrame:
    """Each stream beside its control on the same frames and its clip net: rows of `against_window`.

    Takes rows of the accuracy table of one data set, of modes stream, clips and clip.

    Returns:
        Columns model (of the clip net), window, frames; top-1 and its interval as stream, control
        and clip with suffixes "", "_low", "_high"; "ratio" is MACs of the control by the stream's.
        Where a window sees less than a clip, the control is NaN.
    """
    parts = {}
    for name, mode in (("stream", "stream"), ("control", "clips"), ("clip", "clip")):
        rows = accuracy[accuracy["mode"] == mode]
        columns = {"top1": name, "ci_low": f"{name}_low", "ci_high": f"{name}_high"}
        columns["macs_per_prediction"] = f"{name}_macs"
        rows = rows.assign(model=rows["model"].str.removeprefix("co")).rename(columns=columns)
        keys = ["model"] + ["window"] * (name == "stream") + ["frames"] * (name != "clip")
        parts[name] = rows[[*keys, *columns.values()]]
    both = parts["stream"].merge(parts["control"], on=["model", "frames"], how="left")
    both = both.merge(parts["clip"].drop(columns="clip_macs"), on="model")
    ratio = both.pop("control_macs") / both.pop("stream_macs")
    return both.assign(ratio=ratio).sort_values(["model", "window"], ignore_index=True)


def published_sweep(published: pd.DataFrame) -> pd.DataFrame:
    """The published sweep of the window as rows of `against_window`; `inside` the start-up is 1."""
    top1 = {"top1_percent": "top1", "flops_per_prediction": "macs_per_prediction"}
    rows = published.rename(columns=top1).assign(ci_low=np.nan, ci_high=np.nan)
    rows["frames"] = rows["receptive_field"]
    inside = rows.loc[rows["mode"] == "stream", ["model", "window", "inside_transient"]]
    inside = inside.assign(model=inside["model"].str.removeprefix("co"))
    return sweep(rows).merge(inside.rename(columns={"inside_transient": "inside"}))


@mpl.rc_context(STYLE)
def against_window(sweeps: pd.DataFrame) -> Figure:
    """Top-1 of streams against their window, a panel per model.

    Takes rows of `sweep` and `published_sweep`, with the column origin (a row of panels each).
    Streams that are still in their start-up (`inside`) have hollow markers.
    """
    fig, panels = _panels(sweeps, height=3.0)
    for first, (model, ax) in zip(_firsts(panels), panels.items(), strict=True):
        own = sweeps[sweeps["model"] == model]
        _draw_sweep(ax, own, color(model))
        windows = own["window"].astype(float)
        ax.set(xscale="log", ylim=_between(sweeps, own))
        ax.set_xlim(windows.min() / 1.2, windows.max() * 1.2)
        ax.set_xticks(windows, [f"{window:g}" for window in windows])
        ax.xaxis.set_minor_locator(NullLocator())
        ratio = own["ratio"].dropna()
        costs = (
            f"control: {ratio.min():.0f} to {ratio.max():.0f} ×\nthe stream's MACs"
            if len(ratio)
            else "control: not published"
        )
        _title(ax, model, costs)
        if first:
            ax.legend(loc="best", fontsize=8)
    fig.supxlabel("window of the running average (frames)", fontsize=9.5)
    fig.supylabel("top-1 accuracy (%)", fontsize=9.5)
    return fig


def _draw_sweep(ax: Axes, own: pd.DataFrame, shade: str) -> None:
    """A stream, its control where there is one, and its clip net as a line across."""
    ax.axhline(own["clip"].iloc[0], color=INK, ls=(0, (6, 3)), lw=0.9, label="one clip")
    for name, tone, style in (("control", MUTED, "D--"), ("stream", shade, "o-")):
        rows = own.dropna(subset=name)
        if rows.empty:
            continue
        windows = rows["window"].astype(float)
        look = {"color": tone, "mfc": tone if name == "stream" else "white", "ms": 4.5, "lw": 1.6}
        ax.plot(windows, rows[name], style, gid=name, label=name, **look)
        ends = (rows[f"{name}_low"], rows[f"{name}_high"])
        ax.fill_between(windows, *ends, color=tone, alpha=0.14, lw=0)
    hollow = own[own["inside"] == 1]
    if len(hollow):
        look = {"mfc": "white", "mec": shade, "ms": 4.5, "ls": "", "label": "in its start-up"}
        ax.plot(hollow["window"].astype(float), hollow["stream"], "o", **look)


@mpl.rc_context(STYLE)
def against_rate_and_position(
    rates: pd.DataFrame, positions: pd.DataFrame, native: float
) -> Figure:
    """Top-1 against the rate at which frames are fed, and against where in the video the clip lies.

    Takes rows of the accuracy table, of modes clip and stream; `native` is the models' own rate.
    """
    fig = Drawing(WIDTH, 3.6)
    left, right = fig.subplots(1, 2, sharey=True)
    ends = {}
    for ax, rows, column in ((left, rates, "fps"), (right, positions, "position")):
        ends[ax] = _draw_series(ax, rows, column)
        ax.grid(axis="y")
    ticks = sorted(rates["fps"].unique())
    left.axvline(native, color=MUTED, ls=":", lw=1.2)
    left.set(xscale="log", xlabel="frames fed per second of video", title="Frame rate")
    left.set_ylabel(f"top-1 on {rates['dataset'].iloc[0]} (%)")
    left.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    left.xaxis.set_minor_locator(NullLocator())
    left.text(native, left.get_ylim()[0], " trained at", size=8, color=MUTED, va="bottom")
    right.set(xlabel="share of the free span before the clip", title="Clip position")
    right.set_xticks(sorted(positions["position"].unique()))
    fig.subplots_adjust(0.075, 0.14, 0.89, 0.92, wspace=0.3)
    for ax, some in ends.items():
        name_ends(ax, some)
    return fig


def _draw_series(ax: Axes, rows: pd.DataFrame, column: str) -> list[tuple]:
    """A line with its interval per model; returns what `name_ends` takes."""
    ends = []
    for model, own in rows.groupby("model"):
        own, stream = own.sort_values(column), own["mode"].iloc[0] == "stream"
        shade = color(model)
        reach = [own["top1"] - own["ci_low"], own["ci_high"] - own["top1"]]
        ax.errorbar(
            own[column],
            own["top1"],
            reach,
            fmt="o-" if stream else "s--",
            color=shade,
            mfc=shade if stream else "white",
            ms=5,
            lw=1.5,
            elinewidth=0.9,
            capsize=3,
            gid=model,
        )
        ends.append((own[column].iloc[-1], own["top1"].iloc[-1], label(model), shade))
    return ends


def _panels(table: pd.DataFrame, height: float) -> tuple[Drawing, dict[str, Axes]]:
    """A panel per model, in a row of panels with a common scale per origin."""
    rows: Mapping[str, list[str]] = {
        origin: order(part["model"]) for origin, part in table.groupby("origin", sort=False)
    }
    fig = Drawing(WIDTH, 0.4 + height * len(rows))
    fig.set_layout_engine("constrained")
    panels = {}
    for part, (origin, models) in zip(
        np.atleast_1d(fig.subfigures(len(rows), 1)), rows.items(), strict=True
    ):
        part.suptitle(origin, x=0.02, ha="left", fontsize=11, weight="bold")
        axes = part.subplots(1, len(models), sharey=True, squeeze=False)[0]
        for ax in axes:
            ax.grid(axis="y")
        panels |= dict(zip(models, axes, strict=True))
    return fig, panels


def _firsts(panels: Mapping[str, Axes]) -> list[bool]:
    """Whether each panel is the first of its row."""
    return [ax.get_subplotspec().is_first_col() for ax in panels.values()]


def _title(ax: Axes, model: str, about: str) -> None:
    space = "\n" * (1 + about.count("\n"))
    ax.set_title(f"{label(model)}{space}", color=color(model), fontsize=9)
    ax.text(0, 1.02, about, transform=ax.transAxes, size=7.5, color=INK, va="bottom")


def _top(table: pd.DataFrame, own: pd.DataFrame) -> float:
    """A common upper end of the panels of one origin."""
    same = table[table["origin"] == own["origin"].iloc[0]]
    return min(100.0, 1.12 * same["top1"].max()) + 2


def _between(table: pd.DataFrame, own: pd.DataFrame) -> tuple[float, float]:
    same = table[table["origin"] == own["origin"].iloc[0]]
    values = same[
        [c for c in ("stream", "control", "clip", "stream_low", "control_low") if c in same]
    ]
    low, high = np.nanmin(values.astype(float)), np.nanmax(values.astype(float))
    return low - 0.08 * (high - low), min(101.0, high + 0.12 * (high - low))

"""Plots that several notebooks or a control share; what one notebook draws is drawn there."""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from .drawings import EMPTY, KEPT
from .style import (
    CLIP,
    MARKERS,
    MUTED,
    SMALLEST,
    STYLE,
    WIDTH,
    Drawing,
    color,
    family,
    label,
    mark,
    order,
)

MODES = {
    "clip": "one clip per prediction;\nits frames inside",
    "clips": "control: clips averaged;\nframes seen inside",
    "stream": "stream: the frames since its last\nprediction; window inside",
}
COLUMNS = 3  # of panels


@mpl.rc_context(STYLE)
def accuracy_vs_macs(accuracy: pd.DataFrame, metric: str = "top1") -> Drawing:
    """Measured accuracy against MMACs per prediction, a panel per family.

    Args:
        accuracy: rows of results/accuracy.csv, one for each model, mode and window.
        metric: its column, "top1" or "map_common", in per cent.

    Raises:
        ValueError: for rows of several data sets or of none, or two of a kind.
    """
    names = sorted(set(accuracy["dataset"]))
    if len(names) != 1:
        raise ValueError(f"expected rows of one data set, given {', '.join(names) or 'no rows'}")
    if accuracy.duplicated(["model", "mode", "window", "frames", "views"]).any():
        raise ValueError("two rows share model, mode, window and views: choose one protocol")
    families = list(dict.fromkeys(map(family, order(accuracy["model"]))))
    lines = -(-(len(families) + 1) // COLUMNS)
    fig = Drawing(WIDTH, 2.9 * lines + 0.3)
    fig.set_layout_engine("constrained")
    panels = fig.subplots(lines, COLUMNS, sharex=True, sharey=True, squeeze=False)
    points = accuracy.assign(x=accuracy["macs_per_prediction"] / 1e6, y=accuracy[metric])
    for ax, name in zip(panels.flat, families, strict=False):
        _panel(ax, points[points["model"].map(family) == name])
    for ax in panels.flat[len(families) :]:
        ax.set_axis_off()
    handles = [mark(mode, text) for mode, text in MODES.items() if mode in set(accuracy["mode"])]
    handles.append(Line2D([], [], color=MUTED, ls="", marker="|", ms=13, label="95 % interval"))
    panels.flat[len(families)].legend(handles=handles, loc="center", labelspacing=1.2)
    panels[0, 0].set_xlim(points["x"].min() / 1.7, points["x"].max() * 1.7)
    for ax in panels[:, 0]:
        ax.set_ylabel(f"{'Top-1' if metric == 'top1' else 'mAP'} on {names[0]} (%)")
    return fig


def _panel(ax: Axes, points: pd.DataFrame) -> None:
    """Clips, streams and controls of one family, the frames or the window inside the marks."""
    shade = color(points["model"].iloc[0])
    for mode, part in points.groupby("mode"):
        part, stream = part.sort_values("frames"), mode == "stream"
        reach = np.array([part["y"] - part["ci_low"], part["ci_high"] - part["y"]]).clip(0)
        look = {"mfc": shade if stream else "white", "ms": 14 if mode == "clips" else 12}
        line = MARKERS[mode] + ("-" if stream else "--")
        ax.errorbar(part["x"], part["y"], reach, fmt=line, color=shade, lw=0.8, capsize=3, **look)
        for point in part.itertuples():
            number, tone = (point.window, "white") if stream else (point.frames, shade)
            place = {"ha": "center", "va": "center_baseline", "size": SMALLEST}
            ax.text(point.x, point.y, f"{number:.0f}", color=tone, **place)
    ax.set(xscale="log", xlabel="MMACs per prediction")
    ax.set_title(label(min(points["model"], key=len)), color=shade)
    ax.xaxis.set_major_formatter("{x:g}")
    ax.tick_params(labelbottom=True, labelleft=True)
    ax.grid(True)


@mpl.rc_context(STYLE)
def at_window(
    sweeps: pd.DataFrame, nets: pd.DataFrame, fps: float, title: str, window: int
) -> Drawing:
    """Top-1 of all streams at one window beside control and clip, and how the streams start.

    Args:
        sweeps: a row per model (of the clip network) and window, with `frames` (the receptive
            field) and the top-1 of `stream`, `control` and `clip`; `stream_low`, `stream_high`,
            `control_low` and `control_high` are the ends of 95 % intervals.
        nets: the `padding` and `stride` of each stream, its name the index.
        fps: frames that a stream sees per second.
    """
    names, last = order(sweeps["model"]), 1.25 * sweeps["frames"].max() / fps
    height = 1.4 + 0.42 * len(names)
    fig = Drawing(WIDTH, height)  # laid out by hand, which takes half the time
    left, right = fig.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    fig.subplots_adjust(0.15, 0.52 / height, 0.985, 1 - 0.32 / height, wspace=0.05)
    for row in sweeps[sweeps["window"] == window].itertuples():
        y, shade, net = names.index(row.model), color(row.model), nets.loc[f"co{row.model}"]
        left.vlines(row.clip, y - 0.32, y + 0.32, color=CLIP, ls="--", lw=1.2)
        for kind, below, look, tone in (
            ("stream", 0.12, "o", shade),
            ("control", -0.16, "D", MUTED),
        ):
            value, low, high = (getattr(row, kind + end) for end in ("", "_low", "_high"))
            reach = [[value - low], [high - value]]
            left.errorbar([value], [y + below], None, reach, fmt=look, color=tone, ms=5, lw=1.2)
        # The first output comes so many strides before the one that sees no padding.
        silent = (row.frames - net["stride"] * -(-net["padding"] // net["stride"])) / fps
        ends = np.array([0, silent, row.frames / fps, last])
        right.barh(y, np.diff(ends), 0.5, ends[:-1], color=[EMPTY, KEPT, shade])
        right.text(silent, y, f"{silent:.1f} s ", size=8.5, ha="right", va="center")
    left.set_yticks(range(len(names)), [label(f"co{name}") for name in names])
    low = sweeps[["stream_low", "control_low", "clip"]].min(axis=None) - 2
    left.set(xlim=(low, 101), ylim=(len(names) - 0.4, -0.9), xlabel="top-1 accuracy (%)")
    left.set_title(f"Window {window:g} · {title}")
    right.set(xlim=(-0.1 * last, last), xlabel="seconds of video", title="Start-up")
    left.text(low, -0.6, " ● stream   ◆ control on the same frames   ┆ one clip", size=8)
    right.text(0, -0.6, "silent, then start-up, then all is video", size=8)
    for ax in (left, right):
        ax.grid(axis="x")
        ax.tick_params(axis="y", length=0)
    return fig

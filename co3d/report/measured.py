"""Figures of the accuracies measured here: rows of results/accuracy.csv in, figures out."""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .style import (
    INK,
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
SHOWN = 24  # classes


@mpl.rc_context(STYLE)
def accuracy_vs_macs(accuracy: pd.DataFrame, metric: str = "top1") -> Figure:
    """Accuracy of one data set against MMACs per prediction, a panel per family.

    Args:
        accuracy: rows of results/accuracy.csv, one for each model, mode and window.
        metric: its column, "top1" or "map_common", in per cent.

    Raises:
        ValueError: for rows of several data sets, or of none, or two of a kind.
    """
    names = sorted(set(accuracy["dataset"]))
    if len(names) != 1:
        raise ValueError(f"expected rows of one data set, given {', '.join(names) or 'no rows'}")
    if accuracy.duplicated(["model", "mode", "window", "frames", "views"]).any():
        raise ValueError("two rows share model, mode, window and views: choose one protocol")
    families = list(dict.fromkeys(map(family, order(accuracy["model"]))))
    rows = -(-(len(families) + 1) // COLUMNS)
    fig = Drawing(WIDTH, 2.9 * rows + 0.3)
    axes = fig.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False).ravel()
    cost = accuracy["macs_per_prediction"].astype(float) / 1e6
    for ax, name in zip(axes, families, strict=False):
        mine = accuracy["model"].map(family) == name
        _panel(ax, accuracy[mine].assign(x=cost[mine], y=accuracy.loc[mine, metric]))
    for ax in axes[len(families) + 1 :]:
        ax.set_axis_off()
    _legend(axes[len(families)], set(accuracy["mode"]))
    axes[0].set_xlim(cost.min() / 1.7, cost.max() * 1.7)
    what = "Top-1" if metric == "top1" else "mAP"
    for index, ax in enumerate(axes[: len(families)]):
        if index % COLUMNS == 0:
            ax.set_ylabel(f"{what} on {names[0]} (%)")
        if index + COLUMNS >= len(families):
            ax.set_xlabel("MMACs per prediction")
            ax.tick_params(labelbottom=True)
    fig.tight_layout()
    return fig


def _panel(ax: Axes, rows: pd.DataFrame) -> None:
    shade = color(rows["model"].iloc[0])
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.grid(True)
    ax.set_title(label(min(rows["model"], key=len)), color=shade)
    for mode in MODES:
        some = rows[rows["mode"] == mode].sort_values("frames")
        if mode != "clip":
            line = "-" if mode == "stream" else "--"
            ax.plot(some["x"], some["y"], line, color=shade, lw=1, alpha=0.5, zorder=1)
        reach = np.array([some["y"] - some["ci_low"], some["ci_high"] - some["y"]]).clip(0)
        style = {"color": shade, "lw": 1, "ls": "", "capsize": 3, "zorder": 2}
        ax.errorbar(some["x"], some["y"], reach, **style)
        filled = shade if mode == "stream" else "white"
        look = {
            "marker": MARKERS[mode],
            "edgecolor": shade,
            "lw": 1.3,
            "zorder": 3,
            "clip_on": False,
        }
        areas = [210 if frames > 99 else 190 for frames in some["frames"]]
        ax.scatter(some["x"], some["y"], areas if mode == "clips" else 140, filled, **look)
        for point in some.itertuples():
            number = point.window if mode == "stream" else point.frames
            tone = "white" if mode == "stream" else shade
            place = {"ha": "center", "va": "center_baseline", "size": SMALLEST}
            place["weight"] = "bold" if number < 100 else "normal"  # three digits, to fit in
            ax.text(point.x, point.y, f"{number:.0f}", color=tone, zorder=4, **place)


def _legend(ax: Axes, modes: set[str]) -> None:
    """In a panel of its own."""
    ax.set_axis_off()
    handles = [mark(mode, text) for mode, text in MODES.items() if mode in modes]
    handles.append(Line2D([], [], color=MUTED, ls="", marker="|", ms=13, label="95 % interval"))
    ax.legend(handles=handles, loc="center", labelspacing=1.2)


@mpl.rc_context(STYLE)
def per_class(shares: pd.DataFrame, title: str) -> Figure:
    """Accuracy of each class, a row, under each reading, a column, in per cent.

    Of more classes than fit, those are shown whose readings differ most.
    """
    if len(shares) > SHOWN:
        spread = shares.max(axis=1) - shares.min(axis=1)
        shares = shares.loc[spread.nlargest(SHOWN).index]
    fig = Drawing(WIDTH, 0.27 * len(shares) + 1.7)
    ax = fig.add_subplot()
    picture = ax.imshow(shares.to_numpy(float), cmap="cividis", vmin=0, vmax=100, aspect="auto")
    for (row, column), share in np.ndenumerate(shares.to_numpy(float)):
        if np.isfinite(share):
            tone = INK if share > 55 else "white"
            place = {"ha": "center", "va": "center", "size": 7.5}
            ax.text(column, row, f"{share:.0f}", color=tone, **place)
    ax.set_xticks(range(shares.shape[1]), shares.columns, rotation=35, ha="right")
    ax.set_yticks(range(len(shares)), shares.index)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_title(title)
    fig.colorbar(picture, label="%", fraction=0.03, pad=0.02)
    fig.tight_layout()
    return fig

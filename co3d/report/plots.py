"""The plot that several notebooks share; what one notebook draws is drawn there."""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from .style import (
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

"""Figures of the published throughput on four devices; never on an axis with what is measured here.

A square is one prediction per clip, a circle one per frame; a family keeps its colour everywhere.
"""

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from . import plots, tables
from .style import MUTED, STYLE, Drawing, color, label

DEVICES = {
    "cpu": "Laptop CPU",
    "jetson_tx2": "Jetson TX2",
    "jetson_xavier": "Jetson AGX Xavier",
    "rtx_2080_ti": "RTX 2080 Ti",
}


@mpl.rc_context(STYLE)
def gains(published: pd.DataFrame) -> Figure:
    """Published predictions per second of each clip net and of its stream, a panel per device.

    Takes the table kinetics400_published; streams at their native window.
    """
    both = tables.pairs(published).drop_duplicates("model")
    fig = Drawing(11.5, 1.2 + 0.36 * len(both))
    fig.set_layout_engine("constrained")
    panels = fig.subplots(1, len(DEVICES), sharey=True)
    for ax, (device, name) in zip(panels, DEVICES.items(), strict=True):
        column = f"{device}_per_s_mean"
        for y, pair in enumerate(both.to_dict("records")):
            shade, clip, stream = color(pair["model"]), pair[f"{column}_clip"], pair[column]
            ax.plot([clip, stream], [y, y], color=shade, lw=1.5, alpha=0.6, zorder=1)
            ax.scatter([clip], [y], 42, "white", marker="s", edgecolors=shade, linewidths=1.4)
            ax.scatter([stream], [y], 48, shade, marker="o", gid=f"{device}:{pair['model']}")
            ax.annotate(f"{stream / clip:.1f}×", (max(clip, stream), y), (8, 0),
                        textcoords="offset points", va="center", size=8.5, color=shade)  # fmt: skip
        low, high = both[[column, f"{column}_clip"]].min(axis=None), both[column].max()
        ax.set(xscale="log", title=name, xlim=(low / 2, high * 6))
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.grid(axis="x")
    panels[0].set_yticks(range(len(both)), [label(model) for model in both["model"]])
    panels[0].set_ylim(len(both) - 0.5, -0.5)
    fig.supxlabel("published predictions per second   (square: clips, circle: frames of a stream)",
                  fontsize=9.5)  # fmt: skip
    return fig


@mpl.rc_context(STYLE)
def accuracy(published: pd.DataFrame) -> Figure:
    """Published top-1 on Kinetics-400 against published throughput, a panel per device.

    Takes the table kinetics400_published. Arrows go from a clip net to its stream at the native
    window and at 64 frames.
    """
    fig = Drawing(12, 9.4)
    axes = fig.subplots(2, 2, sharey=True)
    fig.subplots_adjust(0.055, 0.065, 0.99, 0.955, wspace=0.05, hspace=0.2)
    for ax, (device, name) in zip(axes.flat, DEVICES.items(), strict=True):
        rows = published[published[f"{device}_per_s_mean"].notna()]
        points = plots.published_points(rows.assign(x=rows[f"{device}_per_s_mean"]))
        ax.set(xscale="log", title=name, ylim=(52, 75))
        ax.set_xlim(points["x"].min() / 2, points["x"].max() * 2.6)
        plots.draw_points(ax, points, {}, legend=False)
    for ax in axes[:, 0]:
        ax.set_ylabel("Published top-1 on Kinetics-400 (%)")
    fig.supxlabel("published predictions per second", x=0.25, y=0.008, fontsize=9.5)
    marks = {"s": "one clip per prediction, its frames inside",
             "o": "one frame per prediction, the window inside"}  # fmt: skip
    handles = [
        Line2D([], [], marker=marker, ls="", ms=8, mec=MUTED, mew=1.4, label=text,
               mfc=MUTED if marker == "o" else "white")
        for marker, text in marks.items()
    ]  # fmt: skip
    fig.legend(handles=handles, loc="lower right", ncols=2)
    return fig

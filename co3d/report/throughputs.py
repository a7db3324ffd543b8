"""Figures of the published throughput on four devices; nothing here is measured."""

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from . import plots, tables
from .style import STYLE, WIDTH, Drawing, color, label, mark, order

DEVICES = {
    "cpu": "Laptop CPU",
    "jetson_tx2": "Jetson TX2",
    "jetson_xavier": "Jetson AGX Xavier",
    "rtx_2080_ti": "RTX 2080 Ti",
}
# Names that find no good place by themselves, as in `plots.draw_points`.
_SPOTS = {
    "cpu": {
        "slowfast_8x8_r50": (9, 8, "left"),
        "slowfast_4x16_r50": (6, 13, "left"),
        "x3d_m": (7, 2, "left"),
    },
    "jetson_tx2": {
        "slow_8x8_r50": (14, 12, "left"),
        "slowfast_4x16_r50": (-53, -23, "right"),
        "x3d_m": (9, 2, "left"),
    },
    "rtx_2080_ti": {
        "slow_8x8_r50": (-6, -27, "right"),
        "slowfast_4x16_r50": (8, -10, "right"),
        "slowfast_8x8_r50": (-3, 22, "left"),
        "x3d_l": (7, 0, "left"),
        "x3d_m": (7, 4, "left"),
    },
}


@mpl.rc_context(STYLE)
def gains(published: pd.DataFrame) -> Figure:
    """Published evaluations per second of each clip net and of its stream, a panel per device.

    Takes the table kinetics400_published; streams at their native window.
    """
    both = tables.pairs(published).drop_duplicates("model").set_index("model")
    both = both.loc[order(both.index)].reset_index()
    fig = Drawing(WIDTH, 1.2 + 0.36 * len(both))
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
        ax.set(xscale="log", xlim=(low / 2, high * 7))
        ax.set_title(name, size=9.5)
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.grid(axis="x")
    panels[0].set_yticks(range(len(both)), [label(model) for model in both["model"]])
    panels[0].set_ylim(len(both) - 0.5, -0.5)
    fig.supxlabel("published evaluations per second   (square: clips, circle: frames of a stream)",
                  fontsize=9.5)  # fmt: skip
    return fig


@mpl.rc_context(STYLE)
def accuracy(published: pd.DataFrame) -> Figure:
    """Published top-1 on Kinetics-400 against published throughput, a panel per device.

    Takes the table kinetics400_published. Arrows go from a clip net to its stream at the native
    window and at 64 frames.
    """
    fig = Drawing(WIDTH, 9.8)
    axes = fig.subplots(2, 2, sharey=True)
    fig.subplots_adjust(0.075, 0.085, 0.99, 0.965, wspace=0.05, hspace=0.17)
    for ax, (device, name) in zip(axes.flat, DEVICES.items(), strict=True):
        rows = published[published[f"{device}_per_s_mean"].notna()]
        points = plots.published_points(rows.assign(x=rows[f"{device}_per_s_mean"]))
        ax.set(xscale="log", title=name, ylim=(52, 75))
        ax.set_xlim(points["x"].min() / 2.6, points["x"].max() * 2.6)
        plots.draw_points(ax, points, _SPOTS.get(device, {}), small=True)
    for ax in axes[:, 0]:
        ax.set_ylabel("Published top-1 on Kinetics-400 (%)")
    words = "published evaluations per second (clips, or frames of a stream)"
    fig.supxlabel(words, y=0.035, fontsize=9.5)
    handles = [
        mark("clip", "clip net", 5),
        mark("stream", "stream at its native window and, next along the arrow, at 64 frames", 5),
    ]
    fig.legend(handles=handles, loc="lower center", ncols=2)
    return fig

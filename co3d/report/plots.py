"""Figures of published accuracies, and of one video: data frames in, figures out."""

import math
from collections.abc import Mapping
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch
from matplotlib.transforms import Bbox

from . import tables
from .places import place_names, square
from .style import (
    CLIP,
    FAMILY_COLORS,
    INK,
    MARKERS,
    MUTED,
    SMALLEST,
    STYLE,
    WIDTH,
    Drawing,
    color,
    mark,
)

# Names that have no free place around their marker: points to the right, points up, alignment.
_PUBLISHED_SPOTS = {
    "x3d_s": (11, -11, "left"),
    "slow_8x8_r50": (-6, -17, "left"),
    "slowfast_4x16_r50": (-9, -4, "right"),
}
_BENT = ("slow_8x8_r50",)  # whose arrow would lead through the marker of SlowFast-4×16


@mpl.rc_context(STYLE)
def published_accuracy_vs_macs(published: pd.DataFrame, context: pd.DataFrame) -> Figure:
    """Published top-1 on Kinetics-400 against the published GFLOPs of a clip or predicting step.

    Takes the tables kinetics400_published and kinetics400_context_published of results/paper.
    """
    points = published_points(pd.concat([published, context], ignore_index=True))
    fig, ax = _accuracy_axes((0.08, 8000), (51.5, 83))
    ax.set_xlabel("GFLOPs of the predicting step as published (they are multiply-accumulates)")
    ax.set_title("Published accuracy against FLOPs of one clip or of the step that predicts")
    _draw_front(ax, points, named_at=100)
    draw_points(ax, points, _PUBLISHED_SPOTS | _above(22), notes=_gains(published))
    return fig


def _above(points: float) -> dict[str, tuple]:
    """Spots of the names of streams on the front, whose line would cross them elsewhere."""
    names = ("cox3d_s", "cox3d_m", "cox3d_l", "coslow_8x8_r50")
    return dict.fromkeys(names, (0, points, "center"))


def _gains(published: pd.DataFrame) -> dict[str, str]:
    """By continual model at its widest window: FLOPs saved and points gained."""
    widest = tables.pairs(published).sort_values("window").groupby("model").last()
    return {
        row.Index: f"÷ {row.ratio:.1f}, {row.points:+.1f}".replace("-", "−")
        for row in widest.rename(columns={"FLOPs ratio": "ratio"}).itertuples()
    }


@mpl.rc_context(STYLE)
def published_accuracy_vs_counted_macs(counted: pd.DataFrame) -> Figure:
    """Published top-1 on Kinetics-400 against the GMACs of a clip or predicting step counted here.

    Takes the published table with `tables.with_counts`; rows without a count are left out.
    """
    counted = counted[counted["macs_per_predicting_step"].notna()]
    macs = counted["macs_per_predicting_step"].astype(float)
    points = published_points(counted.assign(x=macs / 1e9))
    fig, ax = _accuracy_axes((0.1, 200), (52, 75))
    ax.set_xlabel("GMACs of the predicting step counted here, or of the clip")
    ax.set_title("Published accuracy against multiply-accumulates counted here")
    _draw_front(ax, points, named_at=30)
    draw_points(ax, points, _PUBLISHED_SPOTS | _above(16), legend="lower left")
    return fig


def _draw_front(ax: Axes, points: pd.DataFrame, named_at: float) -> None:
    """A line below which a point is beaten in cost or accuracy, at equal or better of the other."""
    best = points[tables.pareto_front(points, "x", "y")].sort_values("x")
    ends = [*best["x"][1:], ax.get_xlim()[1]]
    rises = [*best["y"][1:], best["y"].max()]
    look = {"color": "#BDBDBD", "lw": 1.2, "zorder": 0, "gid": "front"}
    for x, y, end, rise in zip(best["x"], best["y"], ends, rises, strict=True):
        ax.plot([x, end], [y, y], **look)
        ax.plot([end, end], [y, rise], **look)
    y = best.loc[best["x"] <= named_at, "y"].max()
    note = {"va": "bottom", "ha": "center", "size": 8, "color": MUTED}
    ax.text(named_at, y + 0.15, "Pareto front", **note)


def published_points(table: pd.DataFrame) -> pd.DataFrame:
    """What `draw_points` draws of published rows; `x` is that column or the published GFLOPs."""
    return pd.DataFrame(
        {
            "model": table["model"],
            "mode": table["mode"],
            "number": table["window"].fillna(table["frames"]).astype(int),
            "x": table["x" if "x" in table else "gflops_per_prediction"],
            "y": table["top1_percent"],
            "approximate": table["approximate"].fillna(0).astype(bool),
        }
    )


def _accuracy_axes(cost: tuple[float, float], top1: tuple[float, float]) -> tuple[Drawing, Axes]:
    fig = Drawing(WIDTH, 5.9)
    ax = fig.add_axes((0.075, 0.095, 0.915, 0.85))
    ax.set_xscale("log")
    ax.set(xlim=cost, ylim=top1)
    ax.set_ylabel("Published top-1 accuracy on Kinetics-400 (%)")
    return fig, ax


@mpl.rc_context(STYLE)
def over_time(curves: Mapping[str, np.ndarray], frames: int, fps: float, title: str) -> Figure:
    """Probabilities, one per prediction, against seconds; each curve ends at frame `frames`.

    What comes before a curve's first prediction is a bar below, with the line of the curve left of
    it. The first curve is by clips and dashed, up to two others are of streams.
    """
    fig = Drawing(WIDTH, 3.7)
    ax = fig.add_subplot()
    looks = ((CLIP, "--"), ("#56B4E9", "-"), (FAMILY_COLORS["x3d"], "-"))
    for row, ((name, values), (tone, line)) in enumerate(zip(curves.items(), looks, strict=False)):
        first = frames - len(values) + 1
        ax.plot(np.arange(first, frames + 1) / fps, values, line, color=tone, lw=1.8)
        y = -0.09 - 0.095 * row
        key = {"color": tone, "lw": 1.8, "clip_on": False}
        (sample,) = ax.plot([-0.055, -0.012], [y, y], line, **key)
        sample.set(transform=ax.get_yaxis_transform(), in_layout=False)
        ax.plot([0, first / fps], [y, y], color=tone, lw=12, solid_capstyle="butt", alpha=0.3)
        x = first if first < 0.6 * frames else 0  # the note follows the bar, or lies on a long one
        ax.text(
            x / fps + 0.08,
            y,
            f"{name}: first prediction after {first / fps:.1f} s",
            va="center",
            fontsize=8.5,
            color=INK,
            in_layout=False,
        )
    ax.set(
        xlim=(0, frames / fps),
        ylim=(-0.06 - 0.095 * len(curves), 1.02),
        title=title,
        xlabel="seconds of video",
        ylabel="probability",
        yticks=np.linspace(0, 1, 6),
    )
    ax.axhline(0, color=INK, lw=0.8)
    ax.grid(axis="y")
    fig.tight_layout()
    return fig


def draw_points(
    ax: Axes,
    points: pd.DataFrame,
    spots: Mapping[str, tuple],
    notes: Mapping[str, str] | None = None,
    *,
    legend: str = "upper left",
    small: bool = False,
) -> None:
    """Markers with their frames or window inside, arrows, legend and names.

    Args:
        spots, notes: by model, as in `place_names`.
        legend: its corner.
        small: whether the markers are small, without numbers and legend.
    """
    points = points.sort_values(["mode", "model", "number"], ignore_index=True)
    ax.grid(True)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    area = 17 if small else 150
    for point in points.itertuples():
        shade = color(point.model)
        filled = point.mode == "stream" and not point.approximate
        ax.scatter(
            [point.x],
            [point.y],
            s=area if point.number < 100 else 2 * area,
            marker=MARKERS[point.mode],
            facecolor=shade if filled else "white",
            edgecolor=shade,
            linewidth=1 if small else 1.5,
            linestyle="--" if point.approximate else "-",
            gid=f"{point.model}:{point.mode}:{point.number}",
            zorder=3,
        )
        if not small:
            _write_number(ax, point, "white" if filled else shade)
    radius = math.sqrt(area) / 2
    taken = _draw_arrows(ax, points, radius)
    taken += [] if small else [_draw_legend(ax, points, notes or {}, legend)]
    taken += [line.get_window_extent() for line in ax.lines if line.get_gid() == "front"]
    place_names(ax, points, taken, spots, notes or {}, radius, small)


def _write_number(ax: Axes, point: tuple, tone: str) -> None:
    """In the middle of its marker."""
    place = {"ha": "center", "va": "center_baseline", "gid": "number", "zorder": 4}
    look = {"color": tone, "size": SMALLEST, "weight": "bold"}
    ax.text(point.x, point.y, str(point.number), **place, **look)


def _draw_arrows(ax: Axes, points: pd.DataFrame, radius: float) -> list[Bbox]:
    """Arrows regular -> continual, native -> wider windows; returns what they cover."""
    clip = points[points["mode"] == "clip"]
    pairs = []
    for model, stream in points[points["mode"] == "stream"].groupby("model"):
        regular = clip[("co" + clip["model"]) == model].head(1)
        pairs += pairwise([*regular.itertuples(), *stream.sort_values("number").itertuples()])
    covered = []
    for a, b in pairs:
        start, end = ax.transData.transform([(a.x, a.y), (b.x, b.y)])
        bend = math.copysign(0.37, end[0] - start[0]) if a.model in _BENT else 0.0  # downwards
        arrow = FancyArrowPatch(
            (a.x, a.y),
            (b.x, b.y),
            arrowstyle="-|>",
            connectionstyle=f"arc3,rad={bend}",
            mutation_scale=6 + 0.6 * radius,
            lw=1 + 0.05 * radius,
            alpha=0.7,
            color=color(b.model),
            shrinkA=radius + 2,
            shrinkB=radius + 3,
            zorder=1,
        )
        ax.add_patch(arrow)
        along = np.linspace(0, 1, 40)[:, None]  # the curve that arc3 draws
        across = (end - start)[::-1] * (1, -1)
        places = start + along * (end - start) + 2 * along * (1 - along) * bend * across
        covered += [square(place, 2) for place in places]
    return covered


def _draw_legend(ax: Axes, points: pd.DataFrame, notes: Mapping[str, str], corner: str) -> Bbox:
    """The legend; returns the area it covers."""
    texts = {
        "clip": "one clip, its frames inside",
        "stream": "stream: the step that predicts, its window inside",
    }
    handles = [mark(mode, text, 9) for mode, text in texts.items() if mode in set(points["mode"])]
    if points["approximate"].any():
        handles.append(Line2D([], [], color=MUTED, ls="--", label="approximate (~)"))
    text = "from a clip to the stream at its native window, and at 64"
    handles.append(Line2D([], [], color=MUTED, marker=">", markevery=[1], label=text))
    if notes:
        text = f"{[*notes.values()][-1]}: fewer FLOPs and points at 64, against the clip net"
        handles.append(Line2D([], [], ls="", label=text))
    return ax.legend(handles=handles, loc=corner).get_window_extent()

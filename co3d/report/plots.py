"""Figures of results: data frames in, figures out; nothing here computes a result.

A square is one prediction per clip, a circle one per frame; a family keeps its colour everywhere.
"""

import math
from collections.abc import Mapping
from itertools import pairwise, product

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from .style import FAMILY_COLORS, INK, MUTED, STYLE, Drawing, color, label

# Names that have no free place around their marker: points to the right, points up, alignment.
_PUBLISHED_SPOTS = {
    "x3d_s": (11, -11, "left"),
    "slow_8x8_r50": (-6, -17, "left"),
    "slowfast_4x16_r50": (11, -17, "right"),
}
_MARKERS = {"clip": "s", "stream": "o"}


@mpl.rc_context(STYLE)
def published_accuracy_vs_macs(published: pd.DataFrame, context: pd.DataFrame) -> Figure:
    """Published top-1 on Kinetics-400 against the published GFLOPs per prediction.

    Takes the tables kinetics400_published and kinetics400_context_published of results/paper.
    """
    points = published_points(pd.concat([published, context], ignore_index=True))
    fig, ax = _accuracy_axes((0.11, 8000), (52, 82.5))
    ax.set_xlabel("GFLOPs per prediction as published (the paper's FLOPs are multiply-accumulates)")
    ax.set_title("Accuracy against compute, one clip or one frame per prediction")
    draw_points(ax, points, _PUBLISHED_SPOTS)
    return fig


@mpl.rc_context(STYLE)
def published_accuracy_vs_counted_macs(counted: pd.DataFrame) -> Figure:
    """Published top-1 on Kinetics-400 against the GMACs of one prediction as counted here.

    Takes the published table with `tables.with_counts`; rows without a count are left out.
    """
    counted = counted[counted["macs_per_prediction"].notna()]
    points = published_points(counted.assign(x=counted["macs_per_prediction"].astype(float) / 1e9))
    fig, ax = _accuracy_axes((0.1, 130), (52, 75))
    ax.set_xlabel(
        "GMACs per prediction counted here: a clip, or the step of a stream that predicts"
    )
    ax.set_title("Published accuracy against multiply-accumulates counted here")
    draw_points(ax, points, _PUBLISHED_SPOTS)
    return fig


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
    fig = Drawing(9, 6)
    ax = fig.add_axes((0.07, 0.095, 0.915, 0.845))
    ax.set_xscale("log")
    ax.set(xlim=cost, ylim=top1)
    ax.set_ylabel("Published top-1 accuracy on Kinetics-400 (%)")
    return fig, ax


@mpl.rc_context(STYLE)
def over_time(curves: Mapping[str, np.ndarray], frames: int, fps: float, title: str) -> Figure:
    """Probabilities, one per prediction, against seconds; each curve ends at frame `frames`.

    What comes before a curve's first prediction is marked as its warm-up.
    """
    fig = Drawing(8.0, 3.6)
    ax = fig.add_subplot()
    tones = (MUTED, "#56B4E9", FAMILY_COLORS["x3d"], FAMILY_COLORS["i3d"])
    for row, ((name, values), tone) in enumerate(zip(curves.items(), tones, strict=False)):
        first = frames - len(values) + 1
        ax.plot(np.arange(first, frames + 1) / fps, values, color=tone, lw=1.8)
        y = -0.09 - 0.095 * row
        ax.plot([0, first / fps], [y, y], color=tone, lw=12, solid_capstyle="butt", alpha=0.3)
        x = first if first < frames / 2 else 0  # the note follows the bar, or lies on a long one
        ax.text(
            x / fps + 0.08,
            y,
            f"{name}: first prediction after {first / fps:.1f} s",
            va="center",
            fontsize=8.5,
            color=INK,
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
    ax: Axes, points: pd.DataFrame, spots: dict[str, tuple], legend: bool = True
) -> None:
    """Markers with their window inside, arrows, legend and names; `spots` as in `_place_names`."""
    points = points.sort_values(["mode", "model", "number"], ignore_index=True)
    ax.grid(True)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    for point in points.itertuples():
        shade = color(point.model)
        filled = point.mode == "stream" and not point.approximate
        ax.scatter(
            [point.x],
            [point.y],
            s=250,
            marker=_MARKERS[point.mode],
            facecolor=shade if filled else "white",
            edgecolor=shade,
            linewidth=1.5,
            linestyle="--" if point.approximate else "-",
            gid=f"{point.model}:{point.mode}:{point.number}",
            zorder=3,
        )
        size = 7.5 if point.number < 100 else 6.5
        ax.text(
            point.x,
            point.y,
            str(point.number),
            color="white" if filled else shade,
            size=size,
            weight="bold",
            ha="center",
            va="center_baseline",
            gid="number",
            zorder=4,
        )
    taken = _draw_arrows(ax, points) + ([_draw_legend(ax, points)] if legend else [])
    _place_names(ax, points, taken, spots)


def _draw_arrows(ax: Axes, points: pd.DataFrame) -> list[Bbox]:
    """Arrows regular -> continual, native -> wider windows; returns what they cover."""
    clip = points[points["mode"] == "clip"]
    pairs = []
    for model, stream in points[points["mode"] == "stream"].groupby("model"):
        regular = clip[("co" + clip["model"]) == model].head(1)
        pairs += pairwise([*regular.itertuples(), *stream.sort_values("number").itertuples()])
    covered = []
    for a, b in pairs:
        ends = [(a.x, a.y), (b.x, b.y)]
        ax.add_patch(
            FancyArrowPatch(
                *ends,
                arrowstyle="-|>",
                mutation_scale=10,
                lw=1.3,
                alpha=0.7,
                color=color(b.model),
                shrinkA=9,
                shrinkB=10,
                zorder=1,
            )
        )
        start, end = ax.transData.transform(ends)
        covered += [_square(start + share * (end - start), 2) for share in np.linspace(0, 1, 40)]
    return covered


def _square(centre: np.ndarray, half: float) -> Bbox:
    return Bbox([centre - half, centre + half])


def _place_names(ax: Axes, points: pd.DataFrame, taken: list[Bbox], spots: dict) -> None:
    """Write each model's name beside its marker: at its spot, else at the first free place.

    A continual net is named once, at its widest window. `spots` maps a model to (right, up, ha)
    in points; other names avoid `taken`, the markers and the names before them.
    """
    per_point = ax.figure.dpi / 72
    for point in points.itertuples():
        centre = ax.transData.transform((point.x, point.y))
        taken.append(_square(centre, 9 * per_point))
    widest = points.groupby(["model", "mode"])["number"].transform("max")
    for point in points[(points["mode"] != "stream") | (points["number"] == widest)].itertuples():
        name = ("~ " if point.approximate else "") + label(point.model)
        text = ax.annotate(
            name,
            (point.x, point.y),
            (0, 0),
            textcoords="offset points",
            color=color(point.model),
            size=9,
            gid="name",
            zorder=5,
        )
        if point.model in spots:
            right, up, ha = spots[point.model]
            text.set(position=(right, up), ha=ha, va="center")
        else:
            _move_to_free_place(text, taken)
        taken.append(text.get_window_extent().padded(2))


def _move_to_free_place(text: Annotation, taken: list[Bbox]) -> None:
    """Move `text` around its point, nearest places first, until it touches nothing `taken`."""
    inside = text.axes.get_window_extent()
    places = []
    for radius, angle in product((12, 16, 22, 30), (0, 180, 90, -90, 45, 135, -45, -135)):
        right, up = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        place = {
            "position": (radius * right, radius * up),
            "ha": "center" if abs(right) < 0.1 else "left" if right > 0 else "right",
            "va": "center" if abs(up) < 0.1 else "bottom" if up > 0 else "top",
        }
        text.set(**place)
        box = text.get_window_extent().padded(2)
        outside = box.x0 < inside.x0 or box.x1 > inside.x1
        places.append((box.count_overlaps(taken) + 100 * outside, len(places), place))
        if places[-1][0] == 0:
            break
    text.set(**min(places)[2])


def _draw_legend(ax: Axes, points: pd.DataFrame) -> Bbox:
    """The legend at the emptiest corner, held there; returns the area it covers."""
    marks = {
        "clip": "one clip per prediction, its frames inside",
        "stream": "one frame per prediction, the window inside",
    }
    handles = [
        Line2D(
            [],
            [],
            marker=_MARKERS[mode],
            ls="",
            ms=9,
            mec=MUTED,
            mew=1.5,
            label=text,
            mfc=MUTED if mode == "stream" else "white",
        )
        for mode, text in marks.items()
        if mode in set(points["mode"])
    ]
    if points["approximate"].any():
        handles.append(Line2D([], [], color=MUTED, ls="--", label="approximate (~)"))
    legend = ax.legend(handles=handles, loc="best")
    box = legend.get_window_extent()
    legend.set_loc(tuple(ax.transAxes.inverted().transform(box.p0)))
    return box

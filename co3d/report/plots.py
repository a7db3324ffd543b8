"""Figures of published accuracies, and of one video: data frames in, figures out."""

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

from . import tables
from .style import (
    FAMILY_COLORS,
    INK,
    MARKERS,
    MUTED,
    SMALLEST,
    STYLE,
    WIDTH,
    Drawing,
    color,
    label,
    mark,
)

# Names that have no free place around their marker: points to the right, points up, alignment.
_PUBLISHED_SPOTS = {
    "x3d_s": (11, -11, "left"),
    "slow_8x8_r50": (-6, -17, "left"),
    "slowfast_4x16_r50": (11, -17, "right"),
}


@mpl.rc_context(STYLE)
def published_accuracy_vs_macs(published: pd.DataFrame, context: pd.DataFrame) -> Figure:
    """Published top-1 on Kinetics-400 against the published GFLOPs per prediction.

    Takes the tables kinetics400_published and kinetics400_context_published of results/paper.
    """
    points = published_points(pd.concat([published, context], ignore_index=True))
    fig, ax = _accuracy_axes((0.08, 8000), (51.5, 83))
    ax.set_xlabel("GFLOPs per prediction as published (the paper's FLOPs are multiply-accumulates)")
    ax.set_title("Published accuracy against FLOPs, one clip or one frame per prediction")
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
    _draw_front(ax, points, named_at=30)
    draw_points(ax, points, _PUBLISHED_SPOTS | _above(16))
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

    What comes before a curve's first prediction is marked as its warm-up. The first curve is by
    clips and dashed, up to two others are of streams.
    """
    fig = Drawing(WIDTH, 3.7)
    ax = fig.add_subplot()
    looks = ((INK, "--"), ("#56B4E9", "-"), (FAMILY_COLORS["x3d"], "-"))
    for row, ((name, values), (tone, line)) in enumerate(zip(curves.items(), looks, strict=False)):
        first = frames - len(values) + 1
        ax.plot(np.arange(first, frames + 1) / fps, values, line, color=tone, lw=1.8)
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
    ax: Axes,
    points: pd.DataFrame,
    spots: Mapping[str, tuple],
    notes: Mapping[str, str] | None = None,
    *,
    area: float = 230,
    legend: bool = True,
    pairs: bool = True,
) -> None:
    """Markers with their window inside, arrows, legend and names.

    Args:
        spots, notes: by model, as in `_place_names`.
        area: of a marker, in square points.
        pairs: whether a clip net is named whose stream is.
    """
    points = points.sort_values(["mode", "model", "number"], ignore_index=True)
    ax.grid(True)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    for point in points.itertuples():
        shade = color(point.model)
        filled = point.mode == "stream" and not point.approximate
        ax.scatter(
            [point.x],
            [point.y],
            s=area if point.number < 100 else 1.25 * area,
            marker=MARKERS[point.mode],
            facecolor=shade if filled else "white",
            edgecolor=shade,
            linewidth=1.5,
            linestyle="--" if point.approximate else "-",
            gid=f"{point.model}:{point.mode}:{point.number}",
            zorder=3,
        )
        ax.text(
            point.x,
            point.y,
            str(point.number),
            color="white" if filled else shade,
            size=SMALLEST,
            weight="bold",
            ha="center",
            va="center_baseline",
            gid="number",
            zorder=4,
        )
    taken = _draw_arrows(ax, points)
    taken += [_draw_legend(ax, points, bool(notes))] if legend else []
    taken += [line.get_window_extent() for line in ax.lines if line.get_gid() == "front"]
    widest = points.groupby(["model", "mode"])["number"].transform("max")
    named = (points["mode"] == "clip") | (points["number"] == widest)
    if not pairs:
        named &= ~("co" + points["model"]).isin(points["model"])
    _place_names(ax, points, named, taken, spots, notes or {}, math.sqrt(area) / 2)


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


def _place_names(
    ax: Axes,
    points: pd.DataFrame,
    named: pd.Series,
    taken: list[Bbox],
    spots: Mapping[str, tuple],
    notes: Mapping[str, str],
    radius: float,
) -> None:
    """Write each model's name beside its marker: at its spot, else at the first free place.

    Those of `named` points, with the model's note below. `spots` maps a model to (right, up, ha) in
    points; other names avoid `taken`, the markers, whose `radius` is in points, and the names
    before them.
    """
    per_point = ax.figure.dpi / 72
    for point in points.itertuples():
        centre = ax.transData.transform((point.x, point.y))
        taken.append(_square(centre, (radius + 1.5) * per_point))
    for point in points[named].itertuples():
        name = ("~ " if point.approximate else "") + label(point.model)
        name += f"\n{notes[point.model]}" if point.model in notes else ""
        text = ax.annotate(
            name,
            (point.x, point.y),
            (0, 0),
            textcoords="offset points",
            color=color(point.model),
            size=8.5,
            linespacing=1.15,
            gid="name",
            zorder=5,
        )
        if point.model in spots:
            right, up, ha = spots[point.model]
            text.set(position=(right, up), ha=ha, va="center")
        else:
            _move_to_free_place(text, taken, radius)
        taken.append(text.get_window_extent().padded(2))


def _move_to_free_place(text: Annotation, taken: list[Bbox], least: float) -> None:
    """Move `text` around its point, nearest places first, until it touches nothing `taken`."""
    inside = text.axes.get_window_extent()
    places = []
    for radius, angle in product(
        least + np.array([4, 8, 14, 22, 32]), (0, 180, 90, -90, 45, 135, -45, -135)
    ):
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


def _draw_legend(ax: Axes, points: pd.DataFrame, notes: bool) -> Bbox:
    """The legend at the emptiest corner, held there; returns the area it covers."""
    texts = {
        "clip": "one clip per prediction, its frames inside",
        "stream": "one frame per prediction, the window inside",
    }
    handles = [mark(mode, text, 9) for mode, text in texts.items() if mode in set(points["mode"])]
    if points["approximate"].any():
        handles.append(Line2D([], [], color=MUTED, ls="--", label="approximate (~)"))
    if notes:
        text = "÷ FLOPs, + points, against the clip net"
        handles.append(Line2D([], [], color=MUTED, marker=">", markevery=[1], label=text))
    legend = ax.legend(handles=handles, loc="best")
    box = legend.get_window_extent()
    legend.set_loc(tuple(ax.transAxes.inverted().transform(box.p0)))
    return box

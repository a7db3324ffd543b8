"""Names beside the markers of a figure, each at a place that is free."""

import math
from collections.abc import Mapping
from itertools import product

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from .style import color, label


def square(centre: np.ndarray, half: float) -> Bbox:
    """The box around a centre, both in pixels."""
    return Bbox([centre - half, centre + half])


def place_names(
    ax: Axes,
    points: pd.DataFrame,
    taken: list[Bbox],
    spots: Mapping[str, tuple],
    notes: Mapping[str, str],
    radius: float,
    small: bool,
) -> None:
    """Write each name beside its marker: at its spot, else at the first free place.

    Of a stream its widest window is named, with the model's note below. `spots` maps a model to
    (right, up, ha) in points; other names avoid `taken`, the markers, whose `radius` is in points,
    and the names before them. Names of `small` markers that are alike have their number.
    """
    per_point = ax.figure.dpi / 72
    radii = radius * np.where(points["number"] < 100, 1, math.sqrt(2))
    for point, reach in zip(points.itertuples(), radii, strict=True):
        centre = ax.transData.transform((point.x, point.y))
        taken.append(square(centre, (reach + 1.5) * per_point))
    widest = points.groupby(["model", "mode"])["number"].transform("max") == points["number"]
    alike = points.duplicated(["model", "mode"], keep=False) & (points["mode"] == "clip")
    for point in points[widest | alike].itertuples():
        name = ("~ " if point.approximate else "") + label(point.model)
        name += f"\n{notes[point.model]}" if point.model in notes else ""
        name += f"\n{point.number} frames" if small and alike[point.Index] else ""
        text = ax.annotate(
            name,
            (point.x, point.y),
            (0, 0),
            textcoords="offset points",
            color=color(point.model),
            size=7.5 if small else 8.5,
            linespacing=1.15,
            gid="name",
            zorder=5,
        )
        if point.model in spots:
            right, up, ha = spots[point.model]
            text.set(position=(right, up), ha=ha, va="center")
        else:
            _move_to_free_place(text, taken, radii[point.Index])
        taken.append(text.get_window_extent().padded(2))
        if math.hypot(*text.get_position()) > radius + 12 and small:
            taken += _draw_leader(ax, text, radius)


def _draw_leader(ax: Axes, text: Annotation, radius: float) -> list[Bbox]:
    """A thin line from a name that stands apart to its marker; returns what it covers."""
    ax.annotate(
        "",
        text.xy,
        text.get_position(),
        textcoords="offset points",
        arrowprops={"arrowstyle": "-", "lw": 0.6, "color": text.get_color(), "shrinkA": 0,
                    "shrinkB": radius + 1},
    )  # fmt: skip
    start = ax.transData.transform(text.xy)
    way = np.array(text.get_position()) * ax.figure.dpi / 72
    return [square(start + share * way, 1) for share in np.linspace(0, 1, 20)]


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

"""Figures of exported nets: what a prediction takes, against the window and against streams."""

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..measure.rungs import EAGER
from .style import STYLE, Drawing, color, name_ends
from .timings import MARKERS, NAMES

_MARKERS, _NAMES = MARKERS | {"torch": MARKERS[EAGER]}, NAMES | {"torch": "torch"}


@mpl.rc_context(STYLE)
def latency_vs_window(rows: pd.DataFrame) -> Figure:
    """Median latency of a prediction against the window, for streams and clip nets.

    Args:
        rows: of the table `deployment`.
    """
    fig, ax = _axes()
    shade, ends = color(rows["model"].iloc[0]), []
    for (runtime, mode), own in rows.groupby(["implementation", "mode"], sort=False):
        stream = mode == "stream"
        xy = own["window"], own["latency_ms_median"]
        _draw(ax, xy, runtime, shade, "-" if stream else "--", filled=stream)
        name = f"{_NAMES[runtime]}, {'one step' if stream else 'whole clip'}"
        ends.append((xy[0].iloc[-1], xy[1].iloc[-1], name, shade))
    ax.set(xscale="log", yscale="log", xlabel="window (frames)", ylabel="ms per prediction")
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.set_title("A stream pays for one frame, whatever its window")
    _ticks(ax, sorted(rows["window"].unique()))
    name_ends(ax, ends)
    return fig


@mpl.rc_context(STYLE)
def latency_vs_streams(rows: pd.DataFrame) -> Figure:
    """Median time of a frame of all streams against their number: in a batch, or in turns.

    Args:
        rows: of the table `deployment`.
    """
    fig, ax = _axes()
    shade, ends = color(rows["model"].iloc[0]), []
    for runtime, own in rows.groupby("implementation", sort=False):
        turns, batches = own[own["batch"] == 1], own[own["batch"] == own["streams"]]
        for part, line, name in ((turns, ":", "in turns"), (batches, "-", "in one batch")):
            xy = part["streams"], part["latency_ms_median"] / part["streams"]
            _draw(ax, xy, runtime, shade, line, filled=True)
            ends.append((xy[0].iloc[-1], xy[1].iloc[-1], f"{_NAMES[runtime]}, {name}", shade))
    ax.set(xscale="log", xlabel="concurrent streams", ylabel="ms per frame of one stream")
    ax.set_ylim(bottom=0)
    ax.set_title("What a frame costs when several streams share the machine")
    _ticks(ax, sorted(rows["streams"].unique()))
    name_ends(ax, ends)
    return fig


def _axes() -> tuple[Drawing, Axes]:
    fig = Drawing(7.4, 3.6)
    return fig, fig.add_axes((0.09, 0.14, 0.62, 0.76))


def _draw(
    ax: Axes, xy: tuple[pd.Series, pd.Series], runtime: str, shade: str, line: str, filled: bool
) -> None:
    look = {"marker": _MARKERS[runtime], "ms": 6, "mfc": shade if filled else "white"}
    ax.plot(*xy, line, color=shade, lw=1.5, **look)


def _ticks(ax: Axes, numbers: list[int]) -> None:
    ax.set_xticks(numbers, [str(number) for number in numbers])
    ax.minorticks_off()
    ax.grid(axis="y")

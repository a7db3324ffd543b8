"""Figures of exported nets: what a prediction takes, against the window and against streams."""

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from .style import INK, MUTED, STYLE, Drawing

_COLORS = {"torch": MUTED, "onnxruntime": "#0072B2", "openvino": "#D55E00"}
_NAMES = {"torch": "torch", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}


@mpl.rc_context(STYLE)
def latency_vs_window(rows: pd.DataFrame) -> Figure:
    """Median latency of a prediction against the window, for streams and clip nets.

    Args:
        rows: of the table `deployment`.
    """
    fig = Drawing(6.4, 3.6)
    ax = fig.subplots()
    for (runtime, mode), own in rows.groupby(["implementation", "mode"], sort=False):
        line = "-" if mode == "stream" else "--"
        name = "one step" if mode == "stream" else "whole clip"
        ax.plot(own["window"], own["latency_ms_median"], line, marker="o", ms=4,
                color=_COLORS[runtime], label=f"{_NAMES[runtime]}, {name}")  # fmt: skip
    ax.set(xscale="log", yscale="log", xlabel="window (frames)", ylabel="ms for a prediction")
    ax.set_title("A stream pays for one frame, whatever its window")
    _ticks(ax, sorted(rows["window"].unique()))
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return _tight(fig)


@mpl.rc_context(STYLE)
def latency_vs_streams(rows: pd.DataFrame) -> Figure:
    """Median time of a frame of all streams against their number: in a batch, or in turns.

    Args:
        rows: of the table `deployment`.
    """
    fig = Drawing(6.4, 3.6)
    ax = fig.subplots()
    for runtime, own in rows.groupby("implementation", sort=False):
        turns, batches = own[own["batch"] == 1], own[own["batch"] == own["streams"]]
        for part, line, name in ((turns, "-", "in turns"), (batches, "--", "in one batch")):
            each = part["latency_ms_median"] / part["streams"]
            ax.plot(part["streams"], each, line, marker="o", ms=4, color=_COLORS[runtime],
                    label=f"{_NAMES[runtime]}, {name}")  # fmt: skip
    ax.set(xscale="log", xlabel="concurrent streams", ylabel="ms for a frame of one stream")
    ax.set_ylim(bottom=0)
    ax.set_title("What a frame costs when several streams share the machine", color=INK)
    _ticks(ax, sorted(rows["streams"].unique()))
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return _tight(fig)


def _ticks(ax, numbers: list[int]) -> None:
    ax.set_xticks(numbers, [str(number) for number in numbers])
    ax.minorticks_off()
    ax.grid(axis="y")


def _tight(fig: Figure) -> Figure:
    fig.tight_layout()
    return fig

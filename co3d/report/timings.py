"""Figures of speed measured here: rows of the benchmark and latencies tables in, figures out.

Factors are computed in `speedups`. A bar or row is named by its form, a panel by its model.
"""

import math
from collections.abc import Sequence
from textwrap import fill

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator

from ..measure.rungs import CONTIGUOUS, EAGER, FREE, GRAPH, INSTALLED, OPTIMISED, PEERS, RUNGS
from . import speedups
from .style import INK, MUTED, STYLE, WIDTH, Drawing, color, label, order
from .style import MARKERS as MODES

NAMES = {
    CONTIGUOUS: "torch's layout",
    EAGER: "eager",
    OPTIMISED: "optimised",
    GRAPH: "CUDA graph",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    INSTALLED: "continual-inference",
    FREE: "continual-inference, tuned",
}
MARKERS = {
    EAGER: "o",
    OPTIMISED: "D",
    GRAPH: "*",
    "onnxruntime": "^",
    "openvino": "v",
    INSTALLED: "X",
    FREE: "P",
}
_PEER_SHADES = {INSTALLED: "#8A8A8A", FREE: "#B9B9B9"}
_LIKE_FOR_LIKE = (INSTALLED, FREE, EAGER, OPTIMISED)


@mpl.rc_context(STYLE)
def like_for_like(rows: pd.DataFrame) -> Figure:
    """Time per prediction of the peer as installed and tuned, and of ours in torch.

    Takes rows of the benchmark table; streams in float32 at batch 1 are shown.
    """
    rows = rows[(rows["mode"] == "stream") & (rows["precision"] == "float32")]
    rows = rows[(rows["batch"] == 1) & rows["implementation"].isin(_LIKE_FOR_LIKE)]
    rows = rows.assign(ms=1000 / rows["throughput_per_s"])
    models = order(rows["model"])
    fig, panels = _row_of_panels(models, 2.5)
    for model, ax in zip(models, panels, strict=True):
        times = rows[rows["model"] == model].set_index("implementation")["ms"]
        forms = [name for name in _LIKE_FOR_LIKE if name in times]
        shades = [_PEER_SHADES.get(name, color(model)) for name in forms]
        base = times.get(INSTALLED, math.nan)
        notes = [_ms(times[name]) + _times(base / times[name], name) for name in forms]
        names = [fill(NAMES[name], 16, break_on_hyphens=True) for name in forms]
        _bars(ax, names, times[forms], notes, shades)
        ax.set_xlim(0, 2.1 * times.max())
        ax.xaxis.set_major_locator(MaxNLocator(3))
    words = "×: times as fast as continual-inference as installed"
    fig.supxlabel(f"ms per prediction, float32   ({words})", fontsize=9.5)
    return fig


@mpl.rc_context(STYLE)
def ladder(table: pd.DataFrame) -> Figure:
    """Time per prediction of each rung on a logarithmic scale; takes `speedups.ladder`.

    As everywhere, clips are hollow squares and steps of a stream filled circles.
    """
    models, rungs = order(table["model"]), [r for r in speedups.LADDER if r in set(table["rung"])]
    fig, panels = _row_of_panels(models, 0.6 + 0.36 * len(rungs))
    for model, ax in zip(models, panels, strict=True):
        own = table[table["model"] == model].set_index("rung").reindex(rungs)
        notes = [
            "" if math.isnan(ms) else _ms(ms) + ("" if math.isnan(by) else f"  {by:.1f}×")
            for ms, by in zip(own["ms"], own["factor"], strict=True)
        ]
        for y, (rung, ms) in enumerate(own["ms"].items()):
            mode = "clip" if rung.startswith("clip") else "stream"
            face = "white" if mode == "clip" else color(model)
            ax.scatter([ms], [y], 34, face, marker=MODES[mode], edgecolors=color(model), lw=1.3)
        ax.plot(own["ms"].dropna(), np.flatnonzero(own["ms"].notna()), color=color(model), lw=1,
                alpha=0.4, zorder=0)  # fmt: skip
        _rows(ax, rungs, own["ms"], notes, 6)
        ax.set_xscale("log")
        ax.set_xlim(table["ms"].min() / 3, table["ms"].max() * 75)
        decades = 10.0 ** np.arange(-2, 1 + math.floor(math.log10(table["ms"].max())))
        ticks = [tick for tick in decades if tick > ax.get_xlim()[0]]
        ticks = ticks[:: 1 + len(ticks) // 3]  # narrow panels
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.xaxis.set_minor_locator(NullLocator())
    words = "×: over the rung above; square: clips, circle: a stream"
    fig.supxlabel(f"ms per prediction, logarithmic   ({words})", fontsize=9.5)
    return fig


@mpl.rc_context(STYLE)
def savings(table: pd.DataFrame) -> Figure:
    """What a stream saves of its clip net: MACs as a bar across, time as a mark per form.

    Takes `speedups.savings` of one precision.
    """
    models = order(table["model"])
    forms = [name for name in MARKERS if name in set(table["implementation"])]
    fig = Drawing(WIDTH, 1.3 + 0.5 * len(models))
    ax = fig.add_subplot()
    for y, model in enumerate(models):
        own = table[table["model"] == model].set_index("implementation")
        macs = own["macs"].iloc[0]
        ax.plot([1, macs], [y, y], color=color(model), lw=7, alpha=0.2, solid_capstyle="butt")
        ax.plot([macs, macs], [y - 0.3, y + 0.3], color=color(model), lw=2.5)
        for form in [name for name in forms if name in own.index]:
            ax.plot(own.loc[form, "time"], y, MARKERS[form], color=color(model), ms=7, mec="white",
                    gid=f"{model}:{form}")  # fmt: skip
    ax.set_yticks(range(len(models)), [label(model) for model in models])
    ax.set_ylim(len(models) - 0.5, -0.5)
    ax.set_xscale("log")
    most = max(table["macs"].max(), table["time"].max())
    ticks = [tick for tick in (1, 2, 4, 8, 16, 32, 64, 128) if tick < 1.6 * most]
    ax.set_xticks(ticks, [f"{tick}×" for tick in ticks])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlim(min(0.9, 0.9 * table["time"].min()), 1.2 * most)
    ax.set_xlabel("clip net / stream, per prediction, both in the same form, float32")
    ax.grid(axis="x")
    handles = [Line2D([], [], color=MUTED, lw=2.5, label="MACs")]
    handles += [
        Line2D([], [], marker=MARKERS[form], ls="", color=MUTED, label=f"time, {NAMES[form]}")
        for form in forms
    ]
    ax.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.45, 1), ncols=len(handles),
              columnspacing=1.2, handletextpad=0.5)  # fmt: skip
    fig.tight_layout()
    return fig


@mpl.rc_context(STYLE)
def roofline(rows: pd.DataFrame) -> Figure:
    """MACs per second of each form against MACs per byte that torch's operators move.

    Takes rows of the benchmark table; streams in float32 at batch 1 whose bytes are known. The
    lines are what the matrix product and the copy of the same run reached.
    """
    rows = speedups.rates(rows[(rows["precision"] == "float32") & (rows["batch"] == 1)])
    rows = rows[(rows["mode"] == "stream") & rows["macs_per_byte"].notna()]
    gemm, copy = rows["gemm_peak_gmacs"].max(), rows["copy_peak_gb_per_s"].max()
    fig = Drawing(WIDTH, 4.9)
    ax = fig.add_subplot()
    low, high = rows["macs_per_byte"].min() / 2, max(rows["macs_per_byte"].max(), gemm / copy) * 3
    reach = np.geomspace(low, high, 200)
    ax.plot(reach, np.minimum(gemm, copy * reach), color=INK, lw=1.6)
    note = {"ha": "left", "va": "bottom", "size": 8.5}
    ax.text(1.2 * gemm / copy, 1.08 * gemm, f"matrix product, {gemm:.0f} GMACs/s", **note)
    middle = math.sqrt(low * gemm / copy)
    ax.annotate(f"copy, {copy:.0f} GB/s", (middle, copy * middle), (-6, 4), ha="right",
                textcoords="offset points", size=8.5)  # fmt: skip
    for row in rows.itertuples():
        look = {"color": color(row.model), "ms": 8, "mec": "white"}
        ax.plot(row.macs_per_byte, row.gmacs_per_s, MARKERS[row.implementation], **look,
                gid=f"{row.model}:{row.implementation}")  # fmt: skip
    named = rows[rows["implementation"] == OPTIMISED]
    named = (rows if named.empty else named).drop_duplicates("model")
    for x, y, model in named[["macs_per_byte", "gmacs_per_s", "model"]].itertuples(index=False):
        beside = named["macs_per_byte"].between(x, 1.6 * x, inclusive="right")
        left = (beside & named["gmacs_per_s"].between(y / 1.2, 1.2 * y)).any()
        ax.annotate(label(model), (x, y), (-9 if left else 9, -11), va="center", size=8.5,
                    ha="right" if left else "left", color=color(model),
                    textcoords="offset points")  # fmt: skip
    ax.set(xscale="log", yscale="log", xlim=(low, high))
    ax.set_ylim(rows["gmacs_per_s"].min() / 2, 2.2 * gemm)
    ax.set_xlabel("MACs per byte that torch's operators read and write")
    ax.set_ylabel("GMACs per second, as counted in 03")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_minor_formatter(NullFormatter())
    forms = [name for name in MARKERS if name in set(rows["implementation"])]
    handles = [
        Line2D([], [], marker=MARKERS[form], ls="", color=MUTED, label=NAMES[form])
        for form in forms
    ]
    ax.legend(handles=handles, loc="lower right")
    ax.grid(True)
    fig.tight_layout()
    return fig


@mpl.rc_context(STYLE)
def histograms(latencies: pd.DataFrame) -> Figure:
    """How the single measurements of one model spread, a row per form, on a common scale.

    Takes rows of the table latencies, of one model at batch 1.

    Raises:
        ValueError: for rows of several models.
    """
    names = sorted(set(latencies["model"]))
    if len(names) != 1:
        raise ValueError(f"expected latencies of one model, given {', '.join(names) or 'none'}")
    present = set(latencies["implementation"])
    forms = [name for name in RUNGS if name in present]
    fig = Drawing(WIDTH, 0.9 + 0.62 * len(forms))
    axes = fig.subplots(len(forms), 1, sharex=True, squeeze=False)[:, 0]
    times = latencies["latency_ms"]
    bins = np.geomspace(0.9 * times.min(), 1.1 * times.max(), 70)
    for form, ax in zip(forms, axes, strict=True):
        own = latencies.loc[latencies["implementation"] == form, "latency_ms"]
        shade = _PEER_SHADES.get(form, color(names[0]))
        ax.hist(own, bins, color=shade, gid=form)
        middle = own.median()
        ax.axvline(middle, color=INK, lw=1)
        ax.text(1.01, 0.5, f"{NAMES[form]}\n{_ms(middle)} ms", transform=ax.transAxes, va="center",
                size=8.5)  # fmt: skip
        ax.set(xscale="log", yticks=[])
        ax.spines["left"].set_visible(False)
    axes[0].set_title(f"{label(names[0])}, {len(own)} steps each; line: median", fontsize=10)
    axes[-1].xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes[-1].xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes[-1].xaxis.set_minor_formatter(NullFormatter())
    axes[-1].set_xlabel("ms from a frame to its prediction, float32")
    fig.tight_layout(h_pad=0.2)
    return fig


def _row_of_panels(models: Sequence[str], height: float) -> tuple[Drawing, Sequence[Axes]]:
    fig = Drawing(WIDTH, height)
    fig.set_layout_engine("constrained")
    panels = fig.subplots(1, len(models), sharey=True, squeeze=False)[0]
    for model, ax in zip(models, panels, strict=True):
        ax.set_title(label(model), color=color(model), fontsize=9.5)
    return fig, panels


def _bars(
    ax: Axes,
    names: Sequence[str],
    values: Sequence[float],
    notes: Sequence[str],
    shades: Sequence,
) -> None:
    """Horizontal bars, the first on top, each with its note behind it."""
    ax.barh(range(len(names)), np.nan_to_num(values), color=shades, height=0.72)
    _rows(ax, names, values, notes, 3)


def _rows(
    ax: Axes, names: Sequence[str], values: Sequence[float], notes: Sequence[str], gap: float
) -> None:
    """The names of rows, the first on top, and a note `gap` points behind each value."""
    for y, (value, note) in enumerate(zip(values, notes, strict=True)):
        if note:
            ax.annotate(note, (value, y), (gap, 0), textcoords="offset points", va="center",
                        size=7.5)  # fmt: skip
    ax.set_yticks(range(len(names)), names, size=8.5)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")


def _ms(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _times(ratio: float, form: str) -> str:
    return "" if form in PEERS[:1] or math.isnan(ratio) else f"  {ratio:.1f}×"

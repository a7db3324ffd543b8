"""Figures of curves: training, when a stream has forgotten its beginning, and when it pays."""

import math
from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from ..zoo import spec
from .style import INK, MUTED, STYLE, WIDTH, Drawing, color, label, name_ends, order

_METRICS = {"top1": "top-1", "map_common": "mAP"}
_NONE = 1e-18  # where no difference is drawn on a logarithmic axis


@mpl.rc_context(STYLE)
def errors_over_time(curves: Mapping[str, pd.DataFrame], fields: Mapping[str, int]) -> Figure:
    """Difference of a stream from one that never began anew, against frames since its start.

    Args:
        curves: by model, columns frame (from 1) and max_rel_diff.
        fields: by model, the receptive field in frames.
    """
    fig = Drawing(WIDTH, 3.4)
    fig.set_layout_engine("constrained")
    panels = fig.subplots(1, len(curves), sharey=True, squeeze=False)[0]
    for ax, model in zip(panels, order(curves), strict=True):
        curve, field = curves[model], fields[model]
        first = curve["frame"].min()
        errors = curve["max_rel_diff"].clip(lower=_NONE)
        ax.axvspan(0, first, color="#EEEEEE", lw=0)
        ax.axvline(field, color=MUTED, ls=":", lw=1.2)
        ax.plot(curve["frame"], errors, "o-", color=color(model), ms=3.5, lw=1.2)
        ax.set(yscale="log", ylim=(_NONE / 10, 30), xlim=(0, curve["frame"].max() + 2))
        ax.set_title(label(model), color=color(model), fontsize=9.5)
        ax.text(field, 6, f"RF {field} ", ha="right", va="center", size=8, color=INK)
        ax.text(
            first / 2,
            3e-11,
            f"no output before frame {first}",
            rotation=90,
            size=8,
            color=MUTED,
            ha="center",
            va="center",
        )
        ax.grid(axis="y")
    powers = range(-16, 1, 4)
    names = ["none", *(f"$10^{{{power}}}$" for power in powers)]
    panels[0].set_yticks([_NONE, *(10.0**power for power in powers)], names)
    panels[0].set_ylabel("largest difference / largest logit")
    fig.supxlabel("frames since the stream began", fontsize=9.5)
    return fig


def costs(models: pd.DataFrame) -> pd.DataFrame:
    """Each clip net with its stream, from the models table: the rows that `break_even` takes.

    With the published classes, the frames and the window of their specs; no minis.
    """
    found = []
    streams = models.loc[models["window"].notna(), "model"]
    for name in order(set(models["model"]) - set(streams)):
        record, twin = spec(name), spec(f"co{name}")
        clip = models[(models["model"] == name) & (models["frames"] == record.frames)]
        stream = models[(models["model"] == twin.name) & (models["window"] == twin.window)]
        stream = stream[stream["dense"] == 0]
        rows = [part[part["num_classes"] == record.num_classes].iloc[0] for part in (clip, stream)]
        if record.num_classes == 400:
            found.append(
                {
                    "model": name,
                    "fps": record.native_fps,
                    "stride": rows[1]["stride"],
                    "macs_clip": rows[0]["macs_clip"],
                    "macs_frame": rows[1]["macs_frame"],
                }
            )
    table = pd.DataFrame(found)
    return table.assign(per_s=table["fps"] * table["macs_frame"] / table["macs_clip"])


@mpl.rc_context(STYLE)
def break_even(table: pd.DataFrame) -> Figure:
    """MACs per second against predictions per second, a panel for each clip net and its stream.

    Takes the rows of `costs`, where `per_s` are the predictions per second at which both cost the
    same: a clip net pays for every prediction, a stream for every frame, predictions or not.
    """
    columns = 3
    lines = math.ceil(len(table) / columns)
    fig = Drawing(WIDTH, 0.55 + 2.3 * lines)
    fig.set_layout_engine("constrained")
    panels = fig.subplots(lines, columns, squeeze=False)
    for ax, pair in zip(panels.flat, table.itertuples(), strict=False):
        _break_even_panel(ax, pair)
    for ax in panels.flat[len(table) :]:
        ax.axis("off")
    fig.supxlabel("predictions per second", fontsize=9.5)
    fig.supylabel("GMACs per second, counted here", fontsize=9.5)
    return fig


@mpl.rc_context(STYLE)
def training_curve(curve: pd.DataFrame) -> Figure:
    """Training loss and validation accuracy against epochs, from rows of results/training.csv.

    A row of panels for each data set; a curve for each model and seed.
    """
    datasets = sorted(curve["dataset"].unique(), reverse=True)
    fig = Drawing(WIDTH, 0.4 + 2.6 * len(datasets))
    panels = fig.subplots(len(datasets), 2, squeeze=False)
    fig.subplots_adjust(0.05, 0.03 + 0.14 / len(datasets), 0.87, 0.95, wspace=0.42, hspace=0.25)
    for line, dataset in zip(panels, datasets, strict=True):
        part = curve[curve["dataset"] == dataset]
        metric = "map_common" if part["top1"].isna().all() else "top1"
        names = {"loss": "training loss", metric: f"validation {_METRICS[metric]} (%)"}
        for ax, (column, name) in zip(line, names.items(), strict=True):
            ax.set_title(f"{dataset}: {name}", fontsize=9.5)
            _draw_training(ax, part, column)
    fig.supxlabel("epochs", fontsize=9.5)
    return fig


def _draw_training(ax: Axes, part: pd.DataFrame, column: str) -> None:
    """A line for each model and seed, a name for each model at their mean end."""
    shades = {model: color(model) for model in part["model"].unique()}
    sns.lineplot(
        part,
        **{"x": "epoch", "y": column, "hue": "model", "units": "seed", "ax": ax},
        **{"palette": shades, "estimator": None, "lw": 1.2, "legend": False},
    )
    ax.set(xlabel="", ylabel="")
    ax.set_xlim(0, part["epoch"].max())
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_ylim(0, None if column == "loss" else 100)
    ax.grid(True)
    last = part[part["epoch"] == part["epoch"].max()].groupby("model")[column].mean()
    ends = [(part["epoch"].max(), y, label(model), color(model)) for model, y in last.items()]
    name_ends(ax, ends, size=8)


def _break_even_panel(ax: Axes, pair) -> None:
    shade, most = color(pair.model), pair.fps / pair.stride
    stream = pair.fps * pair.macs_frame / 1e9
    even = pair.per_s
    rates = np.geomspace(even / 6, most, 50)
    ax.plot(rates, rates * pair.macs_clip / 1e9, color=shade, lw=1.6, ls="--")
    ax.plot([rates[0], most], [stream, stream], color=shade, lw=2.2)
    ax.axvspan(rates[0], even, color="#EEEEEE", lw=0)
    ax.axvline(even, color=INK, lw=0.9, ls=":")
    ax.set(xscale="log", yscale="log", xlim=(rates[0], most))
    bottom, top = stream / 9, max(4 * stream, most * pair.macs_clip / 1e9) * 2
    ax.set_ylim(bottom, top)
    ax.set_title(f"{label(pair.model)}, {pair.fps:g} frames/s", size=9.5, color=shade)
    note = "use the clip net \nat lower rates "
    ax.text(even, top / 1.25, note, size=7.5, ha="right", va="top", color=INK)
    ax.annotate(f"1 in {1 / even:.2g} s", (even, bottom * 1.3), (4, 0), size=8, weight="bold",
                textcoords="offset points", color=INK)  # fmt: skip
    ax.text(rates[0], stream * 1.08, " frame by frame", va="bottom", size=7.5, color=shade)
    ax.text(most, most * pair.macs_clip / 1e9 * 1.1, "by clips ", ha="right", va="bottom", size=7.5,
            color=shade)  # fmt: skip
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_minor_formatter("")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.grid(True)

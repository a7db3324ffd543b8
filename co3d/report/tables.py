"""Tables for people, and the joins behind them: our counts, and clip nets beside their streams.

A table for a paper is a frame of text cells, `**` around what is bold.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path

import pandas as pd
import torch

from ..files import write
from ..zoo import create
from ..zoo.specs import SPECS
from .style import label, order

_SIGNS = {"±": r"$\pm$", "×": r"$\times$", r"\textasciitilde \space ": r"$\sim$ "}
DEVICES = {"cpu": "CPU", "jetson_tx2": "TX2", "jetson_xavier": "Xavier", "rtx_2080_ti": "2080 Ti"}


def pareto_front(table: pd.DataFrame, cost: str, gain: str) -> pd.Series:
    """True for each row that no other row beats in one of `cost` and `gain` at equal or better."""
    costs, gains = table[cost].to_numpy(), table[gain].to_numpy()
    best = [
        not ((costs <= c) & (gains >= g) & ((costs < c) | (gains > g))).any()
        for c, g in zip(costs, gains, strict=True)
    ]
    return pd.Series(best, index=table.index)


@cache
def stride(model: str) -> int:
    """Frames from one prediction of a stream to the next; 1 for all other models."""
    if model not in SPECS or not SPECS[model].continual:
        return 1
    with torch.device("meta"):
        return create(model).stride


def beside(
    streams: pd.DataFrame,
    clips: pd.DataFrame,
    on: Sequence[str] = (),
    suffix: str = "_clip",
    how: str = "inner",
) -> pd.DataFrame:
    """Rows of streams, each with the columns of its clip net's row, whose names get the suffix.

    Args:
        on: columns that both rows share; of several clip rows the first one counts.
        how: "inner" drops streams without such a row, "left" leaves its columns blank.
    """
    keys = ["model", *on]
    clips = clips.assign(model="co" + clips["model"]).drop_duplicates(keys)
    return streams.merge(clips, on=keys, how=how, suffixes=("", suffix))


def pairs(published: pd.DataFrame) -> pd.DataFrame:
    """Each continual row beside its clip net (`_clip`), and how the two differ.

    "points" is the top-1 of the stream less that of the clip net, "FLOPs ratio" clip over step.
    """
    clips, streams = (published[published["mode"] == mode] for mode in ("clip", "stream"))
    both = beside(streams, clips)
    both["points"] = both["top1_percent"] - both["top1_percent_clip"]
    both["FLOPs ratio"] = both["gflops_per_prediction_clip"] / both["gflops_per_prediction"]
    both["memory saved (%)"] = 100 * (1 - both["peak_memory_mib"] / both["peak_memory_mib_clip"])
    return both


def numbered(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with `number`, the window of a stream or the frames of a clip."""
    return rows.assign(number=rows["window"].fillna(rows["frames"]).astype(float))


def _as_published(models: pd.DataFrame) -> pd.DataFrame:
    """Rows of the models table with the sizes of their specs, not dense; numbered."""
    rows = models[models["dense"] == 0]
    for name in ("image_size", "num_classes"):
        rows = rows[rows[name] == [getattr(SPECS[model], name) for model in rows["model"]]]
    return numbered(rows)


def own_row(models: pd.DataFrame, model: str, number: int | None = None) -> pd.Series | None:
    """The row of the models table for a model as it was published, None if there is none.

    That is with its own image size and classes, not dense, and with `number` frames in the window
    of a stream or in a clip (None: as in its spec).
    """
    rows, number = _as_published(models), number or SPECS[model].window or SPECS[model].frames
    rows = rows[(rows["model"] == model) & (rows["number"] == number)]
    return None if rows.empty else rows.iloc[0]


def with_counts(published: pd.DataFrame, models: pd.DataFrame) -> pd.DataFrame:
    """The published table with our counts; blank where `models`, the table of that name, has none.

    Adds `number` (window of a stream or frames of a clip, unless there), macs_per_predicting_step
    (of a clip for a clip net), and more columns of `models` that begin with our_.
    """
    published = published if "number" in published else numbered(published)
    rows = _as_published(models).set_index(["model", "number"])
    names = ["params", "macs_frame", "receptive_field", "padding", "warmup", "window_sum"]
    counts = (
        rows[names]
        .add_prefix("our_")
        .assign(
            macs_per_predicting_step=rows["macs_step"].fillna(rows["macs_clip"]),
            our_flops=rows["flops_paper_step"].fillna(rows["flops_paper_clip"]),
            our_flops_once=rows["flops_once_step"].fillna(rows["flops_paper_clip"]),
        )
    )
    return published.join(counts.astype(float), on=["model", "number"])


def benchmark(published: pd.DataFrame, models: pd.DataFrame) -> pd.DataFrame:
    """The published table as text cells, bold (`**`) where top-1 and GFLOPs are Pareto-optimal.

    The counts of `models`, the table of that name, fill the columns "here".
    """
    rows = with_counts(published, models)
    cells = {
        "Model": rows["approximate"].map({1: "~ ", 0: ""}) + rows["model"].map(label),
        "Per": _per(rows),
        "Frames": _text(rows["number"], ".0f"),
        "Top-1 (%)": _text(rows["top1_percent"]),
        "Params (M)": _text(rows["params_millions"]),
        "Params here (M)": _text(rows["our_params"] / 1e6, ".3f"),
        "Memory (MiB)": _text(rows["peak_memory_mib"]),
        "GFLOPs": _text(rows["gflops_per_prediction"]),
        "GMACs of the predicting step, here": _text(rows["macs_per_predicting_step"] / 1e9, ".3f"),
    }
    for key, device in DEVICES.items():
        mean, spread = (_text(rows[f"{key}_per_s_{part}"]) for part in ("mean", "std"))
        cells[f"{device} (1/s)"] = (mean + " ±" + spread).where(mean != "", "")
    best = pareto_front(rows, "gflops_per_prediction", "top1_percent")
    return _bold(pd.DataFrame(cells), best, ["Model", "Top-1 (%)", "GFLOPs"])


def measured(accuracy: pd.DataFrame) -> pd.DataFrame:
    """Accuracies measured on one data set as text cells, bold where top-1 and MACs are optimal.

    Takes rows of results/accuracy.csv with a top-1. "clips" is the control, clips averaged over the
    frames that a stream saw.
    """
    place = accuracy["model"].map(order(accuracy["model"]).index)
    rows = accuracy.assign(place=place).sort_values(["place", "mode", "window", "frames"])
    spans = rows["window"].where(rows["mode"] == "stream", rows["frames"])
    cells = {
        "Model": rows["model"].map(label),
        "Per": _per(rows),
        "Frames": _text(spans, ".0f"),
        "Top-1 (%)": _text(rows["top1"], ".1f"),
        "95 % interval": _text(rows["ci_low"], ".1f") + " to " + _text(rows["ci_high"], ".1f"),
        "MMACs": _text(rows["macs_per_prediction"] / 1e6, ",.2f"),
        "Videos": _text(rows["n_scored"], ","),
    }
    best = pareto_front(rows, "macs_per_prediction", "top1")
    cells = _bold(pd.DataFrame(cells), best, ["Model", "Top-1 (%)", "MMACs"])
    return cells.reset_index(drop=True)


def _bold(cells: pd.DataFrame, best: pd.Series, names: Sequence[str]) -> pd.DataFrame:
    return cells.assign(**cells[names].where(~best, "**" + cells[names] + "**"))


def _per(rows: pd.DataFrame) -> pd.Series:
    """What a prediction takes, in words: a clip, several clips, or so many frames of a stream."""
    frames = rows["model"].map(stride).map(lambda n: f"{n} frames" if n > 1 else "frame")
    return frames.where(rows["mode"] == "stream", rows["mode"])


def _text(values: pd.Series, form: str = ".2f") -> pd.Series:
    """The numbers as text, blanks for unknown ones."""
    return values.map(f"{{:{form}}}".format, na_action="ignore").fillna("").astype(object)


def shown(table: pd.DataFrame, digits: int = 1) -> pd.DataFrame:
    """The same for display: rounded, whole numbers without a point, blanks instead of NaN."""
    rounded = table.round(digits).convert_dtypes()
    return rounded.astype(object).where(rounded.notna(), "")


def tiny(table: pd.DataFrame, formats: Mapping[str, str] | None = None) -> pd.DataFrame:
    """For display: numbers with a fraction as powers of ten unless `formats` has their column."""
    formats = dict.fromkeys(table.select_dtypes("float"), "{:.0e}") | dict(formats or {})
    cells = {name: column.map(formats.get(name, "{}").format) for name, column in table.items()}
    return pd.DataFrame(cells).where(table.notna(), "")


def counts(table: pd.DataFrame, units: Mapping[str, str] | None = None) -> pd.DataFrame:
    """For display: whole numbers with commas; columns in `units` (K, M or G) in that unit."""
    sizes, units, cells = {"K": 1e3, "M": 1e6, "G": 1e9}, units or {}, {}
    for name, column in table.items():
        if name in units:
            column = column.astype(float) / sizes[units[name]]
            cells[f"{name} ({units[name]})"] = _text(column, ",.3f")
        else:
            cells[name] = column.astype(object).map(_count, na_action="ignore").fillna("")
    return pd.DataFrame(cells, index=table.index)


def _count(value: object) -> str:
    if isinstance(value, str | bool):
        return str(value)
    return f"{value:,.0f}" if value == int(value) else f"{value:,.2f}"


def markdown(table: pd.DataFrame, left: Collection[str] = ("Model",)) -> str:
    """A table of text cells as Markdown, the columns `left` aligned left, the others right."""
    rule = [":--" if name in left else "--:" for name in table]
    lines = [list(table), rule, *table.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def latex(table: pd.DataFrame) -> str:
    """The same as a LaTeX tabular; needs the package booktabs."""
    columns = "l" + "r" * (table.shape[1] - 1)
    text = table.to_latex(index=False, escape=True, column_format=columns)
    for sign, command in _SIGNS.items():
        text = text.replace(sign, command)
    return re.sub(r"\*\*(.*?)\*\*", r"\\textbf{\1}", text)


def save(table: pd.DataFrame, stem: str, folder: Path | str) -> Path:
    """Write folder/figures/<stem>.tex; returns it."""
    return write(Path(folder) / "figures" / f"{stem}.tex", latex(table))

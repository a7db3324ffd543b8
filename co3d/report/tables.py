"""The published benchmark table for people: Markdown and LaTeX, with room for our own counts."""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from ..zoo.specs import SPECS
from .style import label, target

DEVICES = {"cpu": "CPU", "jetson_tx2": "TX2", "jetson_xavier": "Xavier", "rtx_2080_ti": "2080 Ti"}


def pareto_front(table: pd.DataFrame, cost: str, gain: str) -> pd.Series:
    """True for each row that no other row beats in one of `cost` and `gain` at equal or better."""
    costs, gains = table[cost].to_numpy(), table[gain].to_numpy()
    best = [
        not ((costs <= c) & (gains >= g) & ((costs < c) | (gains > g))).any()
        for c, g in zip(costs, gains, strict=True)
    ]
    return pd.Series(best, index=table.index)


def own_row(models: pd.DataFrame, model: str, number: int | None = None) -> pd.Series | None:
    """The row of the models table for a model as it was published, None if there is none.

    That is with its own image size and classes, not dense, and with `number` frames in the window
    of a stream or in a clip (None: as in its spec).
    """
    record = SPECS.get(model)
    if record is None or models.empty:
        return None
    span, native = ("window", record.window) if record.continual else ("frames", record.frames)
    wanted = pd.Series(
        {
            "model": model,
            "image_size": record.image_size,
            "num_classes": record.num_classes,
            "dense": 0,
            span: native if number is None else number,
        }
    )
    match = models[(models[wanted.index] == wanted).fillna(False).all(axis=1)]
    return None if match.empty else match.iloc[0]


def with_counts(published: pd.DataFrame, models: pd.DataFrame) -> pd.DataFrame:
    """The published table with the columns params and macs_per_prediction as counted here.

    A prediction is a clip, or the step of a stream that predicts; NA where `models` has no row.
    """
    counts = []
    for row in published.itertuples():
        stream = row.mode == "stream"
        own = own_row(models, row.model, int(row.window if stream else row.frames))
        macs = "macs_step" if stream else "macs_clip"
        counts.append((pd.NA, pd.NA) if own is None else (int(own["params"]), int(own[macs])))
    columns = pd.DataFrame(counts, published.index, ["params", "macs_per_prediction"], "Int64")
    return pd.concat([published, columns], axis=1)


def pairs(published: pd.DataFrame) -> pd.DataFrame:
    """Each continual row beside its clip net (`_clip`), and how the two differ.

    "points" is the top-1 of the stream less that of the clip net, "FLOPs ratio" clip over step.
    """
    clip, stream = (published[published["mode"] == mode] for mode in ("clip", "stream"))
    both = stream.merge(clip.assign(model="co" + clip["model"]), on="model", suffixes=("", "_clip"))
    both["points"] = both["top1_percent"] - both["top1_percent_clip"]
    both["FLOPs ratio"] = both["gflops_per_prediction_clip"] / both["gflops_per_prediction"]
    both["memory saved (%)"] = 100 * (1 - both["peak_memory_mib"] / both["peak_memory_mib_clip"])
    return both


def benchmark(published: pd.DataFrame, models: pd.DataFrame | None = None) -> pd.DataFrame:
    """The published table as text cells, bold (`**`) where the authors set it so.

    `models` is the models table measured here; its counts fill the columns "here" (`with_counts`).
    """
    rows = []
    models = pd.DataFrame() if models is None else models
    for row in with_counts(published, models).itertuples():
        stream = row.mode == "stream"
        name = ("~ " if row.approximate else "") + label(row.model)
        mark = "**" if row.pareto_bold else ""
        rows.append(
            {
                "Model": f"{mark}{name}{mark}",
                "Per": "frame" if stream else "clip",
                "Frames": f"{row.window if stream else row.frames:.0f}",
                "Top-1 (%)": f"{mark}{row.top1_percent:.2f}{mark}",
                "Params (M)": _cell(row.params_millions),
                "Params here (M)": _cell(row.params / 1e6, digits=3),
                "Memory (MiB)": _cell(row.peak_memory_mib),
                "GFLOPs": f"{mark}{row.gflops_per_prediction:.2f}{mark}",
                "GMACs here": _cell(row.macs_per_prediction / 1e9, digits=3),
                **{
                    f"{device} (1/s)": _cell(
                        getattr(row, f"{key}_per_s_mean"), getattr(row, f"{key}_per_s_std")
                    )
                    for key, device in DEVICES.items()
                },
            }
        )
    return pd.DataFrame(rows)


def _cell(value: float, spread: float | None = None, digits: int = 2) -> str:
    if pd.isna(value):
        return ""
    return f"{value:.{digits}f}" if spread is None else f"{value:.2f} ±{spread:.2f}"


def shown(table: pd.DataFrame, digits: int = 1) -> pd.DataFrame:
    """The same for display: rounded, whole numbers without a point, blanks instead of NaN."""
    rounded = table.round(digits).convert_dtypes()
    return rounded.astype(object).where(rounded.notna(), "")


def tiny(table: pd.DataFrame, formats: Mapping[str, str] | None = None) -> pd.DataFrame:
    """For display: numbers with a fraction as powers of ten unless `formats` has their column."""
    formats = {
        **{name: "{:.0e}" for name in table.select_dtypes("float")},
        **dict(formats or {}),
    }
    cells = {
        name: [
            ("" if pd.isna(value) else formats.get(name, "{}").format(value)) for value in column
        ]
        for name, column in table.items()
    }
    return pd.DataFrame(cells, index=table.index)


def counts(table: pd.DataFrame, units: Mapping[str, str] | None = None) -> pd.DataFrame:
    """For display: whole numbers with commas; columns in `units` (K, M or G) in that unit."""
    sizes, cells = {"K": 1e3, "M": 1e6, "G": 1e9}, {}
    for name, column in table.items():
        unit = (units or {}).get(name)
        cells[f"{name} ({unit})" if unit else name] = [
            _count(value, sizes.get(unit)) for value in column
        ]
    return pd.DataFrame(cells, index=table.index)


def _count(value: object, size: float | None) -> str:
    if isinstance(value, str | bool | np.bool_):
        return str(value)
    if pd.isna(value):
        return ""
    if size:
        return f"{value / size:,.3f}"
    return f"{value:,.0f}" if value == int(value) else f"{value:,.2f}"


def markdown(table: pd.DataFrame, left: Collection[str] = ("Model",)) -> str:
    """A table of text cells as Markdown, the columns `left` aligned left, the others right."""
    rule = [":--" if name in left else "--:" for name in table]
    lines = [list(table), rule, *table.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def latex(table: pd.DataFrame) -> str:
    """The same as a LaTeX tabular; needs the package booktabs."""
    lines = [list(table), *table.to_numpy().tolist()]
    head, *body = [" & ".join(_escape(cell) for cell in line) + r" \\" for line in lines]
    begin = rf"\begin{{tabular}}{{l{'r' * (table.shape[1] - 1)}}}"
    return "\n".join(
        [begin, r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}", ""]
    )


def save(table: pd.DataFrame, stem: str, folder: Path | str) -> Path:
    """Write folder/figures/stem.md and stem.tex; returns the Markdown file."""
    for suffix, text in ((".tex", latex(table)), (".md", markdown(table))):
        path = target(stem + suffix, folder)
        part = path.with_name(path.name + ".part")
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    return path


def _escape(cell: str) -> str:
    bold = cell.startswith("**")
    codes = {"**": "", "%": r"\%", "~": r"$\sim$", "×": r"$\times$", "±": r"$\pm$"}
    for text, code in codes.items():
        cell = cell.replace(text, code)
    return rf"\textbf{{{cell}}}" if bold else cell

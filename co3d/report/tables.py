"""Tables for people: the published benchmark with our own counts, and what is measured here.

Each is a frame of text cells, `**` around what is bold; Markdown, LaTeX and HTML follow from it.
"""

import html as markup
from collections.abc import Callable, Collection, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ..zoo import create
from ..zoo.specs import SPECS
from .figures import FIGURES, target
from .style import label, order

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
    """Frames from one prediction of a stream to the next; 1 for one that is not built here."""
    if model not in SPECS:
        return 1
    with torch.device("meta"):
        return create(model).stride


def _per(model: str, mode: str) -> str:
    """What a prediction takes, in words: a clip, several clips, or so many frames of a stream."""
    if mode != "stream":
        return mode
    return f"{stride(model)} frames" if stride(model) > 1 else "frame"


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
    """The published table with the columns params and macs_per_predicting_step as counted here.

    A clip net predicts with its clip. As in the paper, the other steps of a strided stream do not
    count. NA where `models` has no row.
    """
    counts = []
    for row in published.itertuples():
        stream = row.mode == "stream"
        own = own_row(models, row.model, int(row.window if stream else row.frames))
        macs = "macs_step" if stream else "macs_clip"
        counts.append((pd.NA, pd.NA) if own is None else (int(own["params"]), int(own[macs])))
    columns = pd.DataFrame(counts, published.index, ["params", "macs_per_predicting_step"], "Int64")
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
    """The published table as text cells, bold (`**`) where top-1 and GFLOPs are Pareto-optimal.

    `models` is the models table measured here; its counts fill the columns "here" (`with_counts`).
    """
    rows = []
    models = pd.DataFrame() if models is None else models
    front = pareto_front(published, "gflops_per_prediction", "top1_percent")
    for row, best in zip(with_counts(published, models).itertuples(), front, strict=True):
        number = row.window if row.mode == "stream" else row.frames
        name = ("~ " if row.approximate else "") + label(row.model)
        mark = "**" if best else ""
        rows.append(
            {
                "Model": f"{mark}{name}{mark}",
                "Per": _per(row.model, row.mode),
                "Frames": f"{number:.0f}",
                "Top-1 (%)": f"{mark}{row.top1_percent:.2f}{mark}",
                "Params (M)": _cell(row.params_millions),
                "Params here (M)": _cell(row.params / 1e6, digits=3),
                "Memory (MiB)": _cell(row.peak_memory_mib),
                "GFLOPs": f"{mark}{row.gflops_per_prediction:.2f}{mark}",
                "GMACs of the predicting step, here": _cell(
                    row.macs_per_predicting_step / 1e9, digits=3
                ),
                **{
                    f"{device} (1/s)": _cell(
                        getattr(row, f"{key}_per_s_mean"), getattr(row, f"{key}_per_s_std")
                    )
                    for key, device in DEVICES.items()
                },
            }
        )
    return pd.DataFrame(rows)


def measured(accuracy: pd.DataFrame) -> pd.DataFrame:
    """Accuracies measured on one data set as text cells, bold where top-1 and MACs are optimal.

    Takes rows of results/accuracy.csv with a top-1. "clips" is the control, clips averaged over the
    frames that a stream saw.
    """
    rows = []
    position = {model: n for n, model in enumerate(order(accuracy["model"]))}
    front = pareto_front(accuracy, "macs_per_prediction", "top1")
    table = accuracy.assign(best=front, place=accuracy["model"].map(position))
    for row in table.sort_values(["place", "mode", "window", "frames"]).itertuples():
        mark = "**" if row.best else ""
        rows.append(
            {
                "Model": f"{mark}{label(row.model)}{mark}",
                "Per": _per(row.model, row.mode),
                "Frames": f"{row.window if row.mode == 'stream' else row.frames:.0f}",
                "Top-1 (%)": f"{mark}{row.top1:.1f}{mark}",
                "95 % interval": f"{row.ci_low:.1f} to {row.ci_high:.1f}",
                "MMACs": f"{mark}{row.macs_per_prediction / 1e6:,.2f}{mark}",
                "Videos": f"{row.n_scored:,}",
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
    head, *body = [
        " & ".join(_bold(c, _tex, r"\textbf{%s}") for c in line) + r" \\" for line in lines
    ]
    begin = rf"\begin{{tabular}}{{l{'r' * (table.shape[1] - 1)}}}"
    return "\n".join(
        [begin, r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}", ""]
    )


def html(table: pd.DataFrame, caption: str = "") -> str:
    """The same as an HTML table in ASCII, to be put into a page; numbers are of class `number`."""
    lines = [f"<caption>{markup.escape(caption)}</caption>"] if caption else []
    for tag, cells in [("th", list(table)), *(("td", row) for row in table.to_numpy().tolist())]:
        kinds = ["", *[' class="number"'] * (len(cells) - 1)]
        row = "".join(
            f"<{tag}{kind}>{_bold(cell, markup.escape, '<b>%s</b>')}</{tag}>"
            for kind, cell in zip(kinds, cells, strict=True)
        )
        lines.append(f"<tr>{row}</tr>")
    text = "\n".join(["<table>", *lines, "</table>", ""])
    return text.encode("ascii", "xmlcharrefreplace").decode()


def save(table: pd.DataFrame, stem: str, folder: Path | str) -> Path:
    """Write folder/figures/stem.md, .tex and .html; returns the Markdown file.

    LaTeX and HTML begin with the caption that `figures.FIGURES` has for the stem.
    """
    record = FIGURES.get(stem)
    caption = f"{record.caption} From {record.sources}." if record else ""
    said = f"% {_tex(caption)}\n" if caption else ""
    texts = {
        ".tex": said + latex(table),
        ".html": html(table, caption),
        ".md": markdown(table),
    }
    for suffix, text in texts.items():
        path = target(stem + suffix, folder)
        part = path.with_name(path.name + ".part")
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    return path


def _bold(cell: str, escape: Callable[[str], str], frame: str) -> str:
    """The cell's text escaped, in `frame` if it stands between asterisks."""
    text = escape(cell.removeprefix("**").removesuffix("**"))
    return frame % text if cell.startswith("**") else text


_TEX = {char: f"\\{char}" for char in "%&_#${}"}
_TEX |= {"~": r"$\sim$", "×": r"$\times$", "±": r"$\pm$", "÷": r"$\div$"}
_TEX |= {"^": r"\^{}", "\\": r"\textbackslash{}"}


def _tex(text: str) -> str:
    return text.translate(str.maketrans(_TEX))

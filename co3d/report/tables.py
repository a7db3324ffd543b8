"""The published benchmark table for people: Markdown and LaTeX, with room for our own counts."""

from pathlib import Path

import pandas as pd

from .plots import label, target

DEVICES = {"cpu": "CPU", "jetson_tx2": "TX2", "jetson_xavier": "Xavier", "rtx_2080_ti": "2080 Ti"}


def pareto_front(table: pd.DataFrame, cost: str, gain: str) -> pd.Series:
    """True for each row that no other row beats in one of `cost` and `gain` at equal or better."""
    costs, gains = table[cost].to_numpy(), table[gain].to_numpy()
    best = [
        not ((costs <= c) & (gains >= g) & ((costs < c) | (gains > g))).any()
        for c, g in zip(costs, gains, strict=True)
    ]
    return pd.Series(best, index=table.index)


def benchmark(published: pd.DataFrame, models: pd.DataFrame | None = None) -> pd.DataFrame:
    """The published table as text cells, bold (`**`) where the authors set it so.

    `models` is the models table measured here; its counts fill the columns "here" where it has
    the same model with the same frames (clip) or window (stream), which stay empty elsewhere.
    """
    rows = []
    for row in published.itertuples():
        stream = row.mode == "stream"
        number = int(row.window if stream else row.frames)
        name = ("~ " if row.approximate else "") + label(row.model)
        mark = "**" if row.pareto_bold else ""
        own = _own_counts(models, row.model, "window" if stream else "frames", number)
        rows.append(
            {
                "Model": f"{mark}{name}{mark}",
                "Per": "frame" if stream else "clip",
                "Frames": str(number),
                "Top-1 (%)": f"{mark}{row.top1_percent:.2f}{mark}",
                "Params (M)": _cell(row.params_millions),
                "Params here (M)": "" if own is None else f"{own['params'] / 1e6:.3f}",
                "Memory (MiB)": _cell(row.peak_memory_mib),
                "GFLOPs": f"{mark}{row.gflops_per_prediction:.2f}{mark}",
                "GMACs here": ""
                if own is None
                else f"{own['macs_step' if stream else 'macs_clip'] / 1e9:.3f}",
                **{
                    f"{device} (1/s)": _cell(
                        getattr(row, f"{key}_per_s_mean"), getattr(row, f"{key}_per_s_std")
                    )
                    for key, device in DEVICES.items()
                },
            }
        )
    return pd.DataFrame(rows)


def _own_counts(models: pd.DataFrame | None, model: str, column: str, number: int):
    if models is None or models.empty:
        return None
    match = models[(models["model"] == model) & (models[column] == number)]
    return None if match.empty else match.iloc[0]


def _cell(value: float, spread: float | None = None) -> str:
    if pd.isna(value):
        return ""
    return f"{value:.2f}" if spread is None else f"{value:.2f} ±{spread:.2f}"


def shown(table: pd.DataFrame, digits: int = 1) -> pd.DataFrame:
    """The same for display: rounded, whole numbers without a point, blanks instead of NaN."""
    rounded = table.round(digits).convert_dtypes()
    return rounded.astype(object).where(rounded.notna(), "")


def markdown(table: pd.DataFrame) -> str:
    """A table of text cells as Markdown, numbers aligned right."""
    rule = [":--" if name == "Model" else "--:" for name in table]
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

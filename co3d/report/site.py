"""The site: notebooks, result tables, model cards and API as HTML, built by Sphinx.

The pages are the committed notebooks and the Markdown in `notebooks/site`: Jinja templates, which
are filled in here with the specs of the models and the tables in `results/`.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from pprint import pformat
from tempfile import TemporaryDirectory

import jinja2
import pandas as pd

from ..data import synthetic, synthetic_charades
from ..paths import repo_root
from ..zoo.checkpoints import shipped
from ..zoo.specs import SPECS
from .schema import PROVENANCE

MARK = ".buildinfo"  # Sphinx leaves it in what it has built
PAGES = ("index", "models", "claims", "results", "figures", "data", "api", "commands")


def build(out: Path, commands: Mapping[str, str]) -> None:
    """Build the site of this repository into the folder `out`.

    Args:
        commands: the help of each command by its name.

    Raises:
        FileNotFoundError: outside of a clone of the repository.
        ValueError: if `out` holds something else, or Sphinx is missing or warns, as of a broken
            link.
    """
    root = repo_root()
    config = root / "notebooks" / "site"
    if not config.is_dir():
        raise FileNotFoundError(f"the site is built in a clone of the repository, given {root}")
    empty = not out.exists() or (out.is_dir() and not any(out.iterdir()))
    if not empty and not (out / MARK).is_file():
        raise ValueError(f"expected a new or empty folder or an earlier site, given {out}")
    with TemporaryDirectory() as folder:
        source, html = Path(folder, "source"), Path(folder, "html")
        _write_sources(source, root, commands)
        options = ["-qnW", "-j", "2", "-c", config, "-d", Path(folder, "doctrees")]
        command = [sys.executable, "-m", "sphinx", *options, source, html]
        run = subprocess.run(command, capture_output=True, text=True, cwd=root)
        if run.returncode:
            raise ValueError(f"Sphinx (pip install 'co3d[site]') says:\n{run.stderr.strip()}")
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(html, out)


def _write_sources(folder: Path, root: Path, commands: Mapping[str, str]) -> None:
    """What Sphinx reads: the files of the repository in their places, and the pages."""
    for name in ("notebooks", "results", "figures"):
        shutil.copytree(root / name, folder / name)
    for path in (*root.glob("*.md"), root / "LICENSE"):
        shutil.copy(path, folder)
    (folder / "models").mkdir()
    templates = _templates(root, commands)
    pages = [(name, name, {}) for name in PAGES]
    for name, spec in SPECS.items():
        pages.append((f"models/{name}", "model", {"name": name, "spec": spec}))
    for name, rows in templates.globals["tables"].items():
        pages.append((f"results/{name}", "table", {"name": name, "rows": rows}))
    for target, name, values in pages:
        text = templates.get_template(f"{name}.md").render(values)
        (folder / f"{target}.md").write_text(text, "utf-8")


def _templates(root: Path, commands: Mapping[str, str]) -> jinja2.Environment:
    """The Markdown in `notebooks/site`, with what it shows."""
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader([root / "notebooks" / "site", root]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters.update(cell=cell, table=table, beside=beside, pretty=pformat)
    results = root / "results"
    tables = {
        path.relative_to(results).with_suffix("").as_posix(): read([path])
        for path in sorted(results.rglob("*.csv"))
    }
    benchmark = read(sorted(results.glob("benchmark-*.csv")))
    clips = [name for name, spec in SPECS.items() if not spec.continual]
    templates.globals.update(
        specs={name: SPECS[name] for clip in clips for name in (clip, f"co{clip}")},
        shipped=shipped,
        claims=tables.pop("paper/claims"),
        tables=tables,
        benchmark=benchmark,
        which=which(tables["models"], benchmark, tables["paper/kinetics400_published"]),
        provenance=list(PROVENANCE),
        figures={path.name: caption(path) for path in sorted((root / "figures").glob("*.svg"))},
        kinetics=synthetic,
        charades=synthetic_charades,
        commands=commands,
    )
    return templates


def read(paths: Iterable[Path]) -> pd.DataFrame:
    """The rows of tables, every cell as it is written."""
    return pd.concat([pd.read_csv(path, dtype=str, keep_default_na=False) for path in paths])


def table(rows: pd.DataFrame) -> str:
    """Rows in Markdown, without empty columns; what all rows share is said once, above them."""
    rows = rows.loc[:, (rows != "").any()]
    shared = rows.columns[(rows.nunique() == 1) & (len(rows) > 1)]
    same = "; ".join(f"{cell(name)} {cell(rows[name].iloc[0])}" for name in shared)
    rows = rows.drop(columns=shared)
    numbers = [pd.to_numeric(rows[name], errors="coerce").notna().any() for name in rows]
    lines = [map(cell, rows), ("--:" if number else ":--" for number in numbers)]
    lines += [map(cell, row) for row in rows.to_numpy()]
    above = f"In all rows: {same}.\n\n" if same else ""
    return above + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def beside(rows: pd.DataFrame) -> str:
    """A few rows with many columns in Markdown, turned: a line for each column with values."""
    rows = rows.loc[:, (rows != "").any()].set_axis(range(1, len(rows) + 1))
    return table(rows.T.reset_index(names="column"))


def cell(value: object) -> str:
    """A value as a cell in Markdown: escaped, or as code; long fractions have four digits."""
    text = "" if value is None or pd.isna(value) else str(value)
    if re.fullmatch(r"-?\d+\.\d{3,}(e[-+]?\d+)?|-?\d{5,}\.0|-?\d+(\.\d+)?e[-+]?\d+", text):
        return f"{float(text):.4g}" if abs(float(text)) < 1e4 else f"{float(text):.0f}"
    if " --" in text:  # options of a command, not dashes
        return f"`{text}`"
    return re.sub(r"([\\`*_<>\[\]|$~{}])", r"\\\1", text)


def which(models: pd.DataFrame, benchmark: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """A row for each network and each window or length of a clip: costs, times, accuracy.

    Times are of batch 1 in float32 with the most threads, in ms per clip or frame: of the form
    that `co3d.optimize` makes, and of the fastest.
    """
    classes = models["model"].map(lambda name: str(SPECS[name].num_classes))
    models = models[(models["num_classes"] == classes) & (models["dense"] == "0")]
    timed = benchmark[(benchmark["batch"] == "1") & (benchmark["precision"] == "float32")]
    timed = timed[timed["threads"] == timed["threads"].max()]
    stride = pd.to_numeric(timed["stride"]).fillna(1)
    timed = timed.assign(ms=1000 / timed["throughput_per_s"].astype(float) / stride)
    timed = timed.sort_values("ms")[["model", "implementation", "ms", "state_mb"]]
    optimised = timed[timed["implementation"] == "co3d optimised"].drop(columns="implementation")
    fastest = timed.drop_duplicates("model").drop(columns="state_mb")
    published = published[["model", "window", "frames", "top1_percent"]]
    return (
        models.merge(published, on=["model", "window", "frames"], how="left")
        .merge(optimised, on="model", how="left", suffixes=("", "_optimised"))
        .merge(fastest, on="model", how="left", suffixes=("", "_fastest"))
    )


def caption(path: Path) -> str:
    """What a figure says of itself in its metadata."""
    match = re.search("<dc:description>(.*?)</dc:description>", path.read_text("utf-8"), re.DOTALL)
    return " ".join(match[1].split()) if match else path.stem

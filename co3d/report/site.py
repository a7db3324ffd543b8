"""The site: notebooks, result tables, model cards and API as HTML, built by Sphinx.

The pages are the committed notebooks and the Markdown in `notebooks/site`: Jinja templates, which
are filled in here with the specs of the models and the tables in `results/`.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from pprint import pformat
from tempfile import TemporaryDirectory

import pandas as pd

from ..data import synthetic, synthetic_charades
from ..paths import repo_root
from ..zoo.checkpoints import shipped
from ..zoo.specs import SPECS
from .schema import PROVENANCE

MARK = ".buildinfo"  # Sphinx leaves it in what it has built
FILES = (
    *("*.md", "LICENSE", "notebooks/*.ipynb", "results/**/*.csv", "results/**/*.md"),
    *("figures/*.svg", "figures/*.png", "figures/*.gif"),
)
PAGES = ("index", "models", "claims", "results", "figures", "data", "api", "commands")


def build(out: Path, commands: Mapping[str, str], root: Path | None = None) -> None:
    """Build the site of the repository at `root` (default: this one) into the folder `out`.

    Args:
        commands: the help of each command by its name.

    Raises:
        FileNotFoundError: if `root` is no clone of the repository.
        ValueError: if `out` holds something else, Sphinx is not installed, or it warns, as of a
            broken link.
    """
    root = root or repo_root()
    config = root / "notebooks" / "site"
    if not config.is_dir():
        raise FileNotFoundError(f"the site is built in a clone of the repository, given {root}")
    empty = not out.exists() or (out.is_dir() and not any(out.iterdir()))
    if not empty and not (out / MARK).is_file():
        raise ValueError(f"expected a new or empty folder or an earlier site, given {out}")
    if not find_spec("sphinx"):
        raise ValueError("Sphinx is not installed: pip install 'co3d[site]'")
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    with TemporaryDirectory() as folder:
        _write_sources(Path(folder), root, commands)
        command = [sys.executable, "-m", "sphinx", "-qnW", "-j", "2", "-c", config]
        command += ["-d", f"{folder}/.doctrees", folder, part]
        run = subprocess.run(command, capture_output=True, text=True, cwd=root)
    if run.returncode:
        shutil.rmtree(part, ignore_errors=True)
        raise ValueError(f"Sphinx found problems:\n{run.stderr.strip()}")
    if out.exists():
        shutil.rmtree(out)
    part.rename(out)


def _write_sources(folder: Path, root: Path, commands: Mapping[str, str]) -> None:
    """What Sphinx reads: files of the repository in their places, and the pages."""
    for pattern in FILES:
        for path in root.glob(pattern):
            target = folder / path.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    pages = _pages(root, commands)
    for name in PAGES:
        (folder / f"{name}.md").write_text(pages.get_template(f"{name}.md").render(), "utf-8")
    (folder / "models").mkdir()
    for name, spec in SPECS.items():
        text = pages.get_template("model.md").render(name=name, spec=spec)
        (folder / "models" / f"{name}.md").write_text(text, "utf-8")
    for name, rows in pages.globals["tables"].items():
        text = pages.get_template("table.md").render(name=name, rows=rows)
        (folder / "results" / f"{name}.md").write_text(text, "utf-8")


def _pages(root: Path, commands: Mapping[str, str]) -> "jinja2.Environment":  # noqa: F821
    """The templates, and what they show."""
    import jinja2

    loader = jinja2.FileSystemLoader([root / "notebooks" / "site", root])
    pages = jinja2.Environment(
        loader=loader, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    pages.filters.update(cell=cell, table=table, beside=beside, pretty=pformat)
    results = root / "results"
    tables = {
        path.relative_to(results).with_suffix("").as_posix(): read([path])
        for path in sorted(results.rglob("*.csv"))
    }
    regular = [name for name, spec in SPECS.items() if not spec.continual]
    pages.globals.update(
        specs={name: SPECS[name] for clip in regular for name in (clip, f"co{clip}")},
        shipped=shipped,
        claims=tables.pop("paper/claims"),
        tables=tables,
        benchmark=read(sorted(results.glob("benchmark-*.csv"))),
        provenance=list(PROVENANCE),
        figures={path.name: caption(path) for path in sorted((root / "figures").glob("*.svg"))},
        kinetics=synthetic,
        charades=synthetic_charades,
        commands=commands,
    )
    pages.globals["which"] = which(
        tables["models"], pages.globals["benchmark"], tables["paper/kinetics400_published"]
    )
    return pages


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
    lines = [f"In all rows: {same}.\n"] if same else []
    lines += [_line(map(cell, rows)), _line("--:" if number else ":--" for number in numbers)]
    lines += [_line(map(cell, row)) for row in rows.to_numpy()]
    return "\n".join(lines)


def beside(rows: pd.DataFrame) -> str:
    """A few rows with many columns in Markdown, turned: a line for each column with values."""
    rows = rows.loc[:, (rows != "").any()].set_axis(range(1, len(rows) + 1))
    return table(rows.T.reset_index(names="column"))


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def cell(value: object) -> str:
    """A value as a cell in Markdown: text is escaped, long fractions have four digits."""
    text = "" if value is None or pd.isna(value) else str(value)
    if re.fullmatch(r"-?\d+\.\d{3,}(e[-+]?\d+)?|-?\d+(\.\d+)?e[-+]?\d+", text):
        return f"{float(text):.4g}" if abs(float(text)) < 1e4 else f"{float(text):.0f}"
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

"""Runs the notebooks through papermill, each complete or not at all.

Two run side by side, most with one thread; those that measure times run alone; what reads the
tables of all comes last. `reproduce` leaves the clone as it is and compares; `update` alone
refreshes what is committed.
"""

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import click
import nbformat
import pandas as pd
import yaml
from nbformat import NotebookNode
from tqdm import tqdm

from .. import files
from ..paths import logs_path, repo_root
from . import claims, figures, readme, results, schema
from .rules import CELL_METADATA, CONTROLS, declared, output_problems, source_hash

SIDE_BY_SIDE = 2  # notebooks at a time; more would not fit into 4 GB of memory
TIMED = ("04", "10")  # they measure times
LAST = ("08",)  # it reads what the others write
# Others have one. Clip nets sum in another order with two, by which ranks of videos may change.
THREADS = {"06": 2}
KINDS = ["differs", "missing", "new", "within flipped videos", "differs by machine", "equal"]
LISTED = 100  # values that differ


class NotebookError(click.ClickException):
    """A notebook that did not run to its end; `co3d` says so in one line."""


def folder() -> Path:
    """Where the notebooks and their profiles are."""
    return repo_root() / "notebooks"


def names() -> list[str]:
    """All notebooks."""
    return sorted(path.stem for path in folder().glob("*.ipynb"))


def select(only: Iterable[str] | None) -> list[str]:
    """The notebooks whose names begin with one of `only` (such as "05"), or all of them."""
    prefixes, known = tuple(only or [""]), names()
    for prefix in prefixes:
        if not any(name.startswith(prefix) for name in known):
            there = ", ".join(known) or f"no notebooks in {folder()}"
            raise ValueError(f"no notebook begins with {prefix!r}; there are {there}")
    return [name for name in known if name.startswith(prefixes)]


def profile_parameters(profile: str) -> dict[str, Any]:
    """The parameters of notebooks/<profile>.yml."""
    known = sorted(path.stem for path in folder().glob("*.yml"))
    if profile not in known:
        raise ValueError(f"no profile is called {profile!r}; there are {', '.join(known)}")
    return yaml.safe_load((folder() / f"{profile}.yml").read_text("utf-8"))


def run(
    notebook: Path,
    parameters: Mapping[str, Any],
    run_dir: Path,
    threads: int | None = None,
    on_cell: Callable[[], object] = lambda: None,
) -> Path:
    """Executes a copy of `notebook` into run_dir/notebooks/, where it appears once it is complete.

    Raises:
        ValueError: for a parameter that the notebook does not declare.
        NotebookError: if a cell fails, exits, or its kernel dies.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError

    from .kernel import kernel

    _checked(notebook, parameters)
    position = 0

    def begin(cell: NotebookNode, cell_index: int) -> None:
        nonlocal position
        position = cell_index + 1
        on_cell()

    try:
        done = papermill.execute_notebook(
            str(notebook),
            None,
            dict(parameters),
            kernel_name="python3",
            language="python",
            progress_bar=False,
            # not `cwd`, by which papermill would move this whole process
            resources={"metadata": {"path": str(notebook.parent)}},
            kernel_manager_class=kernel(threads),
            coalesce_streams=True,
            on_cell_start=begin,
        )
    except papermill.PapermillExecutionError as error:
        raise NotebookError(f"{notebook.stem} failed\n{error}") from None
    except DeadKernelError:
        raise NotebookError(
            f"the kernel of {notebook.stem} died in cell {position} (killed, or out of memory?)"
        ) from None
    finally:
        asyncio.get_event_loop().close()  # the loop of this thread, which papermill leaves
    code = [cell for cell in done.cells if cell.cell_type == "code" and cell.source.strip()]
    if any(cell.execution_count is None for cell in code):
        raise NotebookError(f"{notebook.stem} ended before its last cell")
    return _write(_clean(done), run_dir / "notebooks" / notebook.name)


def execute(
    profile: str, only: Iterable[str] | None = None, parameters: Mapping[str, Any] | None = None
) -> tuple[Path, list[str]]:
    """Runs notebooks into a new folder among the runs; returns it and their names.

    Prints how each compares with the committed results as it ends.
    """
    from .pages import export

    chosen = select(only)
    run_dir = logs_path() / f"{datetime.now():%Y%m%d-%H%M%S}-{profile}"
    values = {**profile_parameters(profile), **(parameters or {}), "out": str(run_dir)}
    loaded = {name: _checked(folder() / f"{name}.ipynb", values) for name in chosen}
    minutes = {name: _minutes(notebook) for name, notebook in loaded.items()}
    last = [name for name in chosen if name.startswith(LAST)]
    alone = [name for name in chosen if name.startswith(TIMED)] + last
    beside = sorted(set(chosen) - set(alone), key=minutes.get, reverse=True)
    if profile == "embedded":
        work = [minutes[name] for name in beside]
        total = sum(minutes.values()) - sum(work) + max([sum(work) / SIDE_BY_SIDE, *work])
        print(f"{len(chosen)} notebooks, about {total:.0f} minutes on two cores", flush=True)

    def run_one(name: str) -> str:
        started = time.monotonic()
        threads = THREADS.get(name[:2], 1) if name in beside else None
        export(run(folder() / f"{name}.ipynb", values, run_dir, threads, bar.update))
        counts = _kinds(_compared(run_dir, [name])).value_counts()
        counts = ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if kind in counts)
        return f"{name:<26}{time.monotonic() - started:5.0f} s  {counts}"

    cells = sum(len(notebook.cells) + 1 for notebook in loaded.values())
    with tqdm(total=cells, unit=" cells", disable=None, leave=False) as bar:
        with ThreadPool(SIDE_BY_SIDE) as pool:  # an error or Ctrl-C does not wait for the others
            for line in pool.imap_unordered(run_one, beside):
                bar.write(line)
        for name in alone:
            bar.write(run_one(name))
    return run_dir, chosen


def reproduce(
    profile: str = "embedded",
    only: Iterable[str] | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> Path:
    """Runs notebooks, says where everything is, and compares it with what is committed."""
    run_dir, chosen = execute(profile, only, parameters)
    compared = _compared(run_dir, chosen)
    print(f"\nAgainst the committed results:\n{summary(compared)}")
    if changes := claims.compare(run_dir, repo_root()):
        print(changes)
    made = {path.stem for path in (run_dir / "results").glob("*.csv")}
    if others := {path.stem for path in (repo_root() / "results").glob("*.csv")} - made:
        print(f"Not measured in this run: {', '.join(sorted(others))}")
    with files.replacing(run_dir / "comparison.csv") as part:
        compared.to_csv(part, index=False)
    for part in ("figures", "results", "html"):
        count = len(list((run_dir / part).rglob("*.*")))
        print(f"{part:<8} {run_dir / part}  ({count} files)")
    return run_dir


def summary(compared: pd.DataFrame) -> str:
    """How many values of each table are equal; and what differs though it should not.

    Rows of tables that hold times alone are counted, not listed.
    """
    if compared.empty:
        return "no tables to compare"
    kinds = _kinds(compared)
    counts = pd.crosstab(compared["table"], kinds).reindex(columns=KINDS, fill_value=0)
    counts.index.name = counts.columns.name = None
    timed = [name for name, table in schema.TABLES.items() if not table.exact + table.flips]
    listed = compared[~compared["table"].str.split("-").str[0].isin(timed)]
    listed = pd.concat([listed[kinds[listed.index] == kind] for kind in KINDS[:4]])
    lines = []
    for row in listed.itertuples():
        values = f": {row.column} {row.committed} -> {row.new}" if row.column else ""
        lines.append(f"{row.table} [{row.row}] {row.verdict}{values}")
    more = [f"and {len(lines) - LISTED} more in comparison.csv"] if len(lines) > LISTED else []
    return "\n".join([*lines[:LISTED], *more, counts.to_string()])


def update(only: Iterable[str] | None = None) -> Path:
    """Runs the embedded profile and copies results, figures and outputs into the tree.

    The ledger of claims and its counts in README.md follow from the results then committed, the
    table of models there from the code.

    Raises:
        NotebookError: if a notebook was edited during the run or its outputs hold a machine's
            path or the like; the tree is left as it was.
    """
    run_dir, chosen = execute("embedded", only)
    ready = {name: _for_commit(run_dir / "notebooks" / f"{name}.ipynb") for name in chosen}
    for name, notebook in ready.items():
        _write(notebook, folder() / f"{name}.ipynb")
    committed = repo_root() / "results"
    for table in sorted((run_dir / "results").glob("*.csv")):
        results.merge(table, committed, chosen)
    files.write(committed / "README.md", schema.readme())
    claims.refresh(repo_root())
    blocks = {"models": readme.models(), "scaling": readme.scaling(repo_root())}
    readme.refresh(repo_root(), **{name: block for name, block in blocks.items() if block})
    if (run_dir / "figures").exists():
        figures.merge(run_dir / "figures", repo_root() / "figures")
    return run_dir


def _checked(path: Path, parameters: Mapping[str, Any]) -> NotebookNode:
    """The notebook, which declares all of the parameters."""
    notebook = nbformat.read(path, 4)
    known = declared(notebook)
    if unknown := sorted(parameters.keys() - known.keys()):
        raise ValueError(
            f"{path.stem} has no parameter {unknown[0]!r}; it declares {', '.join(known)}"
        )
    return notebook


def _minutes(notebook: NotebookNode) -> int:
    """What the first cell says."""
    return int(re.search(r"(\d+) minute", notebook.cells[0].source)[1])


def _compared(run_dir: Path, chosen: list[str]) -> pd.DataFrame:
    """The rows of these notebooks against the committed ones."""
    compared = results.compare(run_dir / "results", repo_root() / "results")
    return compared[compared["notebook"].isin(chosen)]


def _kinds(compared: pd.DataFrame) -> pd.Series:
    return compared["verdict"].str.replace(r"within \d+ ", "within ", regex=True)


def _for_commit(executed: Path) -> NotebookNode:
    """The executed copy without the injected parameters, numbered from 1, with its source hash."""
    notebook = nbformat.read(executed, 4)
    injected = "injected-parameters"
    notebook.cells = [c for c in notebook.cells if injected not in c.metadata.get("tags", [])]
    if source_hash(notebook) != source_hash(nbformat.read(folder() / executed.name, 4)):
        raise NotebookError(f"{executed.stem} was edited during the run: run again")
    code = (cell for cell in notebook.cells if cell.cell_type == "code")
    for number, cell in enumerate(code, 1):
        cell.execution_count = number
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = number
    if problems := output_problems(notebook):
        raise NotebookError(f"{executed.stem} cannot be committed: {'; '.join(problems)}")
    notebook.metadata["co3d"] = {"source_hash": source_hash(notebook)}
    return notebook


def _clean(notebook: NotebookNode) -> NotebookNode:
    """Drops what tools leave in metadata (times, paths, versions, empty tags), and controls."""
    kernelspec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = {"kernelspec": kernelspec, "language_info": {"name": "python"}}
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            output.get("data", {}).pop(CONTROLS, None)
        cell.metadata = {key: cell.metadata[key] for key in CELL_METADATA if cell.metadata.get(key)}
    return notebook


def _write(notebook: NotebookNode, target: Path) -> Path:
    return files.write(target, nbformat.writes(notebook) + "\n")

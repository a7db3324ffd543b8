"""Runs the notebooks through papermill: in order, with this interpreter, complete or not at all.

`reproduce` leaves the clone as it is and compares; `update` alone refreshes what is committed.
"""

import os
import sys
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import yaml
from nbformat import NotebookNode

from ..paths import logs_path, repo_root
from . import claims, figures, readme, results, schema
from .rules import CELL_METADATA, CONTROLS, declared, output_problems, source_hash


class NotebookError(RuntimeError):
    """A notebook that did not run to its end."""


def folder() -> Path:
    """Where the notebooks and their profiles are."""
    return repo_root() / "notebooks"


def names() -> list[str]:
    """All notebooks in the order of a run: A1 checks the weights that 05 evaluates."""
    found = (path.stem for path in folder().glob("*.ipynb"))
    return sorted(found, key=lambda name: "04~" + name if name.startswith("A") else name)


def select(only: Iterable[str] | None) -> list[str]:
    """The notebooks whose names begin with one of `only` (such as "05"), or all of them."""
    prefixes, found = tuple(only or [""]), names()
    for prefix in prefixes:
        if not any(name.startswith(prefix) for name in found):
            there = ", ".join(found) or f"no notebooks in {folder()}"
            raise ValueError(f"no notebook begins with {prefix!r}; there are {there}")
    return [name for name in found if name.startswith(prefixes)]


def profile_parameters(profile: str) -> dict[str, Any]:
    """The parameters of notebooks/<profile>.yml."""
    found = sorted(path.stem for path in folder().glob("*.yml"))
    if profile not in found:
        raise ValueError(f"no profile is called {profile!r}; there are {', '.join(found)}")
    return yaml.safe_load((folder() / f"{profile}.yml").read_text("utf-8"))


def run(notebook: Path, parameters: Mapping[str, Any], run_dir: Path, title: str = "") -> Path:
    """Executes a copy of `notebook` into run_dir/notebooks/, where it appears once it is complete.

    Raises:
        ValueError: for a parameter that the notebook does not declare.
        NotebookError: if a cell fails, exits, or its kernel dies.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError

    from .kernel import Kernel

    source = nbformat.read(notebook, 4)
    known = declared(source)
    if unknown := sorted(parameters.keys() - known.keys()):
        raise ValueError(
            f"{notebook.stem} has no parameter {unknown[0]!r}; it declares {', '.join(known)}"
        )
    title = title or notebook.stem
    started = time.monotonic()
    position = 0

    def show(cell: NotebookNode, cell_index: int) -> None:
        nonlocal position
        position = cell_index + 1
        if sys.stdout.isatty():
            print(f"\r{title}  cell {position} of {len(source.cells)} ", end="", flush=True)

    try:
        done = papermill.execute_notebook(
            str(notebook),
            None,
            dict(parameters),
            kernel_name="python3",
            language="python",
            progress_bar=False,
            cwd=notebook.parent,
            kernel_manager_class=Kernel,
            coalesce_streams=True,
            on_cell_start=show,
        )
    except papermill.PapermillExecutionError as error:
        raise NotebookError(f"{notebook.stem} failed\n{error}") from None
    except DeadKernelError:
        raise NotebookError(
            f"the kernel of {notebook.stem} died in cell {position} (killed, or out of memory?)"
        ) from None
    code = [cell for cell in done.cells if cell.cell_type == "code" and cell.source.strip()]
    if any(cell.execution_count is None for cell in code):
        raise NotebookError(f"{notebook.stem} ended before its last cell")
    print(f"\r{title}  {time.monotonic() - started:.0f} s" + " " * 20, flush=True)
    return _write(_clean(done), run_dir / "notebooks" / notebook.name)


def html(executed: Path) -> Path:
    """Exports run_dir/notebooks/x.ipynb to run_dir/html/x.html, readable without a network."""
    from .pages import export

    target = executed.parent.parent / "html" / f"{executed.stem}.html"
    return _replace(export(executed), target)


def execute(
    profile: str, only: Iterable[str] | None = None, parameters: Mapping[str, Any] | None = None
) -> tuple[Path, list[str]]:
    """Runs notebooks into a new folder among the runs; returns it and their names."""
    chosen = select(only)
    run_dir = logs_path() / f"{datetime.now():%Y%m%d-%H%M%S}-{profile}"
    values = {**profile_parameters(profile), **(parameters or {}), "out": str(run_dir)}
    run_dir.mkdir(parents=True)
    for number, name in enumerate(chosen, 1):
        title = f"[{number}/{len(chosen)}] {name}"
        html(run(folder() / f"{name}.ipynb", values, run_dir, title))
    return run_dir, chosen


def reproduce(
    profile: str = "embedded",
    only: Iterable[str] | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> Path:
    """Runs notebooks, says where everything is, and compares it with what is committed."""
    run_dir, chosen = execute(profile, only, parameters)
    print()
    for part in ("figures", "results", "html"):
        count = len(list((run_dir / part).rglob("*.*")))
        print(f"{part:<8} {run_dir / part}  ({count} files)")
    compared = results.compare(run_dir / "results", repo_root() / "results", chosen)
    print(f"\nAgainst the committed results:\n{summary(compared)}")
    if told := claims.compare(run_dir, repo_root()):
        print(told)
    made = {path.stem for path in (run_dir / "results").glob("*.csv")}
    if others := {path.stem for path in (repo_root() / "results").glob("*.csv")} - made:
        print(f"Not measured in this run: {', '.join(sorted(others))}")
    return run_dir


def summary(compared: pd.DataFrame, limit: int = 20) -> str:
    """A count of each verdict per table, and the rows that are not equal."""
    if compared.empty:
        return "no tables to compare"
    kinds = ["equal", "within flipped videos", "differs", "differs by machine", "new", "missing"]
    kind = compared["verdict"].str.replace(r"within \d+ ", "within ", regex=True)
    counts = pd.crosstab(compared["table"], kind).reindex(columns=kinds, fill_value=0)
    counts.index.name = counts.columns.name = None
    told = compared[~compared["verdict"].isin(["equal", "differs by machine"])]
    lines = [counts.to_string()]
    for row in told.head(limit).itertuples():
        values = f": {row.column} {row.committed} -> {row.new}" if row.column else ""
        lines.append(f"{row.table} [{row.row}] {row.verdict}{values}")
    if len(told) > limit:
        lines.append(f"and {len(told) - limit} more")
    return "\n".join(lines)


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
    _replace(schema.readme(), committed / "README.md")
    claims.refresh(repo_root())
    blocks = {"models": readme.models(), "scaling": readme.scaling(repo_root())}
    readme.refresh(repo_root(), **{name: block for name, block in blocks.items() if block})
    if (run_dir / "figures").exists():
        figures.merge(run_dir / "figures", repo_root() / "figures")
    return run_dir


def _for_commit(executed: Path) -> NotebookNode:
    """The executed copy without the injected parameters, numbered from 1, with its source hash."""
    notebook = nbformat.read(executed, 4)
    notebook.cells = [
        cell
        for cell in notebook.cells
        if "injected-parameters" not in cell.metadata.get("tags", [])
    ]
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
    for output in (output for cell in notebook.cells for output in cell.get("outputs", ())):
        output.get("data", {}).pop(CONTROLS, None)
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    for cell in notebook.cells:
        kept = {key: cell.metadata[key] for key in CELL_METADATA if cell.metadata.get(key)}
        cell.metadata = nbformat.from_dict(kept)
    return notebook


def _write(notebook: NotebookNode, target: Path) -> Path:
    return _replace(nbformat.writes(notebook) + "\n", target)


def _replace(text: str, target: Path) -> Path:
    """Writes the file under a temporary name, then renames it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    part.write_text(text, "utf-8")
    os.replace(part, target)
    return target

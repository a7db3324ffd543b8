"""What a notebook of this repository must look like, checked from its JSON."""

import ast
import hashlib
import json
import re
import statistics
from itertools import groupby
from typing import Any

from nbformat import NotebookNode

CELL_METADATA = ("tags", "predict")  # `predict`: the questions at the end, run by a test
PARAMETERS = {"profile", "seed", "limit", "device", "out"}
MAX_LINES, FIGURE_LINES, MEDIAN_LINES, MAX_RUN = 25, 35, 8, 2  # `figure`: a tag of a cell
CONTROLS = "application/vnd.jupyter.widget-view+json"  # of no use without their kernel
MAX_OUTPUT_BYTES, MAX_NOTEBOOK_BYTES = 1_400_000, 4_000_000  # base64 of 1 MB; all of a notebook
UNWANTED = {
    "a path of this machine": r"(?<![\w.~/:])/(home|root|Users|tmp|work|var|usr|opt|mnt|data)/\w",
    "an installed package's file": r"site-packages",
    "a time of day": r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d",
    "a memory address": r"\b0x[0-9a-f]{8,}",
}


def source_hash(notebook: NotebookNode) -> str:
    """Of all cells' types, tags and sources: equal as long as only outputs change."""
    cells = [[c.cell_type, c.metadata.get("tags") or [], c.source] for c in notebook.cells]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()[:16]


def declared(notebook: NotebookNode) -> dict[str, Any]:
    """Names and defaults of the cell tagged `parameters`.

    Raises:
        ValueError: if there is not exactly one such cell, or it holds more than `name = literal`.
    """
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise ValueError(f"expected one cell tagged 'parameters', found {len(cells)}")
    values = {}
    for node in ast.parse(cells[0].source).body:
        try:
            (target,) = node.targets
            values[target.id] = ast.literal_eval(node.value)
        except (AttributeError, ValueError):
            raise ValueError(
                f"line {node.lineno} of the parameters cell is not `name = literal`"
            ) from None
    return values


def check_rules(notebook: NotebookNode, name: str) -> list[str]:
    """All that is wrong with a committed notebook, as sentences; empty if nothing is."""
    return [
        *_text_problems(notebook),
        *_parameter_problems(notebook),
        *_code_problems(notebook, may_define=name.startswith("01_")),
        *_commit_problems(notebook),
        *output_problems(notebook),
    ]


def _text_problems(notebook: NotebookNode) -> list[str]:
    first = notebook.cells[0]
    text = first.source.lower()
    problems = []
    if first.cell_type != "markdown" or not first.source.startswith("# "):
        problems.append("the first cell is not Markdown with a title")
    problems += [
        f"the first cell does not say {what}"
        for what, word in (
            ("what it reads", "reads"),
            ("what it writes", "writes"),
            ("how many minutes it takes", "minute"),
        )
        if word not in text
    ]
    runs = [len(list(run)) for kind, run in groupby(c.cell_type for c in notebook.cells)
            if kind == "code"]  # fmt: skip
    if max(runs, default=0) > MAX_RUN:
        problems.append(f"{max(runs)} code cells in a row without text")
    return problems


def _parameter_problems(notebook: NotebookNode) -> list[str]:
    try:
        names = declared(notebook).keys()
    except ValueError as error:
        return [str(error)]
    problems = [f"does not declare the parameter {n!r}" for n in sorted(PARAMETERS - names)]
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    if "parameters" not in cell.metadata.get("tags", []):
        problems.append("the first code cell is not the parameters cell")
    lines = [line for line in cell.source.splitlines() if line.strip()]
    if any("#" not in line for line in lines):
        problems.append("a parameter has no comment")
    return problems


def _code_problems(notebook: NotebookNode, may_define: bool) -> list[str]:
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    draws = ["figure" in cell.metadata.get("tags", []) for cell in cells]
    most = [FIGURE_LINES if figure else MAX_LINES for figure in draws]
    sources = [cell.source for cell in cells]
    lengths = [len(source.splitlines()) for source in sources]
    problems = [f"code cell {n} is empty" for n, length in enumerate(lengths, 1) if not length]
    problems += [
        f"code cell {n} has {length} lines, more than {limit}"
        for n, (length, limit) in enumerate(zip(lengths, most, strict=True), 1)
        if length > limit
    ]
    if statistics.median(lengths or [0]) >= MEDIAN_LINES:
        problems.append(f"half of the code cells have {MEDIAN_LINES} lines or more")
    for number, source in enumerate(sources, 1):
        try:
            nodes = list(ast.walk(ast.parse(source)))
        except SyntaxError:
            problems.append(f"code cell {number} is not plain Python")
            continue
        defines = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        if not may_define and any(isinstance(node, defines) for node in nodes):
            problems.append(f"code cell {number} defines what the library should own")
    return problems


def _commit_problems(notebook: NotebookNode) -> list[str]:
    problems = []
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    if counts != list(range(1, len(counts) + 1)):
        problems.append("execution counts are not 1..n (run `co3d update`)")
    if notebook.metadata.get("co3d", {}).get("source_hash") != source_hash(notebook):
        problems.append("the outputs belong to other sources (run `co3d update`)")
    extra = notebook.metadata.keys() - {"kernelspec", "language_info", "co3d"}
    extra |= {key for cell in notebook.cells for key in cell.metadata.keys() - {*CELL_METADATA}}
    problems += [f"the metadata holds {key!r}" for key in sorted(extra)]
    if len({cell.get("id") for cell in notebook.cells}) < len(notebook.cells):
        problems.append("two cells have one id")
    return problems


def output_problems(notebook: NotebookNode) -> list[str]:
    """What no committed output may hold: errors, controls, machine paths, times, many bytes."""
    problems, total = [], 0
    code = (cell for cell in notebook.cells if cell.cell_type == "code")
    for number, cell in enumerate(code, 1):
        for output in cell.outputs:
            if output.output_type == "error":
                problems.append(f"code cell {number} ends in an error")
            if CONTROLS in output.get("data", {}):
                problems.append(f"an output of code cell {number} holds controls")
            size = len(json.dumps(output))
            total += size
            if size > MAX_OUTPUT_BYTES:
                problems.append(f"an output of code cell {number} has {size / 1e6:.1f} MB")
            shown = output.get("text", "") + "".join(
                value
                for kind, value in output.get("data", {}).items()
                if isinstance(value, str) and kind.startswith("text/")
            )
            problems += [
                f"an output of code cell {number} holds {what}: {found[0]!r}"
                for what, pattern in UNWANTED.items()
                if (found := re.search(pattern + r"\S{0,40}", shown))
            ]
    if total > MAX_NOTEBOOK_BYTES:
        problems.append(f"the outputs have {total / 1e6:.1f} MB")
    return problems

"""What the runner reads from a notebook, and what no committed output may hold."""

import ast
import hashlib
import json
import re
from typing import Any

from nbformat import NotebookNode

CELL_METADATA = ("tags", "predict")  # `predict`: the questions at the end, run by a test
CONTROLS = "application/vnd.jupyter.widget-view+json"  # of no use without their kernel
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
    """Names and defaults of the cell tagged `parameters`, which holds `name = literal` alone."""
    (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    lines = ast.parse(cell.source).body
    return {line.targets[0].id: ast.literal_eval(line.value) for line in lines}


def output_problems(notebook: NotebookNode) -> list[str]:
    """What the texts of the outputs hold of a machine or a moment."""
    problems = []
    code = (cell for cell in notebook.cells if cell.cell_type == "code")
    for number, cell in enumerate(code, 1):
        for output in cell.outputs:
            data = {"text/plain": output.get("text", ""), **output.get("data", {})}
            text = "".join(value for kind, value in data.items() if kind.startswith("text/"))
            for what, pattern in UNWANTED.items():
                if match := re.search(pattern + r"\S{0,40}", text):
                    where = f"an output of code cell {number}"
                    problems.append(f"{where} holds {what}: {match[0]!r}")
    return problems

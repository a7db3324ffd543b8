"""What the runner reads from a notebook, and what no committed output may hold."""

import ast
import hashlib
import json
import re
from typing import Any

from nbformat import NotebookNode

CELL_METADATA = ("tags", "predict")  # `predict`: the questions at the end, run by a test
CONTROLS = "application/vnd.jupyter.widget-view+json"  # of no use without their kernel
MAX_BYTES = 4_000_000  # of a notebook's outputs
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
            total += len(json.dumps(output))
            shown = output.get("text", "") + "".join(
                value
                for kind, value in output.get("data", {}).items()
                if isinstance(value, str) and kind.startswith("text/")
            )
            problems += [
                f"an output of code cell {number} holds {what}: {match[0]!r}"
                for what, pattern in UNWANTED.items()
                if (match := re.search(pattern + r"\S{0,40}", shown))
            ]
    if total > MAX_BYTES:
        problems.append(f"the outputs have {total / 1e6:.1f} MB")
    return problems

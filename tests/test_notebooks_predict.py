"""Each notebook ends with two questions, and each answer is what the changed cells show.

The cell with the id `predict` holds the text; its metadata hold, under `predict` and for each
question, what the text cannot: `{"change": {name: value}, "cells": [ids], "shows": text}`, and
`"slow": true` where the cells take seconds. Run are the parameters, the imports and these cells.
What the unchanged cells show is read from the committed outputs, as they may take minutes.
"""

import ast
import contextlib
import html
import io
import json
import re

import nbformat
import pytest
import torch

from co3d.paths import repo_root
from co3d.report.rules import source_hash

ANSWER = re.compile(r"<details><summary>Answer</summary>\n\n(.+?)\n\n</details>", re.S)
REAL = sorted((repo_root() / "notebooks").glob("*.ipynb"))


def cell_of_questions(notebook):
    return next(cell for cell in notebook.cells if cell.id == "predict")


def cases():
    """A pytest parameter for each question: path of the notebook and index."""
    for path in REAL:
        for n, question in enumerate(cell_of_questions(nbformat.read(path, 4)).metadata.predict):
            marks = [pytest.mark.slow] if question.get("slow") else []
            yield pytest.param(path, n, id=f"{path.stem[:2]}-{n + 1}", marks=marks)


def plain(text):
    """Text without HTML, Markdown's signs for code and bold, and runs of white space."""
    text = re.sub(r"<(style|script)\b.*?</\1>", " ", text, flags=re.S)
    text = html.unescape(re.sub(r"</?[a-zA-Z][^<>]*>", " ", text))
    return " ".join(text.replace("`", "").replace("**", "").split())


def holds(text, part):
    """Whether `part` is in `text` as whole words and whole numbers: "12" is not in "112.5"."""
    pattern = rf"(?<!\w)(?<!\d[.,]){re.escape(plain(part))}(?!\w)(?![.,]\d)"
    return re.search(pattern, plain(text)) is not None


class Change(ast.NodeTransformer):
    """Other literals in assignments; what is computed stays."""

    def __init__(self, change):
        self.change, self.names = change, set()

    def visit_Assign(self, node):
        target, value = node.targets[0], node.value
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            pairs = zip(target.elts, value.elts, strict=True)
            value.elts = [self.replaced(name, old) for name, old in pairs]
        else:
            node.value = self.replaced(target, value)
        return node

    def replaced(self, target, old):
        name = getattr(target, "id", None)
        if name not in self.change or any(isinstance(n, ast.Name) for n in ast.walk(old)):
            return old
        self.names.add(name)
        return ast.parse(repr(self.change[name]), mode="eval").body


def shown_by(notebook, question, out):
    """What the cells of a question print and show after its change, as one text."""
    code = {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}
    ids = list(code)
    assert question["cells"] == sorted(question["cells"], key=ids.index), "cells are not in order"
    change = Change({**question["change"], "out": str(out)})

    def display(value):
        if value is not None:
            print(repr(value), getattr(value, "_repr_html_", str)() or "", sep="\n")

    text, space = io.StringIO(), {"__name__": "__main__", "display": display}
    with contextlib.redirect_stdout(text):
        for cell_id in dict.fromkeys([*ids[:2], *question["cells"]]):  # first parameters, imports
            tree = change.visit(ast.parse(code[cell_id].source))
            if isinstance(tree.body[-1], ast.Expr):
                shown = [tree.body[-1].value]
                tree.body[-1] = ast.Expr(ast.Call(ast.Name("display", ast.Load()), shown, []))
            exec(compile(ast.fix_missing_locations(tree), cell_id, "exec"), space)
    assert change.names >= question["change"].keys(), "no cell that is run assigns the name"
    return text.getvalue()


def committed_by(notebook, cell_ids):
    """What the committed outputs of these cells show, as one text."""
    outputs = [o for cell in notebook.cells if cell.id in cell_ids for o in cell.outputs]
    data = [{"text/plain": o.get("text", ""), **o.get("data", {})} for o in outputs]
    return "\n".join(d.get(kind, "") for d in data for kind in ("text/plain", "text/html"))


@pytest.fixture
def place(tmp_path, monkeypatch, inline):
    """An empty folder to write to; the notebook's folder as the current one; torch as it was."""
    monkeypatch.chdir(repo_root() / "notebooks")
    monkeypatch.setenv("LOGS_PATH", str(tmp_path / "logs"))  # no predictions of runs before
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    grad = torch.is_grad_enabled()
    yield tmp_path
    torch.set_num_threads(threads)
    torch.set_default_dtype(dtype)
    torch.set_grad_enabled(grad)


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_the_last_section_but_one_asks_two_questions(path):
    *_, questions, last = nbformat.read(path, 4).cells
    assert last.source.startswith("## Where to go next") and questions.id == "predict"
    assert questions.source.startswith("## Predict, then run\n\n")
    assert len(ANSWER.findall(questions.source)) == len(questions.metadata.predict) == 2


@pytest.mark.parametrize(("path", "n"), list(cases()))
def test_the_answer_is_what_the_changed_cells_show(path, n, place):
    notebook = nbformat.read(path, 4)
    cell = cell_of_questions(notebook)
    question, shows = cell.metadata.predict[n], cell.metadata.predict[n]["shows"]
    text = re.split(r"^[12]\. ", cell.source, flags=re.M)[n + 1]
    answer = ANSWER.search(text)
    ((name, value),) = question["change"].items()
    told = re.search(rf"`{name} = ([^`]+)`", text[: answer.start()])
    assert json.loads(json.dumps(ast.literal_eval(told[1]))) == value, "another change in the text"
    assert holds(answer[1], shows), "the answer lacks what is shown"
    shown = shown_by(notebook, question, place)
    assert holds(shown, shows), f"the changed cells show {plain(shown)}"
    if notebook.metadata.co3d.source_hash == source_hash(notebook):
        before = committed_by(notebook, question["cells"])
        assert not holds(before, shows), "the unchanged cells show it too"


def test_numbers_and_words_are_compared_whole():
    assert holds("<td>12</td><td>0.5</td>", "12 0.5") and holds("costs `1,200`.", "1,200")
    assert not any(holds(text, "12") for text in ("112", "12.5", "3.12", "1,12", "12,000", "a12"))

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
    return next((cell for cell in notebook.cells if cell.id == "predict"), None)


def cases():
    """A pytest parameter for each question: path of the notebook and index."""
    for path in REAL:
        cell = cell_of_questions(nbformat.read(path, 4))
        for n, question in enumerate(cell.metadata.get("predict", []) if cell else []):
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


def changed(source, change):
    """The cell's syntax tree with other literals in top-level assignments, and which it changed."""
    tree, names = ast.parse(source), set()
    for node in tree.body:
        if not isinstance(node, ast.Assign):
            continue
        several = isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple)
        targets = node.targets[0].elts if several else node.targets
        values = node.value.elts if several else [node.value] * len(targets)
        for n, (target, value) in enumerate(zip(targets, values, strict=True)):
            name = getattr(target, "id", None)
            if name not in change or not is_literal(value):
                continue
            new = ast.copy_location(ast.parse(repr(change[name]), mode="eval").body, value)
            if several:
                node.value.elts[n] = new
            else:
                node.value = new
            names.add(name)
    return ast.fix_missing_locations(tree), names


def is_literal(node):
    try:
        ast.literal_eval(node)
    except ValueError:
        return False
    return True


def shown_by(notebook, question, out):
    """What the cells of a question print and show after its change, as one text."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    first = next(n for n, c in enumerate(code) if "parameters" in c.metadata.get("tags", []))
    ids = [cell.id for cell in code]
    assert question["cells"] == sorted(question["cells"], key=ids.index), "cells are not in order"
    chosen = dict.fromkeys([*ids[first : first + 2], *question["cells"]])
    text, names = io.StringIO(), set()

    def display(value):
        print(repr(value), getattr(value, "_repr_html_", str)() or "", sep="\n")

    space = {"__name__": "__main__", "display": display}
    with contextlib.redirect_stdout(text):
        for cell_id in chosen:
            cell = code[ids.index(cell_id)]
            tree, found = changed(cell.source, {**question["change"], "out": str(out)})
            names |= found
            last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
            exec(compile(tree, cell_id, "exec"), space)
            if last is not None:
                value = eval(compile(ast.Expression(last.value), cell_id, "eval"), space)
                if value is not None:
                    display(value)
    assert names >= question["change"].keys(), "no cell that is run assigns the changed name"
    return text.getvalue()


def committed_by(notebook, cell_ids):
    """What the committed outputs of these cells show, as one text."""
    outputs = [o for cell in notebook.cells if cell.id in cell_ids for o in cell.outputs]
    data = [o.get("data", {}) for o in outputs]
    shown = [d.get(kind, "") for d in data for kind in ("text/plain", "text/html")]
    return "\n".join([*(o.get("text", "") for o in outputs), *shown])


def texts(notebook):
    """The two pairs of question and answer."""
    _, *parts = re.split(r"^[12]\. ", cell_of_questions(notebook).source, flags=re.M)
    answers = [ANSWER.search(part) for part in parts]
    assert len(parts) == 2 and all(answers), "two numbered questions, each with a folded answer"
    return [
        (part[: answer.start()], answer[1]) for part, answer in zip(parts, answers, strict=True)
    ]


def told_change(text):
    """The first `name = literal` between backticks, as {name: value} with tuples as lists."""
    for code in re.findall(r"`([^`]+ = [^`]+)`", text):
        with contextlib.suppress(SyntaxError, ValueError, AttributeError):
            (node,) = ast.parse(code).body
            return json.loads(json.dumps({node.targets[0].id: ast.literal_eval(node.value)}))
    return None


def check(notebook, n, out):
    question, (text, answer) = (
        cell_of_questions(notebook).metadata["predict"][n],
        texts(notebook)[n],
    )
    assert told_change(text) == question["change"], "the text tells another change"
    assert holds(answer, question["shows"]), "the answer lacks what is shown"
    shown = shown_by(notebook, question, out)
    assert holds(shown, question["shows"]), f"the changed cells show {plain(shown)}"
    if notebook.metadata.get("co3d", {}).get("source_hash") == source_hash(notebook):
        before = committed_by(notebook, question["cells"])
        assert not holds(before, question["shows"]), "the unchanged cells show it too"


@pytest.fixture
def place(tmp_path, monkeypatch, inline):
    """An empty folder to write to; the notebook's folder as the current one; torch as it was."""
    monkeypatch.chdir(repo_root() / "notebooks")
    monkeypatch.setenv("LOGS_PATH", str(tmp_path / "logs"))  # no predictions of runs before
    threads, dtype, grad = (
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
    )
    yield tmp_path
    torch.set_num_threads(threads)
    torch.set_default_dtype(dtype)
    torch.set_grad_enabled(grad)


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_the_last_section_but_one_asks_two_questions(path):
    *_, last_but_one, last = nbformat.read(path, 4).cells
    assert last.source.startswith("## Where to go next")
    assert last_but_one.id == "predict" and last_but_one.cell_type == "markdown"
    assert last_but_one.source.startswith("## Predict, then run\n\n")
    assert len(texts(nbformat.read(path, 4))) == len(last_but_one.metadata["predict"]) == 2
    assert last_but_one.source.count("<details>") == 2


@pytest.mark.parametrize(("path", "n"), list(cases()))
def test_the_answer_is_what_the_changed_cells_show(path, n, place):
    check(nbformat.read(path, 4), n, place)


def test_numbers_and_words_are_compared_whole():
    assert holds("<td>12</td><td>0.5</td>", "12 0.5") and holds("costs `1,200`.", "1,200")
    for text in ("112", "12.5", "3.12", "1,12", "12,000", "a12"):
        assert not holds(text, "12")

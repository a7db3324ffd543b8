"""The runner never leaves half a notebook or a wrong exit code; the notebooks keep their rules."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from co3d.paths import repo_root
from co3d.report import notebooks, pages, rules

REAL = sorted((repo_root() / "notebooks").glob("*.ipynb"))
PARAMETERS = """\
profile = "embedded"  # smoke or embedded
seed = 0  # of all random numbers
limit = 0  # only so many videos; 0 is all
device = "cpu"  # or cuda
out = ""  # folder to write to"""
INTRO = "# A title\n\nOne claim. Reads nothing, writes nothing, 1 minute."


def made(*sources, parameters=PARAMETERS):
    """A notebook that keeps all rules, with text before each of its code cells."""
    cells = [
        new_markdown_cell(INTRO, id="intro"),
        new_code_cell(parameters, id="parameters", metadata={"tags": ["parameters"]}),
    ]
    for n, source in enumerate(sources):
        cells += [new_markdown_cell("Text.", id=f"t{n}"), new_code_cell(source, id=f"c{n}")]
    return new_notebook(cells=cells, metadata=KERNEL)


KERNEL = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A repository of its own: folders notebooks/, results/ and runs/ under tmp_path."""
    (tmp_path / "notebooks").mkdir()
    for name in ("smoke", "embedded"):
        text = f"profile: {name}\nseed: 0\nlimit: 3\ndevice: cpu\n"
        (tmp_path / "notebooks" / f"{name}.yml").write_text(text)
    monkeypatch.setattr(notebooks, "repo_root", lambda: tmp_path)
    monkeypatch.setattr(notebooks, "logs_path", lambda: tmp_path / "runs")

    def add(name, *sources, **options):
        path = tmp_path / "notebooks" / f"{name}.ipynb"
        nbformat.write(made(*sources, **options), path)
        return path

    tmp = tmp_path
    add.root = tmp
    return add


PLAYED = """\
from IPython.display import display
controls = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}}
display({**controls, "image/png": "aaaa", "text/plain": "b"}, raw=True)"""


def left_behind(folder):
    return sorted(str(p.relative_to(folder)) for p in (folder / "runs").rglob("*") if p.is_file())


def test_a_run_is_complete_clean_and_with_streams_in_one_piece(tree, capsys):
    path = tree("00_a", "for n in range(3):\n    print(n)", "limit, profile", PLAYED)
    node, questions = nbformat.read(path, 4), [{"change": {"limit": 3}, "cells": ["c1"]}]
    node.cells[2].metadata = {"predict": questions, "editable": False}
    nbformat.write(node, path)
    done = nbformat.read(notebooks.run(path, {"limit": 7}, tree.root / "runs"), 4)
    code = [cell for cell in done.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [1, 2, 3, 4, 5]
    assert [output.text for output in code[2].outputs] == ["0\n1\n2\n"]
    assert code[3].outputs[0].data["text/plain"] == "(7, 'embedded')"
    assert code[4].outputs[0].data == {"image/png": "aaaa", "text/plain": "b"}
    assert done.metadata == nbformat.from_dict(KERNEL)
    assert done.cells[3].metadata == {"predict": questions}  # behind the injected parameters
    assert re.fullmatch(r"\r?00_a  \d+ s *\n", capsys.readouterr().out)


def test_the_kernel_is_this_interpreter_and_starts_in_the_notebook_s_folder(tree, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setenv("JUPYTER_PATH", str(tree.root))
    wrong = tree.root / "kernels" / "python3"
    wrong.mkdir(parents=True)
    (wrong / "kernel.json").write_text('{"argv": ["false"], "display_name": "x", "language": "x"}')
    path = tree("00_a", "import sys, os\nprint(sys.executable, os.getcwd())")
    done = nbformat.read(notebooks.run(path, {}, tree.root / "runs"), 4)
    assert done.cells[-1].outputs[0].text == f"{sys.executable} {tree.root / 'notebooks'}\n"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("print('before')\n1 / 0", "ZeroDivisionError"),
        ("import os\nos._exit(0)", "kernel of 00_a died in cell 4"),
        ("import os\nos.kill(os.getpid(), 9)", "kernel of 00_a died in cell 4"),
        ("import sys\nsys.exit(0)", "ended before its last cell"),
    ],
    ids=["error", "exit", "kill", "sys.exit"],
)
def test_a_notebook_that_does_not_end_well_is_an_error_and_leaves_nothing(tree, source, message):
    path = tree("00_a", source, "print('after')")
    before = path.read_bytes()
    with pytest.raises(notebooks.NotebookError, match=message):
        notebooks.run(path, {}, tree.root / "runs")
    assert left_behind(tree.root) == [] and path.read_bytes() == before


def test_an_unknown_parameter_is_refused_before_anything_runs(tree):
    path = tree("00_a", "print()")
    with pytest.raises(ValueError, match="00_a has no parameter 'limt'; it declares profile, seed"):
        notebooks.run(path, {"limt": 1}, tree.root / "runs")
    assert not (tree.root / "runs").exists()


def test_reproduce_runs_in_order_writes_pages_and_compares(tree, capsys):
    for name in ("08_z", "A1_train", "01_b", "05_k"):
        tree(name, "print('seen')")
    assert notebooks.names() == ["01_b", "A1_train", "05_k", "08_z"]
    before = sorted(tree.root.rglob("*"))
    run_dir = notebooks.reproduce("smoke", only=["08", "A1"])
    assert sorted(p.name for p in run_dir.rglob("*.*")) == [
        *("08_z.html", "08_z.ipynb", "A1_train.html", "A1_train.ipynb"),
    ]
    shown = capsys.readouterr().out
    assert shown.index("[1/2] A1_train") < shown.index("[2/2] 08_z") < shown.index("html")
    assert "Against the committed results" in shown
    assert [p for p in sorted(tree.root.rglob("*")) if tree.root / "runs" not in p.parents] == [
        *sorted([*before, tree.root / "runs"])
    ]


def test_names_that_do_not_exist_are_named(tree):
    tree("00_a")
    with pytest.raises(ValueError, match="'07'; there are 00_a"):
        notebooks.reproduce("smoke", only=["07"])
    with pytest.raises(ValueError, match="'fast'; there are embedded, smoke"):
        notebooks.reproduce("fast")


WRITES = """\
from co3d import report
out = report.output_folder(out)
row = dict(model="m", weights="w", dataset="d", split="s", window=1, fill="zeros", fps=1)
row |= dict(limit=0, frames_seen=1)
report.write("transient", [{**row, "n_scored": 10, "top1": 50.0}], out, notebook="x", seed=seed)
(out / "figures").mkdir()
(out / "figures" / "a.svg").write_text("<svg/>");"""


def test_update_commits_outputs_results_and_figures_and_is_stable(tree):
    path = tree("00_a", WRITES, "print('seen')")
    notebooks.update()
    once = {p: p.read_bytes() for p in tree.root.rglob("*.*") if "runs" not in p.parts}
    names = {str(p.relative_to(tree.root)) for p in once}
    assert {"results/transient.csv", "results/README.md", "figures/a.svg"} < names
    node = nbformat.read(path, 4)
    assert [cell.id for cell in node.cells] == ["intro", "parameters", "t0", "c0", "t1", "c1"]
    assert node.cells[-1].outputs[0].text == "seen\n"
    assert rules.check_rules(node, "00_a") == []
    time.sleep(1.1)  # another second, another run folder
    notebooks.update()
    assert {p: p.read_bytes() for p in once} == once


def test_update_refuses_a_machine_s_path_and_leaves_the_tree(tree):
    good, bad = tree("00_a", "print('fine')"), tree("01_b", "print(out)")
    before = good.read_bytes(), bad.read_bytes()
    with pytest.raises(notebooks.NotebookError, match="01_b cannot be committed: .*a path of this"):
        notebooks.update()
    assert (good.read_bytes(), bad.read_bytes()) == before
    assert not (tree.root / "results").exists()


def test_update_refuses_a_notebook_that_was_edited_meanwhile(tree):
    path = tree("00_a", "import pathlib", "pathlib.Path('00_a.ipynb').write_text(edited)",
                parameters=PARAMETERS + '\nedited = ""  # text')  # fmt: skip
    node = nbformat.read(path, 4)
    node.cells[1].source += "\nedited = " + repr(nbformat.writes(made("other"))) + "  # text"
    nbformat.write(node, path)
    with pytest.raises(notebooks.NotebookError, match="was edited during the run"):
        notebooks.update()


def test_plain_papermill_works_from_both_folders(tree):
    path = tree("00_a", "print(profile, limit)")
    for folder in (tree.root, tree.root / "notebooks"):
        source = os.path.relpath(path, folder)
        target = tree.root / f"out-{folder.name}.ipynb"
        profile = os.path.relpath(tree.root / "notebooks" / "smoke.yml", folder)
        command = [sys.executable, "-m", "papermill", source, str(target), "-f", profile]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        assert nbformat.read(target, 4).cells[-1].outputs[0].text == "smoke 3\n"


RUN_IT = """\
import signal
import sys
from pathlib import Path
from co3d.report import notebooks
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored below a shell's background job
notebooks.run(Path(sys.argv[1]), {}, Path(sys.argv[2]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_killed_runner_leaves_nothing_half_written(tree, sent):
    path = tree("00_a", f"open({str(tree.root / 'started')!r}, 'w')", "import time\ntime.sleep(60)")
    command = [sys.executable, "-c", RUN_IT, str(path), str(tree.root / "runs")]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while not (tree.root / "started").exists():
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(sent)
    assert process.wait(timeout=30) != 0
    assert left_behind(tree.root) == []


def test_a_page_needs_no_network(tree):
    node = made("1 + 1")
    formulas = "As $y_t = \\sum_k w_k$ says, `$x$` costs 5$.\n\n$$\\frac{a}{b}$$"
    node.cells[0].source += f"\n\n{formulas}"
    path = tree.root / "00_a.ipynb"
    nbformat.write(node, path)
    page = pages.export(path)
    assert page.count("<math") == 2 and "<msub>" in page and "<mfrac>" in page
    assert "<code>$x$</code> costs 5$" in page
    assert not re.search(r"""<(script|link|img)[^>]*(src|href)=["']?https?:""", page)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda nb: nb.cells.pop(0), "first cell is not Markdown"),
        (lambda nb: nb.cells[0].update(source="# T\n\nReads a, writes b."), "how many minutes"),
        (lambda nb: nb.cells[1].update(source="seed = 0"), "parameter 'device'"),
        (
            lambda nb: nb.cells[1].update(source="seed = 1 + 1"),
            "line 1 of the parameters cell is not",
        ),
        (lambda nb: nb.cells[1].update(source=PARAMETERS + "\nx = 1"), "no comment"),
        (lambda nb: nb.cells[1].update(metadata={}), "one cell tagged"),
        (lambda nb: nb.cells.insert(1, new_code_cell("1")), "not the parameters cell"),
        (lambda nb: nb.cells[3].update(source="\n".join(["a"] * 26)), "26 lines, more than 25"),
        (
            lambda nb: nb.cells[3].update(source="a\n" * 36, metadata={"tags": ["figure"]}),
            "36 lines, more than 35",
        ),
        (lambda nb: nb.cells[3].update(source="\n".join("a" * 12)), "half of the code cells"),
        (lambda nb: nb.cells.extend([new_code_cell("1"), new_code_cell("2")]), "3 code cells in"),
        (lambda nb: nb.cells[3].update(source="def f(): pass"), "should own"),
        (lambda nb: nb.cells[3].update(source="!ls"), "not plain Python"),
        (lambda nb: nb.cells[3].update(source=""), "is empty"),
        (lambda nb: nb.cells[3].update(execution_count=7), "not 1..n"),
        (lambda nb: nb.cells[2].update(source="Other text."), "belong to other sources"),
        (lambda nb: nb.cells[2].metadata.update(collapsed=True), "holds 'collapsed'"),
        (lambda nb: nb.cells[2].update(id="intro"), "one id"),
        (lambda nb: shows(nb, "see /home/someone/x"), "a path of this machine: '/home/someone/x"),
        (lambda nb: shows(nb, "at 2026-01-02 10:20:30"), "a time of day"),
        (lambda nb: shows(nb, "<object at 0x7f3a5c0d1e20>"), "a memory address"),
        (lambda nb: shows(nb, "x" * 2_000_000), "has 2.0 MB"),
        (lambda nb: nb.cells[3].update(outputs=[new_output("error")]), "ends in an error"),
        (lambda nb: nb.cells[3].update(outputs=[PLAY]), "holds controls"),
    ],
)
def test_each_rule_finds_its_breach(change, message):
    node = made("1 + 1")
    for number, cell in enumerate((cell for cell in node.cells if cell.cell_type == "code"), 1):
        cell.execution_count = number
    node.metadata["co3d"] = {"source_hash": rules.source_hash(node)}
    assert rules.check_rules(node, "00_a") == []
    change(node)
    assert any(message in problem for problem in rules.check_rules(node, "00_a"))


PLAY = new_output("display_data", data={rules.CONTROLS: {"model_id": "1"}, "image/png": "aaaa"})


def shows(node, text):
    node.cells[3].outputs = [new_output("stream", text=text)]


def test_only_the_toy_notebook_may_define():
    node = made("def f(): pass")
    assert not any("own" in problem for problem in rules.check_rules(node, "01_continual"))


def test_web_addresses_and_relative_paths_are_no_machine_paths():
    node = made("1")
    shows(node, "https://example.org/home/x runs/home/x ~/home/x and/or/data/x 3/4")
    assert rules.output_problems(node) == []


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_rules_of_the_committed_notebooks(path: Path):
    assert rules.check_rules(nbformat.read(path, 4), path.stem) == []


@pytest.mark.parametrize("profile", sorted((repo_root() / "notebooks").glob("*.yml")))
def test_every_notebook_declares_every_key_of_a_profile(profile: Path):
    keys = yaml.safe_load(profile.read_text()).keys()
    for path in REAL:
        assert keys <= rules.declared(nbformat.read(path, 4)).keys(), path.stem


@pytest.mark.smoke
@pytest.mark.xdist_group("smoke")  # one after the other
@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_smoke_run(path: Path, tmp_path_factory, monkeypatch):
    out = tmp_path_factory.getbasetemp() / "smoke"  # one folder: later notebooks read earlier rows
    monkeypatch.setenv("LOGS_PATH", str(out / "logs"))  # no predictions of runs before
    values = {**notebooks.profile_parameters("smoke"), "out": str(out)}
    executed = notebooks.run(path, values, out)
    assert notebooks.html(executed).stat().st_size > 10_000

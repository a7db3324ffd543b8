"""The runner never leaves half a notebook or a wrong exit code; the notebooks keep their rules."""

import re
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pandas as pd
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

    return add


PLAYED = """\
from IPython.display import display
controls = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}}
display({**controls, "image/png": "aaaa", "text/plain": "b"}, raw=True)"""


def left_behind(folder):
    return sorted(str(p.relative_to(folder)) for p in (folder / "runs").rglob("*") if p.is_file())


def test_a_run_is_complete_clean_and_with_streams_in_one_piece(tree, tmp_path):
    path = tree("00_a", "for n in range(3):\n    print(n)", "limit, profile", PLAYED)
    node, questions = nbformat.read(path, 4), [{"change": {"limit": 3}, "cells": ["c1"]}]
    node.cells[2].metadata = {"predict": questions, "editable": False}
    nbformat.write(node, path)
    done = nbformat.read(notebooks.run(path, {"limit": 7}, tmp_path / "runs"), 4)
    code = [cell for cell in done.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [1, 2, 3, 4, 5]
    assert [output.text for output in code[2].outputs] == ["0\n1\n2\n"]
    assert code[3].outputs[0].data["text/plain"] == "(7, 'embedded')"
    assert code[4].outputs[0].data == {"image/png": "aaaa", "text/plain": "b"}
    assert done.metadata == nbformat.from_dict(KERNEL)
    assert done.cells[3].metadata == {"predict": questions}  # behind the injected parameters


def test_the_kernel_is_this_interpreter_and_starts_in_the_notebook_s_folder(
    tree, monkeypatch, tmp_path
):
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    wrong = tmp_path / "kernels" / "python3"
    wrong.mkdir(parents=True)
    (wrong / "kernel.json").write_text('{"argv": ["false"], "display_name": "x", "language": "x"}')
    path = tree("00_a", "import sys, os\nprint(sys.executable, os.getcwd())")
    done = nbformat.read(notebooks.run(path, {}, tmp_path / "runs"), 4)
    assert done.cells[-1].outputs[0].text == f"{sys.executable} {tmp_path / 'notebooks'}\n"


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
def test_a_notebook_that_does_not_end_well_is_an_error_and_leaves_nothing(
    tree, source, message, tmp_path
):
    path = tree("00_a", source, "print('after')")
    before = path.read_bytes()
    with pytest.raises(notebooks.NotebookError, match=message):
        notebooks.run(path, {}, tmp_path / "runs")
    assert left_behind(tmp_path) == [] and path.read_bytes() == before


def test_reproduce_runs_all_writes_pages_and_compares(tree, capsys, tmp_path):
    for name in ("08_z", "A1_train", "01_b", "05_k"):
        tree(name, "print('seen')")
    before = sorted(tmp_path.rglob("*"))
    run_dir = notebooks.reproduce("embedded", only=["08", "A1", "05"])
    names = ("05_k", "08_z", "A1_train")
    assert sorted(p.name for p in run_dir.rglob("*.*")) == sorted(
        ["comparison.csv", *(f"{name}.{kind}" for name in names for kind in ("html", "ipynb"))]
    )
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "3 notebooks, about 2 minutes on two cores"
    assert {line.split()[0] for line in lines[:2]} == {"05_k", "A1_train"}
    assert re.fullmatch(r"08_z +\d+ s *", lines[2])
    assert "Against the committed results:" in lines
    assert [p for p in sorted(tmp_path.rglob("*")) if tmp_path / "runs" not in p.parents] == [
        *sorted([*before, tmp_path / "runs"])
    ]


WAIT = """\
import os, time
os.makedirs(out, exist_ok=True)
open(out + "-%s", "w").close()
while not os.path.exists(out + "-%s"):
    time.sleep(0.1)
print(os.environ["OMP_NUM_THREADS"])"""


def test_side_by_side_means_at_one_time_with_one_thread(tree):
    tree("00_a", WAIT % ("a", "b"))  # each waits for the other
    tree("01_b", WAIT % ("b", "a"))
    tree("04_c", "import os\nprint(os.environ.get('OMP_WAIT_POLICY'))")
    run_dir, _ = notebooks.execute("smoke")
    shown = [
        nbformat.read(path, 4).cells[-1].outputs[0].text
        for path in sorted((run_dir / "notebooks").iterdir())
    ]
    assert shown == ["1\n", "1\n", "None\n"]


EXECUTE = """\
import sys
from pathlib import Path
from co3d.report import notebooks
root = Path(sys.argv[1])
notebooks.repo_root, notebooks.logs_path = lambda: root, lambda: root / "runs"
notebooks.execute("smoke")
"""


def test_a_failure_does_not_wait_for_its_neighbour(tree, tmp_path):
    tree("00_a", "import time\ntime.sleep(1000)")
    tree("01_b", "1 / 0")
    command = [sys.executable, "-c", EXECUTE, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 1 and "NotebookError: 01_b failed" in done.stderr
    assert left_behind(tmp_path) == []


def test_differences_come_first_and_times_do_not_hide_them():
    rows = [("benchmark-x", str(n), "", "", "", "new") for n in range(300)]
    rows += [("models", str(n), "params", "1", "1", "equal") for n in range(5)]
    rows += [("accuracy", "a", "top1", "50.0", "50.1", "within 2 flipped videos")]
    rows += [("models", "6", "params", "1", "2", "differs")]
    columns = ["table", "row", "column", "committed", "new", "verdict"]
    first, second, *rest = notebooks.summary(pd.DataFrame(rows, columns=columns)).splitlines()
    assert first == "models [6] differs: params 1 -> 2"
    assert second == "accuracy [a] within 2 flipped videos: top1 50.0 -> 50.1"
    assert len(rest) == 4 and rest[2].split() == ["benchmark-x", "0", "0", "300", "0", "0", "0"]


@pytest.mark.parametrize(
    ("profile", "only", "parameters", "message"),
    [
        ("smoke", ["07"], {}, "'07'; there are 00_a"),
        ("fast", None, {}, "'fast'; there are embedded, smoke"),
        ("smoke", None, {"limt": 1}, "00_a has no parameter 'limt'; it declares profile, seed"),
    ],
)
def test_what_does_not_exist_is_named_before_a_run(
    tree, tmp_path, profile, only, parameters, message
):
    tree("00_a")
    with pytest.raises(ValueError, match=message):
        notebooks.execute(profile, only, parameters)
    assert not (tmp_path / "runs").exists()


WRITES = """\
from co3d import report
out = report.output_folder(out)
row = dict(model="m", weights="w", dataset="d", split="s", window=1, fill="zeros", fps=1)
row |= dict(limit=0, frames_seen=1)
report.write("transient", [{**row, "n_scored": 10, "top1": 50.0}], out, notebook="x", seed=seed)
(out / "figures").mkdir()
(out / "figures" / "a.svg").write_text("<svg/>");"""


def test_update_commits_outputs_results_and_figures_and_is_stable(tree, tmp_path):
    path = tree("00_a", WRITES, "print('seen')")
    notebooks.update()
    once = {p: p.read_bytes() for p in tmp_path.rglob("*.*") if "runs" not in p.parts}
    names = {str(p.relative_to(tmp_path)) for p in once}
    assert {"results/transient.csv", "results/README.md", "figures/a.svg"} < names
    node = nbformat.read(path, 4)
    assert [cell.id for cell in node.cells] == ["intro", "parameters", "t0", "c0", "t1", "c1"]
    assert node.cells[-1].outputs[0].text == "seen\n"
    assert node.metadata["co3d"]["source_hash"] == rules.source_hash(node)
    time.sleep(1.1)  # another second, another run folder
    notebooks.update()
    assert {p: p.read_bytes() for p in once} == once


EDITS = "from pathlib import Path\nPath('00_a.ipynb').write_text(Path('01_b.ipynb').read_text())"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("print(out)", "00_a cannot be committed: .*a path of this"),
        (EDITS, "edited during the run"),
    ],
)
def test_update_refuses_a_machine_s_path_and_an_edited_notebook(tree, tmp_path, source, message):
    tree("00_a", source)
    good = tree("01_b", "print('fine')")
    before = good.read_bytes()
    with pytest.raises(notebooks.NotebookError, match=message):
        notebooks.update()
    assert good.read_bytes() == before and not (tmp_path / "results").exists()


def test_plain_papermill_takes_a_profile(tree, tmp_path):
    path, target = tree("00_a", "print(profile, limit)"), tmp_path / "out.ipynb"
    command = [sys.executable, "-m", "papermill", path, target, "-f", path.with_name("smoke.yml")]
    subprocess.run(command, check=True, capture_output=True)
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
def test_a_killed_runner_leaves_nothing_half_written(tree, sent, tmp_path):
    path = tree("00_a", f"open({str(tmp_path / 'started')!r}, 'w')", "import time\ntime.sleep(60)")
    command = [sys.executable, "-c", RUN_IT, str(path), str(tmp_path / "runs")]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while not (tmp_path / "started").exists():
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(sent)
    assert process.wait(timeout=30) != 0
    assert left_behind(tmp_path) == []


def test_a_page_needs_no_network(tree):
    formulas = "As $y_t = \\sum_k w_k$ says, `$x$` costs 5$.\n\n$$\\frac{a}{b}$$"
    node = made("1 + 1")
    node.cells[0].source += f"\n\n{formulas}"
    path = tree("00_a")
    nbformat.write(node, path)
    page = pages.export(path).read_text("utf-8")
    assert page.count("<math") == 2 and "<msub>" in page and "<mfrac>" in page
    assert "<code>$x$</code> costs 5$" in page
    assert not re.search(r"""<(script|link|img)[^>]*(src|href)=["']?https?:""", page)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("see /home/someone/x", "path of this machine: '/home/someone/x"),
        ("at 2026-01-02 10:20:30", "a time of day"),
        ("https://example.org/home/x runs/home/x ~/home/x and/or/data/x 3/4", None),
    ],
)
def test_what_no_committed_output_may_hold(text, message):
    node = made("1 + 1")
    node.cells[3].outputs = [new_output("stream", text=text)]
    problems = rules.output_problems(node)
    assert message in problems[0] if message else problems == []


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_rules_of_the_committed_notebooks(path: Path):
    notebook = nbformat.read(path, 4)
    intro, first = notebook.cells[0], notebook.cells[1]
    assert intro.cell_type == "markdown" and intro.source.startswith("# ")
    assert all(word in intro.source for word in ("Reads: ", "Writes: ", " minute"))
    assert first.metadata.get("tags") == ["parameters"]
    assert all("#" in line for line in first.source.splitlines()), "a parameter has no comment"
    assert rules.declared(notebook).keys() >= {"profile", "seed", "limit", "device", "out"}

    kinds = "".join(cell.cell_type[0] for cell in notebook.cells)
    assert "ccc" not in kinds, "more than two code cells in a row without text"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    lengths = [len(cell.source.splitlines()) for cell in code]
    for cell, length in zip(code, lengths, strict=True):
        assert 0 < length <= (35 if "figure" in cell.metadata.get("tags", []) else 25)
        assert path.stem.startswith("01_") or not re.search("^ *(def|class) ", cell.source, re.M)
        assert not any(output.output_type == "error" for output in cell.outputs)
    assert statistics.median(lengths) < 8

    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert notebook.metadata["co3d"]["source_hash"] == rules.source_hash(notebook)
    assert notebook.metadata.keys() <= {"kernelspec", "language_info", "co3d"}
    assert all(cell.metadata.keys() <= {*rules.CELL_METADATA} for cell in notebook.cells)
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    assert rules.output_problems(notebook) == [] and rules.CONTROLS not in path.read_text("utf-8")


@pytest.mark.parametrize("profile", sorted((repo_root() / "notebooks").glob("*.yml")))
def test_every_notebook_declares_every_key_of_a_profile(profile: Path):
    keys = yaml.safe_load(profile.read_text()).keys()
    for path in REAL:
        assert keys <= rules.declared(nbformat.read(path, 4)).keys(), path.stem


@pytest.mark.smoke
@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_smoke_run(path: Path, tmp_path, monkeypatch):
    monkeypatch.setenv("LOGS_PATH", str(tmp_path / "logs"))  # no predictions of runs before
    values = {**notebooks.profile_parameters("smoke"), "out": str(tmp_path)}
    executed = notebooks.run(path, values, tmp_path, threads=1)
    assert pages.export(executed).stat().st_size > 10_000

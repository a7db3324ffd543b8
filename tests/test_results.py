"""Result tables: what is written reads back, what is malformed is named, what changed is seen."""

import json
import math
import re
import subprocess
import sys

import nbformat
import pandas as pd
import pytest

from co3d import report
from co3d.paths import repo_root
from co3d.report import origin, results, schema

ORIGIN = {
    "commit": "0123456789ab",
    "dirty": 0,
    "date": "2020-01-01",
    "co3d": "0.1.0",
    "python": "3.11.7",
    "torch": "2.13.0",
    "av": "18.1.0",
    "ffmpeg": "8.1",
    "device": "Some CPU @ 2.0 GHz",
    "threads": 2,
    "precision": "float32",
    "seed": 0,
    "notebook": "05_kinetics400",
}
LATER = {**ORIGIN, "date": "2021-02-02", "commit": "ba9876543210"}


def transient(**changes):
    row = {"model": "cox3d_mini", "weights": "some", "dataset": "synthetic-kinetics",
           "split": "val", "window": 16, "fill": "zeros", "fps": 15.0,
           "limit": 0, "frames_seen": 1, "n_scored": 1000, "top1": 50.0}  # fmt: skip
    return {**row, **changes}


def benchmark(**changes):
    row = dict.fromkeys(schema.TABLES["benchmark"].own)
    return {**row, "model": "cox3d_s", "mode": "step", "threads": 1, **changes}


def test_values_survive_the_file_exactly(tmp_path):
    row = transient(top1=100 / 3, window=None, fill="")
    results.write("transient", [row], tmp_path, ORIGIN)
    back = results.read("transient", tmp_path)
    assert tuple(back.columns) == schema.TABLES["transient"].columns
    assert back["top1"][0] == 100 / 3
    assert back["window"].isna()[0] and back["fill"][0] == ""
    assert (back["frames_seen"][0], back["commit"][0], back["dirty"][0]) == (1, "0123456789ab", 0)


def test_an_unchanged_value_keeps_its_row_and_date_and_rows_their_order(tmp_path):
    rows = [transient(frames_seen=n, window=w) for n in (100, 9) for w in (64, None)]
    path = results.write("transient", rows, tmp_path, ORIGIN)
    before = path.read_bytes()
    for row in reversed(rows):
        results.write("transient", [row], tmp_path, LATER)
        results.write("transient", [row], tmp_path / "other", ORIGIN)
    assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes() == before
    results.write("transient", [{**rows[0], "top1": 51.0}], tmp_path, LATER)
    back = results.read("transient", tmp_path)
    assert back["date"].tolist() == ["2020-01-01"] * 3 + ["2021-02-02"]
    assert back["frames_seen"].tolist() == [9, 100, 9, 100]


def test_rows_that_a_notebook_no_longer_writes_go(tmp_path):
    """Otherwise a table would hold a model twice, with old weights and with new ones."""
    old = [transient(window=16), transient(window=32)]
    results.write("transient", old, tmp_path / "old", ORIGIN)
    other = {**ORIGIN, "notebook": "07_start_up_and_context"}
    results.write("transient", [transient(window=64)], tmp_path / "old", other)
    new = results.write("transient", [transient(window=16)], tmp_path / "new", LATER)
    results.merge(new, tmp_path / "old", ["05_kinetics400"])
    left = results.read("transient", tmp_path / "old")
    assert left[["window", "date"]].values.tolist() == [[16, "2020-01-01"], [64, "2020-01-01"]]


def test_a_benchmark_file_is_named_by_device_and_its_threads_are_the_rows_own(tmp_path):
    path = results.write("benchmark", [benchmark(), benchmark(threads=2)], tmp_path, ORIGIN)
    assert path.name == "benchmark-some-cpu-2-0-ghz-float32.csv"
    results.write("benchmark", [benchmark()], tmp_path, {**ORIGIN, "device": "Other"})
    back = results.read("benchmark", tmp_path)
    assert back["threads"].tolist() == [1, 1, 2]
    assert set(back["device"]) == {"Some CPU @ 2.0 GHz", "Other"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"model": "x"}], "lacks or has the unknown column dataset, fill"),
        ([transient(extra=1)], "unknown column extra"),
        ([transient(top1="high")], "top1 is 'high', expected a finite number"),
        ([transient(top1=math.inf)], "top1 is inf"),
        ([transient(window=1.5)], "window is 1.5, expected a whole number"),
        ([transient(), transient()], "the same key"),
    ],
)
def test_rows_that_do_not_fit_are_refused_and_nothing_is_written(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        results.write("transient", rows, tmp_path, ORIGIN)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: t.replace("top1", "top_1", 1), r"header of transient.csv .* top1, top_1"),
        (lambda t: t.replace("50.0", "nan"), "transient.csv: top1 is 'nan', expected a finite"),
        (lambda t: t + t.splitlines()[1] + "\n", "two rows have the same key"),
        (lambda t: t.encode("utf-16"), "not a CSV file in UTF-8"),
    ],
)
def test_malformed_files_are_named(tmp_path, damage, message):
    path = results.write("transient", [transient()], tmp_path, ORIGIN)
    text = damage(path.read_text())
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message):
        results.read("transient", tmp_path)


WRITE = """\
import json, sys
from pathlib import Path
from co3d.report import results
rows, origin, number = json.loads(sys.argv[2])
for n in range(6):
    row = {**rows, "frames_seen": 100 * number + n}
    results.write("transient", [row], Path(sys.argv[1]), origin)
"""


def test_processes_that_write_one_table_lose_no_rows(tmp_path):
    processes = []
    for number in range(2):
        given = json.dumps([transient(), ORIGIN, number])
        command = [sys.executable, "-c", WRITE, str(tmp_path), given]
        processes.append(subprocess.Popen(command))
    assert [process.wait() for process in processes] == [0, 0]
    assert len(results.read("transient", tmp_path)) == 12
    assert [path.name for path in tmp_path.iterdir()] == ["transient.csv"]


def test_compare_tells_flips_machine_new_and_missing_apart(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    results.write("transient", [transient(frames_seen=n) for n in range(1, 5)], old, ORIGIN)
    rows = [transient(), transient(frames_seen=2, top1=50.3), transient(frames_seen=3, n_scored=9),
            transient(frames_seen=5)]  # fmt: skip
    results.write("transient", rows, new, LATER)
    results.write("benchmark", [benchmark(latency_ms_median=1.5)], old, ORIGIN)
    results.write("benchmark", [benchmark(latency_ms_median=2.5)], new, ORIGIN)
    rows = results.compare(new, old)
    verdicts = {(row.row.split()[-1], row.column): row.verdict for row in rows.itertuples()}
    assert verdicts["1", "top1"] == verdicts["2", "n_scored"] == "equal"
    assert verdicts["2", "top1"] == "within 3 flipped videos"
    assert verdicts["3", "n_scored"] == "differs" and verdicts["3", "top1"] == "equal"
    assert verdicts["4", ""] == "missing" and verdicts["5", ""] == "new"
    timing = rows[rows["column"] == "latency_ms_median"]
    assert timing["verdict"].tolist() == ["differs by machine"]


def test_a_run_s_rows_come_before_the_committed_ones_whatever_their_limit(tmp_path):
    results.write("transient", [transient(limit=24, top1=1.0)], tmp_path / "new", LATER)
    results.write("transient", [transient(), transient(window=64)], tmp_path / "old", ORIGIN)
    new, old = (results.read("transient", tmp_path / name) for name in ("new", "old"))
    both = results.combine("transient", new, old)
    assert both[["window", "limit", "top1"]].values.tolist() == [[16, 24, 1.0], [64, 0, 50.0]]
    pd.testing.assert_frame_equal(results.combine("transient", new[:0], old), old)


def test_a_notebook_writes_and_reads_through_the_package(tmp_path):
    out = report.output_folder(tmp_path / "deep" / "run")
    report.write("transient", [transient(dataset="made-up")], out, notebook="07_x", seed=3)
    row = report.read("transient", out).query("dataset == 'made-up'").iloc[0]
    assert (row["seed"], row["notebook"], row["precision"]) == (3, "07_x", "float32")
    origins = row[list(schema.PROVENANCE)].drop("device")
    assert not origins.astype(str).str.contains("/").any()  # no path


def test_dirty_means_that_code_or_notebook_sources_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(origin, "repo_root", lambda: tmp_path)
    assert origin.git_state() == ("", None)

    def git(*args):
        subprocess.run(["git", "-C", tmp_path, *args], check=True, capture_output=True)

    cell = nbformat.v4.new_code_cell("1 + 1", id="one")
    notebook, path = nbformat.v4.new_notebook(cells=[cell]), tmp_path / "notebooks" / "00.ipynb"
    path.parent.mkdir()
    (tmp_path / "co3d").mkdir()
    nbformat.write(notebook, path)
    git("init", "-q")
    git("add", ".")
    git("-c", "user.name=n", "-c", "user.email=e", "commit", "-q", "-m", "m")
    assert len(origin.git_state()[0]) == 12
    cell.outputs = [nbformat.v4.new_output("stream", text="2")]
    nbformat.write(notebook, path)
    (tmp_path / "elsewhere.txt").write_text("2")
    assert origin.git_state()[1] == 0
    cell.source = "1 + 2"
    nbformat.write(notebook, path)
    assert origin.git_state()[1] == 1
    git("checkout", "-q", ".")
    (tmp_path / "co3d" / "b.py").write_text("untracked")
    assert origin.git_state()[1] == 1


def test_the_committed_dictionary_is_the_schema_s():
    assert (repo_root() / "results" / "README.md").read_text("utf-8") == schema.readme()


def test_the_committed_tables_read_and_come_back_byte_by_byte(tmp_path):
    folder = repo_root() / "results"
    for path in folder.glob("*.csv"):
        assert results.merge(path, tmp_path).read_bytes() == path.read_bytes()
    for name in schema.TABLES:
        assert len(results.read(name, folder)), name
    assert {path.stem.split("-")[0] for path in folder.glob("*.csv")} == schema.TABLES.keys()


def test_the_published_tables_have_the_keys_that_their_readme_says():
    folder = repo_root() / "results" / "paper"
    text = (folder / "README.md").read_text("utf-8")
    keys = dict(re.findall(r"^\| `(\w+\.csv)` \| ([\w, ]+) \|", text, re.MULTILINE))
    assert keys.keys() == {path.name for path in folder.glob("*.csv")}
    for name, key in keys.items():
        assert not pd.read_csv(folder / name, dtype=str).duplicated(key.split(", ")).any(), name

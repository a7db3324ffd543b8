"""Tables for papers and for display; our counts and clip nets beside what is published."""

import re

import pandas as pd
import pytest

from co3d import report
from co3d.paths import repo_root
from co3d.report import tables

PAPER = repo_root() / "results" / "paper"
COUNTED = "GMACs of the predicting step, here"


@pytest.fixture(scope="module")
def published():
    return pd.read_csv(PAPER / "kinetics400_published.csv")


@pytest.fixture(scope="module")
def models():
    return report.read("models")


def test_the_committed_table_is_the_published_one_with_our_counts(published, models, tmp_path):
    path = tables.save(tables.benchmark(published, models), "published_benchmark", tmp_path)
    text = path.read_text("utf-8")
    assert text == (repo_root() / "figures" / path.name).read_text("utf-8"), "run `co3d update`"
    head, *body = [line.split(" & ") for line in text.splitlines() if line.endswith(r"\\")]
    assert len(body) == len(published)
    for cells, row in zip(body, published.itertuples(), strict=True):
        cell = dict(zip(head, cells, strict=False))
        assert (r"\textbf" in cell["Model"]) == (r"\textbf" in cell["GFLOPs"]) == row.pareto_bold
        (top1,) = re.findall(r"\d+\.\d+", cell[r"Top-1 (\%)"])
        assert float(top1) == row.top1_percent
        assert (cell[COUNTED] == "") == (row.model == "rcu")
        per = {"coi3d_8x8_r50": "2 frames"}.get(row.model, "frame")
        assert cell["Per"] == (per if row.mode == "stream" else "clip")
    named = dict(zip(head, body[8], strict=False))
    assert [named[name] for name in ("Model", "Params here (M)", COUNTED)] == [
        *("X3D-S", "3.794", "1.963"),
    ]


def test_cells_are_escaped():
    odd = pd.DataFrame({"Model": ["**50 % & a_b**"], "a": [r"{1} $ # ± ×"]})
    assert r"\textbf{50 \% \& a\_b} & \{1\} \$ \# $\pm$ $\times$ \\" in tables.latex(odd)


def test_measured_accuracies_have_a_table_of_their_own():
    rows = [
        ("x3d_mini", "clip", pd.NA, 16, 80.0, 2.1e7),
        ("x3d_mini", "clips", pd.NA, 80, 92.0, 8.4e7),
        ("cox3d_mini", "stream", 64, 80, 93.0, 1.5e6),
        ("coi3d_mini", "stream", 16, 32, 76.0, 1.6e6),
    ]
    names = ["model", "mode", "window", "frames", "top1", "macs_per_prediction"]
    rows = pd.DataFrame(rows, columns=names).astype({"window": "Int64"})
    table = tables.measured(rows.assign(ci_low=rows["top1"] - 2, ci_high=95.0, n_scored=1200))
    assert table["Model"].tolist() == ["X3D-mini", "X3D-mini", "**CoX3D-mini**", "CoI3D-mini"]
    assert table["Per"].tolist() == ["clip", "clips", "frame", "2 frames"]
    assert table["Frames"].tolist() == ["16", "80", "64", "16"]
    assert table["MMACs"].tolist() == ["21.00", "84.00", "**1.50**", "1.60"]
    assert table["95 % interval"].iloc[0] == "78.0 to 95.0" and set(table["Videos"]) == {"1,200"}


def test_the_row_of_a_model_is_that_of_its_published_setting(models):
    assert tables.own_row(models, "cox3d_s")["macs_step"] == 152711312
    assert tables.own_row(models, "cox3d_s", 64)["window"] == 64
    assert tables.own_row(models, "x3d_s")["macs_clip"] == 1962892112
    assert tables.own_row(models, "x3d_s", 16) is tables.own_row(models[:0], "x3d_s") is None


def test_each_stream_is_compared_with_its_clip_net(published):
    pairs = tables.pairs(published).set_index(["model", "window"])
    assert len(pairs) == 10  # RCU has none
    row = pairs.loc[("cox3d_m", 64)]
    assert row["points"] == pytest.approx(71.03 - 67.24)
    assert row["FLOPs ratio"] == pytest.approx(4.97 / 0.33)
    assert row["memory saved (%)"] == pytest.approx(100 * (1 - 68.96 / 126.29))


def test_a_stream_without_a_clip_net_is_dropped_or_blank():
    streams = pd.DataFrame({"model": ["cox3d_s", "coslow"], "threads": 2, "ms": [1.0, 2.0]})
    clips = pd.DataFrame({"model": ["x3d_s"] * 3, "threads": [1, 2, 2], "ms": [3.0, 4.0, 5.0]})
    assert tables.beside(streams, clips, ["threads"])["ms_clip"].tolist() == [4]
    both = tables.beside(streams, clips, ["threads"], "_other", "left")
    assert both["ms_other"].isna().tolist() == [False, True]


def test_bold_in_the_published_table_is_the_pareto_front(published):
    front = tables.pareto_front(published, "gflops_per_prediction", "top1_percent")
    assert front.tolist() == published["pareto_bold"].astype(bool).tolist()


def test_tables_of_counts_and_of_tiny_numbers():
    table = pd.DataFrame({"model": ["a", "b"], "n": [1234567, None], "x": [2.5e9, 1e9]})
    shown = tables.counts(table, {"x": "G"})
    assert shown.to_dict("list") == {
        "model": ["a", "b"],
        "n": ["1,234,567", ""],
        "x (G)": ["2.500", "1.000"],
    }
    shown = tables.tiny(pd.DataFrame({"n": [3], "e": [1.234e-16], "f": [0.123]}), {"f": "{:.2f}"})
    assert shown.to_dict("list") == {"n": ["3"], "e": ["1e-16"], "f": ["0.12"]}

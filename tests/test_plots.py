"""Shared plots show the rows that they are given; tables for people parse back."""

import re
from html import unescape

import numpy as np
import pandas as pd
import pytest

from co3d.paths import repo_root
from co3d.report import drawings, figures, plots, style, tables

PAPER = repo_root() / "results" / "paper"
COUNTED = "GMACs of the predicting step, here"


@pytest.fixture(scope="module")
def published():
    return pd.read_csv(PAPER / "kinetics400_published.csv")


@pytest.fixture
def accuracy():
    """Rows such as notebook 05 writes: a clip net, its stream at three windows, the control."""
    rows = [
        ("x3d_mini", "clip", pd.NA, 1, 80.0, 2.1e7),
        ("x3d_mini", "clips", 64, 4, 92.0, 8.4e7),
        ("cox3d_mini", "stream", 16, 1, 76.0, 1.5e6),
        ("cox3d_mini", "stream", 32, 1, 86.0, 1.5e6),
        ("cox3d_mini", "stream", 64, 1, 93.0, 1.5e6),
    ]
    names = ["model", "mode", "window", "views", "top1", "macs_per_prediction"]
    table = pd.DataFrame(rows, columns=names).astype({"window": "Int64"})
    return table.assign(
        frames=16,
        dataset="synthetic-kinetics",
        ci_low=table["top1"] - 2,
        ci_high=table["top1"] + 1.5,
    )


def points(ax):
    """All points that the lines of a panel join, as (x, y)."""
    return {tuple(map(float, point)) for line in ax.lines for point in line.get_xydata()}


def test_every_accuracy_is_drawn_in_the_panel_of_its_family(accuracy):
    other = accuracy.assign(model=accuracy["model"].str.replace("x3d", "slow"))
    other["macs_per_prediction"] *= 3
    fig = plots.accuracy_vs_macs(pd.concat([other, accuracy], ignore_index=True))
    for ax, rows in zip(fig.axes, (accuracy, other), strict=False):
        for row in rows.itertuples():
            assert (row.macs_per_prediction / 1e6, row.top1) in points(ax)
        assert sorted(int(text.get_text()) for text in ax.texts) == [16, 16, 16, 32, 64]
    assert [ax.get_title("left") for ax in fig.axes[:2]] == ["X3D-mini", "Slow-mini"]
    marks = [ax.get_legend() for ax in fig.axes if ax.get_legend()]
    assert len(marks) == 1 and len(marks[0].get_texts()) == 4


def test_map_has_its_own_axis(accuracy):
    fig = plots.accuracy_vs_macs(accuracy.assign(map_common=accuracy["top1"] / 2), "map_common")
    assert (1.5, 46.5) in points(fig.axes[0]) and fig.axes[0].get_ylabel().startswith("mAP")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [rows, rows.assign(dataset="charades")], "given charades, synthetic"),
        (lambda rows: [rows[:0]], "given no rows"),
        (lambda rows: [rows, rows[:1]], "two rows share model, mode, window and views"),
    ],
)
def test_rows_that_cannot_be_told_apart_are_refused(accuracy, change, message):
    with pytest.raises(ValueError, match=message):
        plots.accuracy_vs_macs(pd.concat(change(accuracy), ignore_index=True))


def test_a_window_shows_its_streams_controls_and_start_up():
    """CoI3D-mini predicts at frames 71, 73 ... 79 at window 64; the last sees no padding."""
    rows = [
        ("x3d_mini", 8, 24, 60.0, np.nan, 70.0),
        ("x3d_mini", 64, 80, 80.0, 85.0, 70.0),
        ("i3d_mini", 64, 79, 90.0, 91.0, 88.0),
    ]
    table = pd.DataFrame(rows, columns=["model", "window", "frames", "stream", "control", "clip"])
    for name in ("stream", "control"):
        table[f"{name}_low"], table[f"{name}_high"] = table[name] - 3, table[name] + 3
    nets = pd.DataFrame({"padding": [8, 7], "stride": [1, 2]}, ["cox3d_mini", "coi3d_mini"])
    figs = {window: plots.at_window(table, nets, 10.0, "made", window) for window in (8, 64)}
    left, right = figs[64].axes
    assert {x for x, _ in points(left)} == {80, 85, 90, 91}
    assert {x for x, _ in points(figs[8].axes[0]) if x == x} == {60}
    starts = [(bar.get_x(), bar.get_width()) for bar in right.patches]
    assert starts[:2] == [pytest.approx((0, 7.2)), pytest.approx((7.2, 0.8))]
    assert starts[3:5] == [pytest.approx((0, 7.1)), pytest.approx((7.1, 0.8))]
    for one, other in zip(figs[8].axes, figs[64].axes, strict=True):
        assert one.get_xlim() == other.get_xlim()


def test_save_writes_equal_bytes_and_nothing_else(tmp_path, accuracy):
    for folder in ("a", "b"):
        png = figures.save(plots.accuracy_vs_macs(accuracy), "stem", tmp_path / folder)
        assert png == tmp_path / folder / "figures/stem.png"
    files = sorted(path.name for path in (tmp_path / "a" / "figures").iterdir())
    assert files == ["stem.png", "stem.svg"]
    for name in files:
        first, second = ((tmp_path / f / "figures" / name).read_bytes() for f in "ab")
        assert first == second


def test_a_notebook_shows_a_figure_once_as_png():
    assert drawings.residual_alignment()._repr_png_().startswith(b"\x89PNG")


def test_one_colour_per_family_and_one_label_per_model(published):
    for name in published["model"]:
        assert style.color(name) == style.color(name.removeprefix("co"))
    colours = set(style.FAMILY_COLORS.values())
    assert len(colours) == len(style.FAMILY_COLORS)
    assert style.label("cox3d_m") == "CoX3D-M" and style.label("coslow_8x8_r50") == "CoSlow"
    with pytest.raises(ValueError, match="'cox3d_xxl'"):
        style.label("cox3d_xxl")


def numbers(cell):
    return [float(value) for value in re.findall(r"\d+\.?\d*", cell.replace("**", ""))]


def test_the_table_parses_back(published, tmp_path):
    path = tables.save(tables.benchmark(published), "published_benchmark", tmp_path)
    head, _, *body = [
        [cell.strip() for cell in line.strip("|\n").split("|")]
        for line in path.read_text("utf-8").splitlines()
    ]
    assert len(body) == len(published)
    for cells, row in zip(body, published.itertuples(), strict=True):
        cell = dict(zip(head, cells, strict=True))
        assert cell["Model"].strip("*~ ") == style.label(row.model)
        assert ("**" in cell["Top-1 (%)"]) == bool(row.pareto_bold)
        assert numbers(cell["Top-1 (%)"]) == [row.top1_percent]
        assert numbers(cell["GFLOPs"]) == [row.gflops_per_prediction]
        expected = [row.cpu_per_s_mean, row.cpu_per_s_std]
        assert numbers(cell["CPU (1/s)"]) == [value for value in expected if not np.isnan(value)]
        assert cell[COUNTED] == cell["Params here (M)"] == ""
        per = {"coi3d_8x8_r50": "2 frames"}.get(row.model, "frame")
        assert cell["Per"] == (per if row.mode == "stream" else "clip")
    _, *lines = path.with_suffix(".tex").read_text("utf-8").splitlines()
    rows = [line for line in lines if line.endswith(r"\\")]
    assert {line.count("&") for line in rows} == {len(head) - 1}
    assert len(rows) == len(published) + 1 and not re.search(r"[±×~]|(?<!\\)%", "".join(lines))


def test_latex_and_html_say_the_same_as_markdown(published, tmp_path):
    table = tables.benchmark(published)
    path = tables.save(table, "published_benchmark", tmp_path)
    first, *lines = path.with_suffix(".tex").read_text("utf-8").splitlines()
    assert first.startswith("% The published benchmark") and "kinetics400\\_published.csv" in first
    plain = [line.removesuffix(r" \\").split(" & ") for line in lines if line.endswith(r"\\")]
    signs = {r"\%": "%", r"$\sim$": "~", r"$\times$": "×", r"$\pm$": "±"}
    for cells, row in zip(plain, [list(table), *table.to_numpy().tolist()], strict=True):
        for sign, char in signs.items():
            cells = [cell.replace(sign, char) for cell in cells]
        assert [re.sub(r"\\textbf\{(.*)\}", r"**\1**", cell) for cell in cells] == row
    page = path.with_suffix(".html").read_text("ascii")
    lines = [re.findall("<t[dh].*?>(.*?)</t[dh]>", line) for line in page.splitlines()]
    found = [[unescape(re.sub("</?b>", "**", cell)) for cell in line] for line in lines if line]
    assert found == [list(table), *table.to_numpy().tolist()]
    assert page.count("<b>") == 3 * published["pareto_bold"].sum()


def test_cells_are_escaped():
    odd = pd.DataFrame({"Model": ["**50 % & a_b**"], "a<b": [r"{1} $ # ^ \ ± ~"]})
    tex, page = tables.latex(odd), tables.html(odd, "x & y")
    assert r"\textbf{50 \% \& a\_b} & \{1\} \$ \# \^{} \textbackslash{} $\pm$ $\sim$ \\" in tex
    assert "<b>50 % &amp; a_b</b>" in page and "<th" in page and "a&lt;b" in page
    assert "<caption>x &amp; y</caption>" in page and "&#177;" in page


def test_measured_accuracies_have_a_table_of_their_own(accuracy):
    table = tables.measured(accuracy.assign(n_scored=1200))
    assert table["Per"].tolist() == ["clip", "clips", "frame", "frame", "frame"]
    assert table["Frames"].tolist() == ["16", "16", "16", "32", "64"]
    assert table["Model"].tolist() == ["X3D-mini"] * 2 + ["CoX3D-mini"] * 2 + ["**CoX3D-mini**"]
    assert table["Top-1 (%)"].iloc[-1] == "**93.0**" and table["MMACs"].iloc[0] == "21.00"
    assert table["95 % interval"].iloc[0] == "78.0 to 81.5" and set(table["Videos"]) == {"1,200"}


def test_a_stream_with_strides_predicts_per_several_frames(accuracy):
    streams = accuracy[accuracy["mode"] == "stream"].assign(n_scored=1)
    streams["model"] = ["coi3d_mini", "coslowfast_mini", "coslow_mini"]
    table = tables.measured(streams).set_index("Model")["Per"].rename(lambda name: name.strip("*"))
    assert table.to_dict() == {
        "CoSlow-mini": "frame",
        "CoI3D-mini": "2 frames",
        "CoSlowFast-mini": "4 frames",
    }


@pytest.fixture
def models():
    """Rows such as notebook 03 writes, dense and other image sizes among them."""
    rows = [
        ("x3d_s", pd.NA, 13, 160, 0, 1962892112, pd.NA),
        ("x3d_s", pd.NA, 13, 182, 0, 9, pd.NA),
        ("cox3d_s", 13, pd.NA, 160, 0, pd.NA, 152711312),
        ("cox3d_s", 13, pd.NA, 160, 1, pd.NA, 9),
    ]
    names = ["model", "window", "frames", "image_size", "dense", "macs_clip", "macs_step"]
    table = pd.DataFrame(rows, columns=names).astype(dict.fromkeys(names[1:], "Int64"))
    return table.assign(num_classes=400, params=3794322)


def test_own_counts_stand_beside_the_published_ones(published, models):
    table = tables.benchmark(published, models).set_index(["Model", "Frames"])
    for row, macs in ((("X3D-S", "13"), "1.963"), (("CoX3D-S", "13"), "0.153")):
        assert table.loc[row, ["Params here (M)", COUNTED]].tolist() == ["3.794", macs]
    assert table.loc[("**CoX3D-S**", "64"), COUNTED] == ""
    assert (table[COUNTED] != "").sum() == 2


def test_the_row_of_a_model_is_that_of_its_published_setting(models):
    assert tables.own_row(models, "cox3d_s")["macs_step"] == 152711312
    assert tables.own_row(models, "x3d_s", 13)["macs_clip"] == 1962892112
    assert tables.own_row(models, "x3d_s", 16) is tables.own_row(models, "rcu") is None
    assert tables.own_row(models[:0], "x3d_s") is None


def test_each_stream_is_compared_with_its_clip_net(published):
    pairs = tables.pairs(published).set_index(["model", "window"])
    assert len(pairs) == 10
    row = pairs.loc[("cox3d_m", 64)]
    assert row["points"] == pytest.approx(71.03 - 67.24)
    assert row["FLOPs ratio"] == pytest.approx(4.97 / 0.33)
    assert row["memory saved (%)"] == pytest.approx(100 * (1 - 68.96 / 126.29))


def test_bold_in_the_published_table_is_the_pareto_front(published):
    front = tables.pareto_front(published, "gflops_per_prediction", "top1_percent")
    assert front.tolist() == published["pareto_bold"].astype(bool).tolist()


def test_published_tables_agree_with_each_other(published):
    exact = pd.read_csv(PAPER / "flops_exact.csv")
    for row in exact.itertuples():
        number = row.window if row.model.startswith("co") else row.frames
        column = "window" if row.model.startswith("co") else "frames"
        match = published[(published["model"] == row.model) & (published[column] == number)]
        gflops = match["gflops_per_prediction"].item()
        assert round(row.flops_published_convention / 1e9, 2) == pytest.approx(gflops)
    sweep = pd.read_csv(PAPER / "pool_sweep_published.csv")
    transient = pd.read_csv(PAPER / "transient_published.csv")
    for table in (sweep, transient):
        assert set(table["model"].map(style.label)) <= {
            *("X3D-S", "X3D-M", "X3D-L", "CoX3D-S", "CoX3D-M", "CoX3D-L")
        }
    assert not transient.duplicated(["model", "window", "fill", "frames_seen"]).any()


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

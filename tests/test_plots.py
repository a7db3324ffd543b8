"""Shared plots show the rows that they are given; equal figures are equal files."""

import numpy as np
import pandas as pd
import pytest

from co3d.report import figures, plots, style
from co3d.zoo.specs import SPECS


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


def test_one_colour_per_family_and_one_label_per_model():
    for name in SPECS:
        assert style.color(name) == style.color(name.removeprefix("co")) and style.label(name)
    colours = set(style.FAMILY_COLORS.values())
    assert len(colours) == len(style.FAMILY_COLORS)
    assert style.label("cox3d_m") == "CoX3D-M" and style.label("coslow_8x8_r50") == "CoSlow"
    with pytest.raises(ValueError, match="'cox3d_xxl'"):
        style.label("cox3d_xxl")

"""The figures of notebooks 02 and 03: pairs that belong together, and nothing outside or on top."""

import pandas as pd
import pytest
from pictures import assert_legible

import co3d
from co3d.report import curves, tables


def _models(**more):
    columns = ["model", "window", "frames", "num_classes", "dense", "stride", "macs_clip"]
    columns += ["macs_frame"]
    rows = [
        ("x3d_s", None, 13, 400, 0, None, 1_962_892_112, None),
        ("cox3d_s", 13, None, 400, 0, 1, None, 152_711_312.0),
        ("cox3d_s", 64, None, 400, 0, 1, None, 152_711_312.0),
        ("i3d_8x8_r50", None, 8, 157, 0, None, 1, None),
        ("i3d_8x8_r50", None, 8, 400, 0, None, 28_407_660_544, None),
        ("coi3d_8x8_r50", 8, None, 400, 1, 1, None, 1.0),
        ("coi3d_8x8_r50", 8, None, 400, 0, 2, None, 3_551_265_088.0),
        ("x3d_mini", None, 16, 12, 0, None, 5, None),
        ("cox3d_mini", 16, None, 12, 0, 1, None, 1.0),
    ]
    return pd.DataFrame(rows, columns=columns)


def test_pairs_are_native_and_published():
    table = curves.costs(_models()).set_index("model")
    assert list(table.index) == ["x3d_s", "i3d_8x8_r50"]
    assert table.loc["x3d_s", "fps"] == co3d.spec("x3d_s").native_fps == 5
    assert table.loc["i3d_8x8_r50", "macs_frame"] == 3_551_265_088
    # 5 steps of 0.153 GMACs per second against a clip of 1.963: one prediction in 2.6 seconds
    assert 1 / table.loc["x3d_s", "per_s"] == pytest.approx(2.571, abs=1e-3)


def test_break_even_lines_cross_at_the_rate_that_is_written():
    table = curves.costs(_models())
    fig = curves.break_even(table)
    for ax, pair in zip(fig.axes, table.itertuples(), strict=False):
        clip, stream, rate = ax.lines
        assert set(rate.get_xdata()) == {pair.per_s}
        gmacs = pair.per_s * pair.macs_clip / 1e9
        assert stream.get_ydata()[0] == pytest.approx(gmacs)
        assert clip.get_ydata()[-1] / clip.get_xdata()[-1] == pytest.approx(pair.macs_clip / 1e9)
        assert ax.get_xlim()[1] == pytest.approx(clip.get_xdata()[-1])
        texts = [text.get_text() for text in ax.texts]
        assert any("use the clip net" in text for text in texts)
        assert f"1 in {1 / pair.per_s:.2g} s" in texts
    assert [ax.axison for ax in fig.axes] == [True, True, False]
    assert_legible(fig)


def test_errors_over_time_shows_zero_and_the_receptive_field():
    curve = pd.DataFrame({"frame": [5, 6, 7, 8], "max_rel_diff": [0.5, 0.1, 1e-16, 0.0]})
    fig = curves.errors_over_time({"cox3d_mini": curve, "coslow_mini": curve}, {
        "cox3d_mini": 7, "coslow_mini": 7})  # fmt: skip
    assert [ax.get_title() or ax.get_title("left") for ax in fig.axes] == [
        "CoX3D-mini",
        "CoSlow-mini",
    ]
    for ax in fig.axes:
        low, high = ax.get_ylim()
        drawn = ax.lines[1].get_ydata()
        assert low < min(drawn) and max(drawn) < high and len(drawn) == 4
    assert_legible(fig)


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


def test_training_curves_of_two_sets_and_three_seeds():
    rows = [
        {"model": model, "dataset": dataset, "seed": seed, "epoch": epoch, "loss": 2.0 / epoch}
        | {"top1": 10.0 * epoch if kinetics else None}
        | {"map_common": None if kinetics else 20.0 * epoch}
        for model in ("x3d_mini", "slow_mini")
        for dataset, kinetics in (("synthetic-kinetics", True), ("synthetic-charades", False))
        for seed in range(3 if model == "x3d_mini" else 1)
        for epoch in (1, 2, 3)
    ]
    table = pd.DataFrame(rows).astype({"top1": float, "map_common": float})
    fig = curves.training_curve(table)
    titles = [ax.get_title(loc) for ax in fig.axes for loc in ("left", "center")]
    assert [title for title in titles if title] == [
        "synthetic-kinetics: training loss",
        "synthetic-kinetics: validation top-1 (%)",
        "synthetic-charades: training loss",
        "synthetic-charades: validation mAP (%)",
    ]
    lines = [[list(line.get_ydata()) for line in ax.lines] for ax in fig.axes]
    assert [sum(map(bool, drawn)) for drawn in lines] == [4, 4, 4, 4]
    assert all(drawn == [10, 20, 30] for drawn in lines[1] if drawn)
    assert all(drawn == [20, 40, 60] for drawn in lines[3] if drawn)
    for ax in fig.axes:
        assert {text.get_text() for text in ax.texts} == {"Slow-mini", "X3D-mini"}
    assert_legible(fig)
    alone = curves.training_curve(table[table["dataset"] == "synthetic-kinetics"])
    assert len(alone.axes) == 2

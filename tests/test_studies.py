"""The figures of notebook 07: every value where it belongs, origins apart, no text on another."""

import itertools

import numpy as np
import pandas as pd
import pytest
from pictures import assert_legible

from co3d.paths import repo_root
from co3d.report import studies

PAPER = repo_root() / "results" / "paper"
MINIS = ("cox3d_mini", "coslow_mini", "coi3d_mini", "coslowfast_mini", "cor2plus1d_mini")


def _curves():
    published = pd.read_csv(PAPER / "transient_published.csv")
    rows = [
        ("measured", model, fill, seen, min(90, 8 + late * seen))
        for model in MINIS
        for fill, late in (("zeros", 3), ("replicate", 2.5))
        for seen in range(1, 65)
    ]
    ours = pd.DataFrame(rows, columns=["origin", "model", "fill", "frames_seen", "top1"])
    published = published.rename(columns={"top1_percent": "top1"}).assign(origin="published")
    return pd.concat([published, ours], ignore_index=True)


def _marks():
    rows = {name: (8, 23, 32, 80.0, 100 / 12) for name in MINIS}
    rows |= {"cox3d_s": (28, 40, 69, 50.95, 0.25), "cox3d_m": (28, 43, 72, 62.1, 0.25)}
    names = ["padding", "warmup", "receptive_field", "clip", "chance"]
    return pd.DataFrame(rows, index=names).T


def _accuracy():
    rows = []
    for n, model in enumerate(name[2:] for name in MINIS):
        rows.append((model, "clip", None, 16, 70 + n, 20e6))
        for window, top1 in ((8, 60), (16, 68), (32, 80), (64, 88)):
            rows.append((f"co{model}", "stream", window, window + 16, top1 + n, 1e6))
            if window > 8:
                rows.append((model, "clips", None, window + 16, top1 + n + 4, 20e6 * window / 8))
    names = ["model", "mode", "window", "frames", "top1", "macs_per_prediction"]
    table = pd.DataFrame(rows, columns=names).assign(dataset="synthetic-kinetics")
    return table.assign(ci_low=table["top1"] - 5, ci_high=table["top1"] + 4)


def _sweeps():
    published = studies.published_sweep(pd.read_csv(PAPER / "pool_sweep_published.csv"))
    ours = studies.sweep(_accuracy()).assign(origin="measured")
    return pd.concat([published.assign(origin="published"), ours], ignore_index=True)


def _against_rate():
    one = _accuracy().query("model in ('x3d_mini', 'cox3d_mini', 'slow_mini', 'coslow_mini')")
    one = one[one["mode"] != "clips"].drop_duplicates("model")
    rates = pd.concat(
        [one.assign(fps=fps, top1=one["top1"] - abs(fps - 15)) for fps in (5, 15, 30)]
    )
    clips = one[one["mode"] == "clip"]
    places = pd.concat([clips.assign(position=position) for position in (0, 0.5, 1)])
    for table in (rates, places):
        table["ci_low"], table["ci_high"] = table["top1"] - 4, table["top1"] + 4
    return studies.against_rate_and_position(rates, places, 15.0)


def _figures():
    yield "start_up", studies.start_up(_curves(), _marks())
    yield "against_window", studies.against_window(_sweeps())
    yield "against_rate", _against_rate()


@pytest.fixture(scope="module")
def figures():
    found = dict(_figures())
    for fig in found.values():
        fig.canvas.draw()
    return found


def _axes(fig):
    return [ax for part in (fig.subfigs or [fig]) for ax in part.axes]


def _names(fig):
    return [ax.get_title("left").strip() for ax in _axes(fig)]


def test_each_origin_has_a_row_of_panels_of_its_own(figures):
    minis = ["X3D-mini", "Slow-mini", "I3D-mini", "SlowFast-mini", "R(2+1)D-mini"]
    assert _names(figures["start_up"]) == ["CoX3D-S", "CoX3D-M", *(f"Co{name}" for name in minis)]
    assert _names(figures["against_window"]) == ["X3D-S", "X3D-M", "X3D-L", *minis]
    for name in ("start_up", "against_window"):
        titles = [part.get_suptitle() for part in figures[name].subfigs]
        assert titles == ["published", "measured"]


def test_start_up_draws_both_fills_and_the_constants(figures):
    curves, marks = _curves(), _marks()
    models = ["cox3d_s", "cox3d_m", *MINIS]
    for model, ax in zip(models, _axes(figures["start_up"]), strict=True):
        for line in (line for line in ax.lines if line.get_gid()):
            own = curves[(curves["model"] == model) & (curves["fill"] == line.get_gid())]
            assert np.array_equal(line.get_xydata(), own[["frames_seen", "top1"]])
        assert {line.get_gid() for line in ax.lines} >= {"zeros", "replicate"}
        (shade,) = ax.patches
        assert shade.get_x() + shade.get_width() == marks.loc[model, "padding"] + 0.5
        levels = {float(x) for line in ax.lines if not line.get_gid() for x in line.get_ydata()}
        assert {marks.loc[model, "clip"], marks.loc[model, "chance"]} <= levels
        across = [list(line.get_xdata()) for line in ax.lines]
        assert [marks.loc[model, "warmup"] + 1] * 2 in across


def test_phases_of_a_start_up():
    curves = pd.DataFrame(
        {"frames_seen": [1, 4, 8, 10, 12, 20, 30], "top1": [1.0, 3.0, 2.0, 60.0, 9.0, 50.0, 54.0]}
    ).assign(origin="x", model="m", fill="zeros")
    marks = pd.DataFrame({"padding": [8], "warmup": [9], "receptive_field": [20]}, index=["m"])
    (row,) = studies.phases(curves, marks).to_dict("records")
    assert row == {
        "up to the padding": 3.0,
        "up to the first output": 60.0,
        "from about RF on": 52.0,
        "overshoot": 8.0,
    }


def test_a_sweep_puts_streams_beside_clips_over_the_same_frames():
    table = studies.sweep(_accuracy()).set_index(["model", "window"])
    assert len(table) == 20
    row = table.loc[("slow_mini", 32)]
    assert (row["stream"], row["control"], row["clip"]) == (81, 85, 71)
    assert (row["stream_low"], row["control_high"], row["ratio"]) == (76, 89, 80)
    assert table.xs(8, level="window")[["control", "ratio"]].isna().all(axis=None)


def test_the_published_sweep_has_no_control():
    table = studies.published_sweep(pd.read_csv(PAPER / "pool_sweep_published.csv"))
    assert table["control"].isna().all() and len(table) == 13
    row = table.set_index(["model", "window"]).loc[("x3d_l", 64)]
    assert (row["stream"], row["clip"], row["inside"]) == (64.27, 64.12, 1)


def test_against_window_draws_streams_controls_and_start_ups(figures):
    sweeps = _sweeps()
    axes = dict(
        zip(_names(figures["against_window"]), _axes(figures["against_window"]), strict=True)
    )
    lines = {line.get_gid(): line.get_xydata().tolist() for line in axes["Slow-mini"].lines}
    own = sweeps[sweeps["model"] == "slow_mini"]
    assert lines["stream"] == own[["window", "stream"]].to_numpy().tolist()
    assert lines["control"] == own[["window", "control"]].dropna().to_numpy().tolist()
    hollow = [line for line in axes["X3D-L"].lines if line.get_label() == "in its start-up"]
    assert [list(line.get_xdata()) for line in hollow] == [[64, 96]]
    assert "control" not in {line.get_gid() for line in axes["X3D-L"].lines}


def test_against_rate_names_every_line(figures):
    left, right = figures["against_rate"].axes
    named = [{text.get_text() for text in ax.texts if text.get_gid()} for ax in (left, right)]
    assert named == [
        {"X3D-mini", "CoX3D-mini", "Slow-mini", "CoSlow-mini"},
        {"X3D-mini", "Slow-mini"},
    ]
    assert "synthetic-kinetics" in left.get_ylabel()


@pytest.mark.parametrize("name", ["start_up", "against_window", "against_rate"])
def test_no_text_touches_another_or_leaves_the_figure(figures, name):
    fig = figures[name]
    assert_legible(fig)
    texts = [fig._supxlabel, fig._supylabel, *(part._suptitle for part in fig.subfigs)]
    for ax in _axes(fig):
        texts += [*ax.texts, ax.xaxis.label, ax.yaxis.label]
        if legend := ax.get_legend():
            texts += [legend.get_title(), *legend.get_texts()]
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            texts += [
                tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high
            ]
    shown = [text for text in texts if text is not None and text.get_text() and text.get_visible()]
    boxes = [(text.get_text(), text.get_window_extent()) for text in shown]
    inside = [(text, box) for text, box in boxes if fig.bbox.overlaps(box)]
    for (one, box), (other, another) in itertools.combinations(inside, 2):
        assert not box.padded(-0.5).overlaps(another.padded(-0.5)), f"{one!r} touches {other!r}"
    for ax in _axes(fig):
        for text in ax.texts:
            box = text.get_window_extent()
            assert fig.bbox.x0 <= box.x0 and box.x1 <= fig.bbox.x1, text.get_text()

"""Factors of speed by hand; figures of notebook 04 draw every row, and no text on another."""

import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.transforms import Bbox
from pictures import assert_legible

from co3d.measure.rungs import CONTIGUOUS, EAGER, FREE, INSTALLED, OPTIMISED
from co3d.measure.speed import Speed
from co3d.measure.subjects import Subject
from co3d.paths import repo_root
from co3d.report import speedups, throughputs, timings
from co3d.report.style import label, order

STREAMS = {"cox3d_s": 13, "cox3d_m": 16, "cox3d_l": 16, "coslow_8x8_r50": 8, "coi3d_8x8_r50": 8}
MS = {CONTIGUOUS: 12.0, EAGER: 8.0, OPTIMISED: 2.0, "onnxruntime": 1.5, "openvino": 1.0}
MS |= {INSTALLED: 20.0, FREE: 16.0}


def _row(model, implementation, precision, ms, window=None, batch=1):
    stream = window is not None
    return {
        "model": model,
        "implementation": implementation,
        "precision": precision,
        "mode": "stream" if stream else "clip",
        "window": window,
        "batch": batch,
        "threads": 2,
        "latency_ms_median": ms,
        "throughput_per_s": 1000 * batch / ms,
        "state_mb": 10.0 * (2 if implementation in (INSTALLED, FREE) else 1) if stream else None,
        "alloc_mb": None if implementation in ("onnxruntime", "openvino") else 50.0,
        "moved_mb": None if implementation in ("onnxruntime", "openvino") else 100.0,
        "gemm_peak_gmacs": 100.0,
        "copy_peak_gb_per_s": 20.0,
        "macs_per_prediction": 2e8 if stream else 3e9,
    }


@pytest.fixture(scope="module")
def rows():
    found = []
    for n, (model, window) in enumerate(STREAMS.items(), 1):
        for form, ms in MS.items():
            if form != CONTIGUOUS:
                found.append(_row(model, form, "float32", n * ms, window))
            if form not in (INSTALLED, FREE):
                found.append(_row(model.removeprefix("co"), form, "float32", 10 * n * ms))
        found.append(_row(model, OPTIMISED, "bfloat16", n * 0.5, window))
        found.append(_row(model, EAGER, "float32", n * 20, window, batch=8))
    return pd.DataFrame(found).astype({"window": "Int64"})


def test_ratios_are_times_of_the_peer_over_ours(rows):
    table = speedups.ratios(rows).set_index(["model", "implementation", "precision"])
    assert len(table) == 5 * 5 and list(table) == [INSTALLED, FREE]
    assert table.loc[("cox3d_m", OPTIMISED, "float32")].tolist() == [10.0, 8.0]
    assert table.loc[("coi3d_8x8_r50", OPTIMISED, "bfloat16")].tolist() == [40.0, 32.0]
    none = speedups.ratios(rows[rows["implementation"] != INSTALLED])
    assert list(none) == ["model", "implementation", "precision", FREE]


def test_the_ratio_of_a_strided_stream_counts_its_whole_period(rows):
    """The step that predicts takes longer than the others: its latency is not what counts."""
    late = rows["implementation"].eq(INSTALLED) & rows["model"].eq("coi3d_8x8_r50")
    changed = rows.assign(latency_ms_median=rows["latency_ms_median"].where(~late, 1e9))
    pd.testing.assert_frame_equal(speedups.ratios(changed), speedups.ratios(rows))


def test_memory_is_a_share_of_the_peer_as_installed(rows):
    table = speedups.memory(rows).set_index(["model", "implementation"])
    assert table.loc[("cox3d_s", OPTIMISED)].tolist() == [0.5, 1.0]
    assert np.isnan(table.loc[("cox3d_s", "openvino"), "alloc_mb / peer"])


def test_a_ladder_takes_the_faster_runtime_and_leaves_out_what_is_not_there(rows):
    table = speedups.ladder(rows)
    own = table[table["model"] == "cox3d_s"].set_index("rung")
    assert own["ms"].tolist() == pytest.approx([120, 80, 8, 2, 1, 0.5])
    assert own["factor"].tolist()[1:] == pytest.approx([1.5, 10, 4, 2, 2])
    assert np.isnan(own["factor"].iloc[0])
    fewer = speedups.ladder(rows[rows["implementation"] != EAGER])
    own = fewer[fewer["model"] == "cox3d_s"]
    assert own["ms"].tolist() == pytest.approx([120, 2, 1, 0.5])
    assert own["factor"].iloc[1] == pytest.approx(60)


def test_savings_compare_clip_and_stream_in_one_form(rows):
    table = speedups.savings(rows).set_index(["model", "implementation"])
    assert len(table) == 5 * 4  # torch's layout has no stream, bfloat16 no clip, peers none
    assert (table["macs"] == 15).all() and np.allclose(table["time"], 10)
    assert np.allclose(table["clip_ms"], 10 * table["stream_ms"])
    assert table.loc[("cox3d_m", OPTIMISED), "stream_ms"] == pytest.approx(4)


def test_a_row_per_network_and_a_column_per_form(rows):
    streams = rows[(rows["mode"] == "stream") & (rows["precision"] == "float32")]
    table = speedups.by_form(streams, "ms", timings.NAMES)
    assert list(table.index) == [label(model) for model in order(STREAMS)]
    assert list(table) == [timings.NAMES[form] for form in timings.NAMES if form in MS][1:]
    assert table.loc["CoX3D-M", "optimised"] == pytest.approx(4)
    assert list(speedups.by_form(streams, "alloc_mb", timings.NAMES))[:2] == ["eager", "optimised"]
    assert "OpenVINO" not in speedups.by_form(streams, "alloc_mb", timings.NAMES)


def test_the_fastest_forms_of_clip_and_stream(rows):
    table = speedups.fastest(rows, timings.NAMES)
    assert set(table["clip"]) == set(table["stream"]) == {"OpenVINO"}
    assert table.loc["CoX3D-M"].tolist()[1::2] == pytest.approx([20, 2])
    assert np.allclose(table["clip / stream"], 10)
    assert list(speedups.fastest(rows[rows["model"] != "x3d_m"], timings.NAMES).index) == [
        label(model) for model in order(STREAMS) if model != "cox3d_m"
    ]


def test_times_per_clip_and_per_frame_of_a_period():
    common = {"work": lambda: None, "implementation": OPTIMISED}
    clip = Subject("r2plus1d_mini", "clip", None, 1, **common)
    stream = Subject("cor2plus1d_mini", "stream", 16, 4, **common)
    speeds = [Speed(clip, (0.3,) * 3, (0.3,) * 3, 2, 1e9),
              Speed(stream, (0.01,) * 3, (0.01, 0.02, 0.09), 2, 1e9)]  # fmt: skip
    table = speedups.per_call(speeds, timings.NAMES)
    assert list(table.index) == ["R(2+1)D-mini"]
    assert table[("ms per clip", "optimised")].item() == pytest.approx(300)
    assert table[("ms per frame", "optimised")].item() == pytest.approx(5)


def test_how_many_steps_are_within_a_time():
    rows = [("openvino", ms) for ms in (10, 10, 10, 50)] + [(EAGER, 20)]
    rows = pd.DataFrame(rows, columns=["implementation", "latency_ms"])
    table = speedups.lateness(rows, 100 / 3, timings.NAMES)
    assert list(table.index) == ["eager", "OpenVINO"]
    assert table.loc["OpenVINO"].tolist() == pytest.approx([10, 44, 50, 75])
    assert list(table)[-1] == "within 33 ms (%)" and table.loc["eager"].iloc[-1] == 100


def test_rates_are_per_second_and_per_byte(rows):
    row = speedups.rates(rows[rows["mode"] == "clip"]).iloc[0]
    assert row["gmacs_per_s"] == pytest.approx(3e9 / 0.12 / 1e9)
    assert row["share"] == pytest.approx(0.25) and row["macs_per_byte"] == 30


def _latencies():
    rng = np.random.default_rng(0)
    rows = [
        {"model": "cox3d_s", "implementation": form, "latency_ms": ms * rng.gamma(50, 1 / 50)}
        for form, ms in MS.items()
        if form != CONTIGUOUS
        for _ in range(50)
    ]
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def figures(rows):
    published = pd.read_csv(repo_root() / "results" / "paper" / "kinetics400_published.csv")
    found = {
        "like_for_like": timings.like_for_like(rows),
        "ladder": timings.ladder(speedups.ladder(rows)),
        "savings": timings.savings(speedups.savings(rows)),
        "roofline": timings.roofline(rows),
        "histograms": timings.histograms(_latencies()),
        "gains": throughputs.gains(published),
        "accuracy": throughputs.accuracy(published),
    }
    for fig in found.values():
        fig.canvas.draw()
    return found


def test_like_for_like_draws_the_times_of_float32(figures):
    numbers = {label(model): n for n, model in enumerate(STREAMS, 1)}
    for ax in figures["like_for_like"].axes:
        n = numbers[ax.get_title("left")]
        widths = [bar.get_width() for bar in ax.patches]
        expected = [n * MS[form] for form in (INSTALLED, FREE, EAGER, OPTIMISED)]
        assert widths == pytest.approx(expected)
    (first,) = (ax for ax in figures["like_for_like"].axes if ax.get_title("left") == "CoX3D-S")
    notes = [text.get_text() for text in first.texts]
    assert notes == ["20.0", "16.0  1.2×", "8.00  2.5×", "2.00  10.0×"]


def test_a_ladder_marks_clips_and_streams_on_an_axis_called_logarithmic(figures, rows):
    table = speedups.ladder(rows)
    assert "logarithmic" in figures["ladder"]._supxlabel.get_text()
    for ax in figures["ladder"].axes:
        own = table[table["model"].map(label) == ax.get_title("left")]
        marks = [held.get_offsets()[0][0] for held in ax.collections]
        assert marks == pytest.approx(own["ms"].tolist())


def test_marks_stand_at_their_values(figures, rows):
    for name, table, x, y in (
        ("savings", speedups.savings(rows), "time", None),
        ("roofline", speedups.rates(rows[rows["batch"] == 1]), "macs_per_byte", "gmacs_per_s"),
    ):
        (ax,) = figures[name].axes
        marks = {line.get_gid(): line.get_xydata()[0] for line in ax.lines if ":" in
                 str(line.get_gid())}  # fmt: skip
        assert len(marks) == 20
        table = table[(table["precision"] == "float32") & table["model"].str.startswith("co")]
        for row in table.to_dict("records"):
            if np.isnan(row[x]):
                continue
            mark = marks[f"{row['model']}:{row['implementation']}"]
            assert mark[0] == row[x] and (y is None or mark[1] == row[y])


def test_histograms_hold_every_measurement_of_one_model(figures):
    counts = {
        ax.patches[0].get_gid(): sum(bar.get_height() for bar in ax.patches)
        for ax in figures["histograms"].axes
    }
    assert set(counts.values()) == {50} and len(counts) == 6
    two = pd.concat([_latencies(), _latencies().assign(model="cox3d_m")])
    with pytest.raises(ValueError, match="expected latencies of one model, given cox3d_m, cox3d_s"):
        timings.histograms(two)


def test_published_figures_have_a_panel_per_device_and_nothing_measured(figures):
    names = list(throughputs.DEVICES.values())
    for name in ("gains", "accuracy"):
        assert [ax.get_title("left") for ax in figures[name].axes] == names
    (first, *_) = figures["gains"].axes
    marks = {held.get_gid(): held.get_offsets()[0][0] for held in first.collections
             if held.get_gid()}  # fmt: skip
    assert marks["cpu:cox3d_s"] == 13.16 and len(marks) == 5


def test_every_mark_of_the_published_figure_can_be_read(figures):
    """No mark hides another, and no name lies on a mark."""
    for ax in figures["accuracy"].axes:
        marks = [m for m in ax.collections if m.get_gid()]
        assert len(marks) == 20 and not [t for t in ax.texts if t.get_gid() == "number"]
        at = [ax.transData.transform(m.get_offsets()[0]) * 72 / ax.figure.dpi for m in marks]
        for one, other in itertools.combinations(at, 2):
            assert np.abs(one - other).max() > 2, ax.get_title("left")
        for text, place in itertools.product(ax.texts, at):
            spot = place * ax.figure.dpi / 72
            box = Bbox([spot - 2, spot + 2])
            assert not text.get_text() or not text.get_window_extent().overlaps(box)


@pytest.mark.parametrize("name", ["like_for_like", "ladder", "savings", "roofline", "histograms",
                                  "gains", "accuracy"])  # fmt: skip
def test_no_text_touches_another_or_leaves_the_figure(figures, name):
    fig = figures[name]
    assert_legible(fig)
    texts = [fig._supxlabel]
    for ax in fig.axes:
        texts += [*ax.texts, ax.title, ax._left_title, ax.xaxis.label, ax.yaxis.label]
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = axis.get_major_ticks() + axis.get_minor_ticks()
            texts += [tick.label1 for tick in ticks if low <= tick.get_loc() <= high]
        if legend := ax.get_legend():
            texts += legend.get_texts()
    shown = [text for text in texts if text is not None and text.get_text() and text.get_visible()]
    boxes = [(text.get_text(), text.get_window_extent()) for text in shown]
    inside = [(text, box) for text, box in boxes if fig.bbox.overlaps(box) and box.width]
    for (one, box), (other, another) in itertools.combinations(inside, 2):
        assert not box.padded(-0.5).overlaps(another.padded(-0.5)), f"{one!r} touches {other!r}"
    for ax in fig.axes:
        for text in ax.texts:
            box = text.get_window_extent()
            assert fig.bbox.x0 <= box.x0 and box.x1 <= fig.bbox.x1, text.get_text()

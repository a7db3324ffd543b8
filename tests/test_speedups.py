"""Factors of speed by hand."""

import pandas as pd
import pytest

from co3d.measure.forms import EAGER, FORMS, INSTALLED, ONNX, OPENVINO, OPTIMISED, PEERS, TUNED
from co3d.report import speedups
from co3d.report.style import label, order

STREAMS = {"cox3d_s": 13, "cox3d_m": 16, "coi3d_8x8_r50": 8}
MS = {EAGER: 8.0, OPTIMISED: 1.0, ONNX: 4.0, OPENVINO: 2.0, INSTALLED: 20.0, TUNED: 16.0}


def row(model, implementation, precision, ms, window=None, **changes):
    is_stream = window is not None
    made = {
        "model": model,
        "implementation": implementation,
        "precision": precision,
        "mode": "stream" if is_stream else "clip",
        "window": window,
        "batch": 1,
        "threads": 2,
        "latency_ms_median": ms,
        "throughput_per_s": 1000 / ms,
        "state_mb": (20.0 if implementation in PEERS else 10.0) if is_stream else None,
        "macs_per_prediction": 2e8 if is_stream else 3e9,
    }
    return made | changes


@pytest.fixture(scope="module")
def rows():
    made = []
    for n, (model, window) in enumerate(STREAMS.items(), 1):
        made += [row(model, form, "float32", n * ms, window) for form, ms in MS.items()]
        twin = model.removeprefix("co")
        made += [row(twin, form, "float32", 10 * n * MS[form]) for form in (EAGER, OPENVINO)]
        made.append(row(twin, OPENVINO, "bfloat16", n))  # faster, but not in float32
        made.append(row(model, OPTIMISED, "bfloat16", n * 0.5, window))
        made.append(row(model, OPTIMISED, "float32", 3 * n, window, threads=1))
        made.append(row(model, OPTIMISED, "float32", n, window, batch=8))
    return pd.DataFrame(made).astype({"window": "Int64"})


def test_ratios_are_times_of_the_rivals_in_float32_over_ours(rows):
    table = speedups.against(rows, [*PEERS, OPENVINO])
    assert list(table)[-3:] == [INSTALLED, TUNED, OPENVINO]
    table = table.set_index(["model", "implementation", "precision"])
    assert len(table) == 3 * 5
    assert table.loc[("cox3d_m", OPTIMISED, "float32")].tolist()[2:] == [20.0, 16.0, 2.0]
    assert table.loc[("cox3d_m", OPTIMISED, "bfloat16")].tolist()[2:] == [40.0, 32.0, 4.0]
    none = speedups.against(rows[rows["implementation"] != INSTALLED], PEERS)
    assert list(none)[-1] == TUNED and INSTALLED not in none


def test_the_ratio_of_a_strided_stream_counts_its_whole_period(rows):
    """The step that predicts takes longer than the others: its latency is not what counts."""
    late = rows["implementation"].eq(INSTALLED)
    changed = rows.assign(latency_ms_median=rows["latency_ms_median"].where(~late, 1e9))
    same = speedups.against(changed, PEERS)
    pd.testing.assert_frame_equal(same, speedups.against(rows, PEERS))


def test_a_state_is_a_share_of_the_peers(rows):
    table = speedups.state_shares(rows[rows["batch"] == 1])
    assert set(table["share"]) == {0.5} and set(table["state_mb"]) == {10.0}
    assert not set(table["implementation"]) & set(PEERS)


def test_a_stream_saves_of_the_fastest_float32_form_of_its_clip_net(rows):
    table = speedups.savings(rows)
    assert set(table["clip"]) == {OPENVINO} and (table["macs"] == 15).all()
    assert set(table["threads"]) == {2} and set(table["batch"]) == {1}  # like with like
    table = table.set_index(["model", "implementation", "precision"])
    assert table.loc[("cox3d_m", OPTIMISED, "float32"), "time"] == pytest.approx(20)
    assert table.loc[("cox3d_m", OPTIMISED, "float32"), "share"] == pytest.approx(20 / 15)
    assert table.loc[("cox3d_m", OPTIMISED, "bfloat16"), "time"] == pytest.approx(40)
    assert table.loc[("cox3d_m", EAGER, "float32"), ["clip_ms", "ms"]].tolist() == [40, 16]


def test_a_row_per_network_and_a_column_per_form_and_rates_by_the_formula(rows):
    streams = speedups.per_prediction(rows.query("mode == 'stream' and precision == 'float32'"))
    table = speedups.by_form(streams.query("batch == 1 and threads == 2"), "ms")
    assert list(table.index) == [label(model) for model in order(STREAMS)]
    assert list(table) == [speedups.NAMES[form] for form in FORMS]
    assert table.loc["CoX3D-M", "optimised"] == pytest.approx(2)
    rates = speedups.per_prediction(rows[rows["batch"] == 8])["gmacs_per_s"]
    assert rates.iloc[0] == pytest.approx(2e8 / 1e-3 / 1e9)

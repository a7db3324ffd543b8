"""Speed: what is timed, in which order, and the statistics, on a clock that the tests move."""

import math

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import co3d
from co3d.measure import speed
from co3d.measure.speed import Speed, Subject
from co3d.report import results
from co3d.report.origin import provenance
from co3d.report.schema import TABLES


class Bench:
    """Subjects that take time on the clock; `calls` holds their names in order."""

    def __init__(self):
        self.now, self.calls = 0.0, []

    def clock(self):
        return self.now

    def subject(self, name, seconds, period=1):
        """Of which the calls take the given seconds, over and over."""
        turns = iter(seconds * 10_000)

        def work():
            self.calls.append(name)
            self.now += next(turns)

        mode, window = ("stream", 16) if period > 1 else ("clip", None)
        return Subject(name, mode, window, period, work)

    def product(self):
        self.calls.append("product")
        self.now += 2.0 if self.calls.count("product") == 2 else 4.0
        return 10**9


def test_models_take_turns_of_equal_length():
    bench = Bench()
    subjects = [bench.subject(name, [1.0]) for name in "ab"]
    times, _ = speed.interleaved(subjects, bench.product, 20, bench.clock)
    turn = ["a"] * 3 + ["b"] * 3 + ["product"]  # the first of each is not timed
    assert bench.calls == turn * 10
    assert times == [[(1.0, 1.0)] * 20] * 2


@given(st.integers(1, 300))
def test_every_repeat_is_measured_once(repeats):
    bench = Bench()
    (times,), _ = speed.interleaved([bench.subject("a", [1.0])], bench.product, repeats,
                                    bench.clock)  # fmt: skip
    assert len(times) == repeats
    assert len(bench.calls) == repeats + 2 * min(10, repeats)


def test_a_strided_net_is_timed_at_the_step_that_predicts_and_over_its_period():
    bench = Bench()
    subjects = [bench.subject("strided", [1.0, 2.0, 1.0, 8.0], period=4)]
    (times,), peak = speed.interleaved(subjects, bench.product, 3, bench.clock)
    assert times == [(8.0, 12.0)] * 3
    assert peak == 10**9 / 2.0  # the best of three products
    one = Speed(subjects[0], *map(tuple, zip(*times, strict=True)), threads=1, peak=peak)
    assert one.ms_per_frame == 3000
    row = one.row()
    assert row["latency_ms_median"] == 8000 and row["throughput_per_s"] == 1 / 12
    assert row["gemm_peak_gmacs"] == 0.5


def test_the_untimed_prediction_is_no_measurement():
    bench = Bench()
    subjects = [bench.subject("a", [100.0, 1.0])]
    (times,), _ = speed.interleaved(subjects, bench.product, 2, bench.clock)
    assert times == [(1.0, 1.0)] * 2


def test_statistics_by_hand():
    seconds = (0.004, 0.001, 0.002, 0.003, 0.010)
    clip = Speed(Subject("net", "clip", None, 1, lambda: None), seconds, seconds, 2, 5e10)
    row = clip.row()
    assert row["latency_ms_median"] == pytest.approx(3)
    assert row["latency_ms_p95"] == pytest.approx(4 + 0.8 * 6)  # at rank 0.95 * 4 from 0
    # mean 4, squared deviations 0 9 4 1 36
    assert row["latency_ms_std"] == pytest.approx(math.sqrt(50 / 5))
    assert row["throughput_per_s"] == pytest.approx(1000 / row["latency_ms_median"])
    assert (row["batch"], row["threads"], row["gemm_peak_gmacs"]) == (1, 2, 50)
    assert row["window"] is row["state_mb"] is row["peak_mem_mb"] is clip.ms_per_frame is None


@torch.inference_mode()
@pytest.mark.parametrize("name", ["cox3d_mini", "coi3d_mini", "cor2plus1d_mini"])
def test_the_last_step_of_a_period_predicts_and_all_before_saw_a_receptive_field(name):
    model = co3d.create(name)
    fed = []
    steps = speed.Steps(model, torch.zeros(1, 3, 48, 48))
    for _ in range(3):
        fed += [steps() is not None for _ in range(model.stride)]
    assert fed == ([False] * (model.stride - 1) + [True]) * 3


@torch.inference_mode()
def test_a_clip_is_timed_in_the_layout_that_is_faster():
    bench = Bench()
    for fast in (True, False):

        def model(clip, fast=fast):
            last = clip.is_contiguous(memory_format=torch.channels_last_3d)
            bench.now += 1 if last is fast else 2

        chosen = speed._in_faster_layout(model, torch.zeros(1, 3, 4, 5, 6), bench.clock)
        assert chosen.is_contiguous(memory_format=torch.channels_last_3d) is fast


def test_rows_fit_the_table(tmp_path):
    threads = torch.get_num_threads()
    speeds = speed.measure(["slow_mini", "coslow_mini", "slow_mini"], window=32, repeats=2,
                           threads=1, progress=False)  # fmt: skip
    assert torch.get_num_threads() == threads
    rows = [one.row() for one in speeds]
    assert all(tuple(row) == TABLES["benchmark"].own for row in rows)
    assert [(row["model"], row["mode"], row["window"], row["threads"]) for row in rows] == [
        ("slow_mini", "clip", None, 1),
        ("coslow_mini", "stream", 32, 1),
    ]
    assert all(row["implementation"] == "co3d eager" for row in rows)
    results.write("benchmark", rows, tmp_path, provenance(notebook="a test", seed=0))
    table = results.read("benchmark", tmp_path).set_index("model")
    assert len(table) == 2 and (table["gemm_peak_gmacs"] > 0).all()
    assert (table["latency_ms_p95"] >= table["latency_ms_median"]).all()
    assert pd.isna(table.loc["slow_mini", "state_mb"]) and table["peak_mem_mb"].isna().all()
    model = co3d.create("coslow_mini", window=32)
    _, state = model.steps(torch.zeros(1, 3, model.receptive_field, 48, 48))
    assert table.loc["coslow_mini", "state_mb"] == co3d.nn.state_bytes(state) / 1e6


@pytest.mark.parametrize(
    ("names", "options", "sentence"),
    [
        (["cox3d_z"], {}, "expected a model such as"),
        (["coi3d_mini"], {"window": 9}, "coi3d_mini: .*multiple of 2"),
        (["x3d_mini"], {"repeats": 0}, "expected 1 or more repeats and threads, given 0 and None"),
        (["x3d_mini"], {"threads": 0}, "expected 1 or more repeats and threads, given 100 and 0"),
    ],
)
def test_bad_input_is_a_sentence(names, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        speed.measure(names, progress=False, **options)

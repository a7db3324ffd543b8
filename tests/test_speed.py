"""Speed: what is timed, in which order and form, and the statistics, on a clock that tests move."""

import math

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import co3d
from co3d import report
from co3d.measure import rungs, speed
from co3d.measure.rungs import Rung
from co3d.measure.speed import Speed
from co3d.measure.subjects import Steps, Subject
from co3d.report import results, speedups
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

    @property
    def gauges(self):
        return {"product": self.product}

    def product(self):
        self.calls.append("product")
        self.now += 2.0 if self.calls.count("product") == 2 else 4.0
        return 10**9


def test_models_take_turns_of_equal_length():
    bench = Bench()
    subjects = [bench.subject(name, [1.0]) for name in "ab"]
    times, _ = speed.interleaved(subjects, bench.gauges, [20, 20], bench.clock)
    turn = ["a"] * 3 + ["b"] * 3 + ["product"]  # the first of each is not timed
    assert bench.calls == turn * 10
    assert times == [[(1.0, 1.0)] * 20] * 2


@given(st.integers(1, 300))
def test_every_repeat_is_measured_once(repeats):
    bench = Bench()
    (times,), _ = speed.interleaved([bench.subject("a", [1.0])], bench.gauges, [repeats],
                                    bench.clock)  # fmt: skip
    assert len(times) == repeats
    assert len(bench.calls) == repeats + 2 * min(10, repeats)


def test_a_slow_model_is_measured_less_often_and_spread_over_the_turns():
    bench = Bench()
    slow, fast = bench.subject("slow", [5.0]), bench.subject("fast", [0.1])
    counts = [speed._affordable(one, 10, 20.0, bench.clock) for one in (slow, fast)]
    assert counts == [4, 10]
    assert speed._affordable(slow, 10, 1.0, bench.clock) == speed.LEAST
    bench.calls.clear()
    times, _ = speed.interleaved([slow, fast], {}, counts, bench.clock)
    assert [len(held) for held in times] == counts
    assert bench.calls.count("slow") == 4 and bench.calls.count("fast") == 2 * 10
    assert bench.calls[-1] == "fast" and "slow" in bench.calls[:7]


def test_a_strided_net_is_timed_at_the_step_that_predicts_and_over_its_period():
    bench = Bench()
    subjects = [bench.subject("strided", [1.0, 2.0, 1.0, 8.0], period=4)]
    (times,), best = speed.interleaved(subjects, bench.gauges, [3], bench.clock)
    assert times == [(8.0, 12.0)] * 3
    assert best == {"product": 10**9 / 2.0}  # the best of three
    one = Speed(subjects[0], *map(tuple, zip(*times, strict=True)), 1, best["product"])
    assert one.ms_per_frame == 3000
    row = one.row()
    assert row["latency_ms_median"] == 8000 and row["throughput_per_s"] == 1 / 12
    assert row["gemm_peak_gmacs"] == 0.5


def test_the_untimed_prediction_is_no_measurement():
    bench = Bench()
    subjects = [bench.subject("a", [100.0, 1.0])]
    (times,), _ = speed.interleaved(subjects, bench.gauges, [2], bench.clock)
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


def test_one_form_is_in_torchs_layout_and_one_as_created():
    net, clip = co3d.create("x3d_mini"), torch.zeros(1, 3, 2, 48, 48)
    plain, fed = rungs.make(rungs.CONTIGUOUS, net, clip, "float32")
    assert fed.is_contiguous() and all(
        weight.stride() == torch.empty(weight.shape).stride() for weight in plain.parameters()
    )
    eager, fed = rungs.make(rungs.EAGER, net, clip, "float32")
    assert eager is net and fed.is_contiguous(memory_format=torch.channels_last_3d)


@torch.inference_mode()
@pytest.mark.parametrize("name", ["cox3d_mini", "coi3d_mini", "cor2plus1d_mini"])
def test_the_last_step_of_a_period_predicts_and_the_state_has_its_size(name):
    model = co3d.create(name)
    steps = Steps(model, torch.zeros(1, 3, 48, 48))
    held, fed = [], []
    for _ in range(3):
        fed += [steps() is not None for _ in range(model.stride)]
        held.append(co3d.nn.state_bytes(steps.state))
    assert fed == ([False] * (model.stride - 1) + [True]) * 3
    assert len(set(held)) == 1


def doubling(net, example, dtype):
    """A stand-in for a form: the network in this dtype, logits doubled."""
    if dtype != torch.float32:
        raise ValueError("this form knows float32 alone")
    return Doubled(net), example


class Doubled:
    def __init__(self, net):
        self.net, self.fed = net, []

    def step(self, frame, state):
        self.fed.append(frame.shape)
        y, state = self.net.step(frame, state)
        return (None if y is None else 2 * y), state


@pytest.fixture
def forms(monkeypatch):
    """Two more forms: one that torch does not see, one of a package that is not there."""
    new = {"hidden": Rung(doubling, seen=False), "lost": Rung(doubling, ("no_such_package",))}
    new = {rungs.EAGER: rungs.RUNGS[rungs.EAGER], **new}
    monkeypatch.setattr(rungs, "RUNGS", new)
    return new


def test_forms_that_cannot_be_had_are_told_and_the_others_timed(forms):
    options = {"implementations": forms, "precisions": ("float32", "bfloat16")}
    speeds, left_out = speed.measure(["coslow_mini"], repeats=1, progress=False, **options)
    timed = {(one.subject.implementation, one.subject.precision) for one in speeds}
    assert timed >= {(rungs.EAGER, "float32"), ("hidden", "float32")}
    assert ("hidden", "bfloat16") not in timed
    lost = "left out: lost, float32 (coslow_mini): the package no_such_package is not installed"
    assert lost in left_out
    seen = {one.subject.implementation: one.subject.footprint.allocated for one in speeds}
    assert seen["hidden"] is None and seen[rungs.EAGER] > 0


def test_a_cpu_without_bfloat16_says_so(monkeypatch):
    monkeypatch.setattr(rungs, "amx", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    with pytest.raises(ValueError, match="nothing to time: .*neither AMX nor AVX-512"):
        speed.measure(["coslow_mini"], precisions=["bfloat16"], progress=False)
    assert rungs.slow_bfloat16("cuda") == ""


def test_batches_fit_the_memory_and_what_cannot_be_watched_takes_those_of_eager(forms):
    options = {"repeats": 1, "progress": False, "implementations": (rungs.EAGER, "hidden")}
    (alone, _), _ = speed.measure(["coslow_mini"], **options)
    budget = 4 * alone.subject.footprint.allocated / 1e6
    speeds, left_out = speed.measure(["coslow_mini"], memory=budget, **options)
    assert left_out == []
    batches = [(one.subject.implementation, one.subject.batch) for one in speeds]
    many = batches[2][1]
    assert batches == [(rungs.EAGER, 1), ("hidden", 1), (rungs.EAGER, many), ("hidden", many)]
    assert many >= 4 and many & (many - 1) == 0
    one, filled = speeds[0].subject, speeds[2].subject
    assert filled.footprint.allocated <= 1e6 * budget
    assert filled.state_mb == one.state_mb and filled.macs == one.macs
    row = speeds[2].row()
    assert row["throughput_per_s"] == pytest.approx(1000 * many / row["latency_ms_median"])
    options["implementations"] = ["hidden"]
    _, left_out = speed.measure(["coslow_mini"], memory=budget, **options)
    assert left_out == ["left out: hidden in batches, float32 (coslow_mini): its memory cannot be "
                        "watched: time co3d eager, too"]  # fmt: skip


@pytest.mark.parametrize("name", ["cox3d_mini", "coi3d_mini", "slow_mini"])
def test_macs_of_a_row_are_those_of_the_models_table(name):
    ((one,), _) = speed.measure([name], repeats=1, progress=False)
    table = report.read("models").set_index("model")
    rows = table[(table["image_size"] == 48) & (table["dense"] == 0)].loc[[name]].iloc[0]
    expected = rows["macs_clip"] if name == "slow_mini" else rows["macs_frame"] * rows["stride"]
    assert one.row()["macs_per_prediction"] == expected


def test_rows_fit_the_table(tmp_path):
    threads = torch.get_num_threads()
    speeds, left_out = speed.measure(["slow_mini", "coslow_mini", "slow_mini"], window=32,
                                     repeats=2, threads=1, progress=False)  # fmt: skip
    assert torch.get_num_threads() == threads and left_out == []
    rows = [one.row() for one in speeds]
    assert all(tuple(row) == TABLES["benchmark"].own for row in rows)
    assert [(row["model"], row["mode"], row["window"], row["threads"]) for row in rows] == [
        ("slow_mini", "clip", None, 1),
        ("coslow_mini", "stream", 32, 1),
    ]
    assert all(row["implementation"] == "co3d eager" for row in rows)
    (file,) = speedups.save(speeds, tmp_path, notebook="a test", seed=0, device="cpu")
    assert file.name.startswith("benchmark-") and file.name.endswith("-float32.csv")
    table = results.read("benchmark", tmp_path / "results").set_index("model")
    assert len(table) == 2 and (table["gemm_peak_gmacs"] > 0).all()
    assert (table[["alloc_mb", "moved_mb", "copy_peak_gb_per_s"]] > 0).all(axis=None)
    assert (table["latency_ms_p95"] >= table["latency_ms_median"]).all()
    assert pd.isna(table.loc["slow_mini", "state_mb"]) and table["peak_mem_mb"].isna().all()
    model = co3d.create("coslow_mini", window=32)
    _, state = model.steps(torch.zeros(1, 3, model.receptive_field, 48, 48))
    assert table.loc["coslow_mini", "state_mb"] == co3d.nn.state_bytes(state) / 1e6


def test_single_measurements_have_a_table(tmp_path):
    subject = Subject("slow_mini", "clip", None, 1, lambda: None, precision="bfloat16")
    one = Speed(subject, (0.002, 0.001), (0.002, 0.001), 1, 1e9)
    (file,) = speedups.save([one], tmp_path, notebook="", seed=0, device="cpu", raw=True)
    table = results.read("latencies", tmp_path / "results")
    assert file.name.startswith("latencies-") and file.name.endswith("-bfloat16.csv")
    assert table[["repeat", "latency_ms", "precision"]].values.tolist() == [
        [1, 2.0, "bfloat16"],
        [2, 1.0, "bfloat16"],
    ]


@pytest.mark.parametrize(
    ("names", "options", "sentence"),
    [
        (["cox3d_z"], {}, "expected a model such as"),
        (["coi3d_mini"], {"window": 9}, "coi3d_mini: .*multiple of 2"),
        (["x3d_mini"], {"repeats": 0}, "expected 1 or more repeats and threads, given 0 and None"),
        (["x3d_mini"], {"threads": 0}, "expected 1 or more repeats and threads, given 100 and 0"),
        (["x3d_mini"], {"implementations": ["fast"]}, "expected some of co3d contig.*'fast'"),
        (
            ["x3d_mini"],
            {"precisions": ["int8"]},
            "expected some of float32, bfloat16, float16, given 'int8'",
        ),
        ([], {}, "nothing to time: no models given"),
    ],
)
def test_bad_input_is_a_sentence(names, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        speed.measure(names, progress=False, **options)

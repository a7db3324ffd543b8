"""The harness of speed: turns and statistics on a made clock, forms, rows, and memory."""

import math

import pytest
import torch

import co3d
from co3d import report
from co3d.measure import bench, forms, gauges
from co3d.measure.bench import Subject
from co3d.measure.forms import EAGER, INSTALLED, ONNX, OPENVINO, OPTIMISED, TUNED, Case
from co3d.measure.gauges import Gauge
from co3d.measure.peers import Peer
from co3d.report import results, speedups


class Machine:
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

        return Subject({"batch": 1, "precision": "float32"}, period, work)

    def product(self):
        self.calls.append("product")
        self.now += 2.0 if self.calls.count("product") == 2 else 4.0


@pytest.fixture
def machine(monkeypatch):
    monkeypatch.setattr(bench, "REST", 0)
    monkeypatch.setattr(bench, "WARM", 0)
    return Machine()


def rows_of(machine, subjects, repeats, seconds=None):
    products = [Gauge("float32", 10**9, machine.product)]
    return bench.interleaved(subjects, repeats, seconds, products, machine.clock)


@pytest.mark.parametrize(("repeats", "in_a_turn"), [(3, 1), (5, 1), (10, 2)])
def test_subjects_take_turns_and_what_comes_first_is_not_timed(machine, repeats, in_a_turn):
    subjects = [machine.subject(name, [0.02] + [0.01] * in_a_turn) for name in "ab"]
    rows = rows_of(machine, subjects, repeats)
    turn = ["a"] * (1 + in_a_turn) + ["b"] * (1 + in_a_turn) + ["product"]
    assert machine.calls == turn * min(repeats, bench.TURNS)
    assert [row["repeats"] for row in rows] == [repeats] * 2
    assert all(row["latency_ms_p95"] == pytest.approx(10) for row in rows)
    assert rows[0]["gemm_peak_gmacs"] == 0.5 and rows[0]["copy_peak_gb_per_s"] is None


def test_statistics_by_hand():
    times = [(seconds, seconds) for seconds in (0.004, 0.001, 0.002, 0.003, 0.010)]
    row = bench._row({"batch": 2, "precision": "float32"}, times, {})
    assert row["latency_ms_median"] == pytest.approx(3)
    assert row["latency_ms_p5"] == pytest.approx(1 + 0.2)  # at rank 0.05 * 4 from 0
    assert row["latency_ms_p95"] == pytest.approx(4 + 0.8 * 6)
    # mean 4, squared deviations 0 9 4 1 36
    assert row["latency_ms_std"] == pytest.approx(math.sqrt(50 / 5))
    assert row["throughput_per_s"] == pytest.approx(2 / 0.003)


def test_a_slow_subject_is_measured_less_often(machine):
    subjects = [machine.subject("slow", [5.0]), machine.subject("fast", [0.01])]
    slow, fast = rows_of(machine, subjects, 50, seconds=2.0)
    assert (slow["repeats"], fast["repeats"]) == (bench.TURNS, 50)
    assert machine.calls.count("slow") == bench.TURNS + 1  # its caches are filled once


def test_a_strided_stream_is_timed_at_the_step_that_predicts_and_over_its_period(machine):
    subject = machine.subject("strided", [1.0, 2.0, 1.0, 8.0], period=4)
    (row,) = rows_of(machine, [subject], 3)
    assert row["latency_ms_median"] == 8000 and row["throughput_per_s"] == pytest.approx(1 / 12)


@torch.inference_mode()
@pytest.mark.parametrize("name", ["cox3d_mini", "coi3d_mini", "cor2plus1d_mini"])
def test_the_last_step_of_a_period_predicts_and_streams_have_states_of_their_own(name):
    model, frame = co3d.create(name), torch.zeros(1, 3, 48, 48)
    steps = bench.Steps(model, frame, model.warmup, streams=2)
    emits = [steps() is not None for _ in range(2 * model.stride)]
    assert emits == ([False] * (model.stride - 1) + [True]) * 2
    fed = model.warmup + 1 + 2 * model.stride
    _, state = model.steps(torch.zeros(1, 3, fed, 48, 48))
    assert steps.state_bytes() == co3d.nn.state_bytes(state)
    assert steps.states[0] is not steps.states[1]


def test_rows_fit_their_table_and_a_pair_is_built_together(tmp_path, monkeypatch):
    groups, threads, interleaved = [], torch.get_num_threads(), bench.interleaved

    def kept(subjects, *rest):
        groups.append([subject.facts["model"] for subject in subjects])
        return interleaved(subjects, *rest)

    monkeypatch.setattr(bench, "interleaved", kept)
    names = ["coi3d_mini", "slow_mini", "i3d_mini", "slow_mini"]
    rows, left_out = bench.measure(names, window=32, repeats=2, threads=1, progress=False)
    assert torch.get_num_threads() == threads and not left_out
    assert groups == [["coi3d_mini"] * 2 + ["i3d_mini"] * 2, ["slow_mini"] * 2]
    stream, clip = rows[0], rows[2]
    assert (stream["mode"], stream["window"], stream["stride"]) == ("stream", 32, 2)
    assert (clip["mode"], clip["window"], clip["state_mb"]) == ("clip", None, None)
    (file,) = speedups.save(rows, tmp_path, notebook="a test", seed=0)
    assert file.name.startswith("benchmark-") and file.name.endswith("-float32.csv")
    table = results.read("benchmark", tmp_path / "results")
    assert len(table) == 6 and (table["gemm_peak_gmacs"] > 0).all()
    watched = table[table["implementation"] == EAGER]
    assert (watched[["alloc_mb", "moved_mb", "copy_peak_gb_per_s"]] > 0).all(axis=None)


@pytest.mark.parametrize("name", ["cox3d_mini", "coi3d_mini", "slow_mini"])
def test_macs_of_a_row_are_those_of_the_models_table(name):
    table = report.read("models").set_index("model")
    rows = table[(table["image_size"] == 48) & (table["dense"] == 0)].loc[[name]].iloc[0]
    expected = rows["macs_clip"] if name == "slow_mini" else rows["macs_frame"] * rows["stride"]
    assert bench.macs(Case(name)) == expected


def test_streams_in_turn_and_clips_of_other_lengths_are_rows_of_deployment(tmp_path):
    subjects = [
        bench.subject(Case("cox3d_mini"), OPTIMISED, streams=3),
        bench.subject(Case("cox3d_mini", batch=3), OPTIMISED),
        bench.subject(Case("x3d_mini", 20)),
    ]
    rows = bench.interleaved(subjects, 2)
    assert [(row["batch"], row["streams"], row["window"]) for row in rows] == [
        *((1, 3, 16), (3, 3, 16), (1, 1, 20)),
    ]
    (path,) = speedups.save(rows, tmp_path, "deployment", notebook="a test", seed=0)
    assert len(path.read_text().splitlines()) == 4 and "deployment" in path.name


@torch.inference_mode()
def test_both_forms_of_a_peer_share_a_start_up_and_take_steps_of_their_own():
    plain, tuned = (bench.subject(Case("coi3d_mini"), form) for form in (INSTALLED, TUNED))
    one, two = plain.work.model, tuned.work.model
    assert one.state_bytes() == two.state_bytes() == 1e6 * plain.facts["state_mb"] > 0
    emits = [[subject.work() is not None for _ in range(4)] for subject in (plain, tuned)]
    assert emits == [[False, True, False, True]] * 2
    alone = Peer(Case("coi3d_mini").net("cpu"))  # its own start-up makes the same layouts
    for _ in range(40):
        alone.step(plain.work.frame)
    for own, taken in zip(alone._stateful(), one._stateful(), strict=True):
        assert own.state_buffer.shape == taken.state_buffer.shape
        assert own.state_buffer.stride() == taken.state_buffer.stride()


def test_what_cannot_run_here_is_left_out_with_its_reason(monkeypatch):
    find = forms.importlib.util.find_spec
    monkeypatch.setattr(
        forms.importlib.util, "find_spec", lambda name: None if name == "continual" else find(name)
    )
    monkeypatch.setattr(forms, "amx", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    kinds = {"float32": [EAGER, TUNED], "bfloat16": [EAGER, ONNX]}
    rows, left_out = bench.measure(["coslow_mini", "slow_mini"], forms=kinds, repeats=1,
                                   progress=False)  # fmt: skip
    assert {(row["implementation"], row["precision"]) for row in rows} == {(EAGER, "float32")}
    reasons = "\n".join(left_out)
    assert "tuned, float32 (coslow_mini): the package continual is not installed" in reasons
    assert "bfloat16 (coslow_mini, slow_mini): this CPU has no instructions" in reasons
    assert "onnxruntime, bfloat16" in reasons and "no convolution in bfloat16" in reasons
    assert forms.unavailable(OPENVINO, "float32", "cuda") == "exported files run on the CPU"
    with pytest.raises(ValueError, match="nothing to time: left out: co3d eager, bfloat16"):
        bench.measure(["coslow_mini"], forms={"bfloat16": [EAGER]}, progress=False)


def test_files_are_written_once_and_two_at_a_time(monkeypatch):
    pytest.importorskip("openvino")
    case = Case("coslow_mini", window=8)
    jobs = [(case, OPENVINO, "float32"), (Case("slow_mini"), OPENVINO, "float32")]
    paths = forms.exported(jobs)
    monkeypatch.setattr(forms, "export", None)
    assert forms.exported(jobs) == paths and [path.suffix for path in paths] == [".xml"] * 2
    model, frame = forms.build(case, OPENVINO, "float32", "cpu")
    assert (model.window, model.shape) == (8, tuple(frame.shape))


@pytest.mark.parametrize(
    ("names", "options", "sentence"),
    [
        (["coi3d_mini"], {"window": 9}, "coi3d_mini: .*multiple of 2"),
        (["x3d_mini"], {"repeats": 0}, "expected 1 or more repeats, threads and batch, given 0"),
        (["x3d_mini"], {"forms": {"float32": ["fast"]}}, "expected some of co3d eager.*'fast'"),
        ([], {}, "nothing to time: no models given"),
    ],
)
def test_bad_input_is_a_sentence(names, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        bench.measure(names, progress=False, **options)


def test_memory_by_hand():
    weight = torch.zeros(1000)

    def predict():
        a = weight + 1  # reads and writes 4000 bytes
        b = a * 2  # the same; a and b are there at once
        del a
        b.view(10, 100).add_(1)  # a view moves nothing, its operand is counted once

    assert gauges.memory_of(predict) == {"alloc_mb": 0.012, "moved_mb": 0.020}


def test_a_state_is_counted_once_when_it_is_kept_and_twice_when_it_is_made_anew():
    kept = torch.zeros(1000)
    assert gauges.memory_of(lambda: kept.add_(1))["alloc_mb"] == 0.004

    class Anew:
        state = torch.zeros(1000)

        def __call__(self):
            self.state = self.state + 1

    assert gauges.memory_of(Anew())["alloc_mb"] == 0.008

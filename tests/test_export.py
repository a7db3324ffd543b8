"""Exported nets give what torch gives; files say what they hold."""

import json

import numpy as np
import pytest
import torch
from nets import clip_net

import co3d
from co3d.data.transforms import Transform
from co3d.export import Runner, export
from co3d.measure.equivalence import calibrate

SIZE = 32
CO = [name for name in co3d.list_models() if name.startswith("co") and name.endswith("_mini")]
CLIPS = [name.removeprefix("co") for name in CO]
FORMATS = [".onnx", ".xml"]


def net_of(name, size=SIZE, **options):
    torch.manual_seed(0)
    net = co3d.create(name, **options)
    frames = max(net.spec.frames, net.window if net.spec.continual else 0)
    calibrate(net, torch.randn(2, 3, frames, size, size))
    return net


def agree(net, runner, frames, state=None, held=None, tolerance=3e-5):
    """Feeds both the same frames; logits come at the same ones and are equal. Gives both states."""
    for _ in range(frames):
        frame = torch.randn(runner.record.shape)
        expected, state = net.step(frame, state)
        given, held = runner.step(frame, held)
        assert (given is None) == (expected is None)
        if expected is not None:
            close(given, expected, tolerance)
    return state, held


def close(given, expected, tolerance=3e-5):
    limit = tolerance * expected.abs().max().item()
    torch.testing.assert_close(given, expected, rtol=0, atol=limit)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("options", [{}, {"dense": True}], ids=["phases", "dense"])
@pytest.mark.parametrize("name", CO)
def test_an_exported_step_equals_the_step_over_warm_up_reset_and_200_frames(
    tmp_path, name, options, suffix
):
    net = net_of(name, **options)
    files = export(net, tmp_path / f"net{suffix}", torch.randn(1, 3, SIZE, SIZE))
    assert sorted(files) == sorted(tmp_path.iterdir()) and files[0].name == f"net{suffix}"
    runner = Runner(files[0], threads=1)
    timing = ("receptive_field", "padding", "warmup", "stride", "window")
    assert all(getattr(runner, fact) == getattr(net, fact) for fact in timing)
    agree(net, runner, 200)
    agree(net, runner, net.warmup + net.stride + 1)  # from a new state on


@pytest.mark.parametrize("name", CO)
def test_internal_state_equals_the_step_and_is_forgotten_on_reset(tmp_path, name):
    net = net_of(name, dense=True)
    export(net, tmp_path / "net.xml", torch.randn(1, 3, SIZE, SIZE), state="internal")
    runner = Runner(tmp_path / "net.xml", threads=1)
    agree(net, runner, net.receptive_field + 20)
    agree(net, runner, net.warmup + 5)


@pytest.mark.parametrize("state", ["explicit", "internal"])
@pytest.mark.parametrize("name", ["cox3d_mini", "coslow_mini"])
def test_bfloat16_changes_probabilities_little(tmp_path, name, state):
    net = net_of(name)
    frame = torch.randn(1, 3, SIZE, SIZE)
    export(net, tmp_path / "net.xml", frame, precision="bfloat16", state=state)
    runner = Runner(tmp_path / "net.xml", threads=1)
    one, other, same, total = None, None, 0, 0
    for _ in range(net.receptive_field + 40):
        frame = torch.randn_like(frame)
        expected, one = net.step(frame, one)
        given, other = runner.step(frame, other)
        assert (given is None) == (expected is None)
        if expected is None:
            continue
        assert (given.softmax(1) - expected.softmax(1)).abs().max() < 0.02
        best, *_, second = expected[0].sort(descending=True).values[[0, 1]]
        if best - second > 0.05 * expected.abs().max():  # else rounding may turn them
            same, total = same + (given.argmax() == expected.argmax()).item(), total + 1
    assert total and same == total


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("name", CLIPS)
def test_an_exported_clip_net_equals_the_net(tmp_path, name, suffix):
    net = net_of(name)
    clip = torch.randn(2, 3, 32 if "fast" in name else net.spec.frames, SIZE, SIZE)
    export(net, tmp_path / f"net{suffix}", clip)
    runner = Runner(tmp_path / f"net{suffix}", threads=1)
    with torch.no_grad():
        for _ in range(2):
            clip = torch.randn_like(clip)
            close(runner(clip), net(clip))


@pytest.mark.parametrize("suffix", FORMATS)
def test_streams_of_one_runner_are_apart_and_can_be_forked(tmp_path, suffix):
    net = net_of("coi3d_mini")
    export(net, tmp_path / f"net{suffix}", torch.randn(2, 3, SIZE, SIZE))
    runner = Runner(tmp_path / f"net{suffix}", threads=1)
    first = agree(net, runner, 23)
    second = agree(net, runner, 8)
    first = agree(net, runner, 5, *first)
    agree(net, runner, 20, *second)
    fork = co3d.clone(first[1])
    agree(net, runner, 7, *first)
    agree(net, runner, 7, first[0], fork)
    assert co3d.nn.state_bytes(fork) == co3d.nn.state_bytes(first[1])


def test_a_stream_runs_an_exported_net(tmp_path):
    net = net_of("cox3d_mini")
    export(net, tmp_path / "net.onnx", torch.randn(1, 3, SIZE, SIZE))
    ours, theirs = co3d.Stream(net), co3d.Stream(Runner(tmp_path / "net.onnx", threads=1))
    for _ in range(2):
        for frame in torch.randn(net.warmup + 3, 1, 3, SIZE, SIZE):
            expected, given = ours(frame), theirs(frame)
        close(given, expected)
        ours.reset(), theirs.reset()


def test_openvino_runs_onnx_files_too(tmp_path):
    net = net_of("coi3d_mini")
    export(net, tmp_path / "net.onnx", torch.randn(1, 3, SIZE, SIZE))
    agree(net, Runner(tmp_path / "net.onnx", runtime="openvino", threads=1), net.warmup + 4)


def test_a_gate_over_a_window_and_a_long_window_are_exported(tmp_path):
    net = net_of("cox3d_mini", window=48, gate="window")
    export(net, tmp_path / "net.onnx", torch.randn(1, 3, SIZE, SIZE))
    agree(net, Runner(tmp_path / "net.onnx", threads=1), net.warmup + 20)


def test_a_nan_is_forgotten(tmp_path):
    net = net_of("cox3d_mini")
    export(net, tmp_path / "net.xml", torch.randn(1, 3, SIZE, SIZE))
    stream = co3d.Stream(Runner(tmp_path / "net.xml", threads=1))
    stream(torch.full((1, 3, SIZE, SIZE), torch.nan))
    for _ in range(net.receptive_field - 1):
        stream(torch.randn(1, 3, SIZE, SIZE))
    assert stream(torch.randn(1, 3, SIZE, SIZE)).isfinite().all()


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_says_what_it_holds(tmp_path, suffix):
    weights = clip_net(scores="sigmoid").weights
    net = net_of("coi3d_mini")
    net.weights = weights
    labels = [f"class {n} & <co>" for n in range(12)]
    export(net, tmp_path / f"net{suffix}", torch.randn(1, 3, SIZE, SIZE), labels=labels)
    record = Runner(tmp_path / f"net{suffix}", threads=1).record
    assert (record.model, record.version, record.classes) == ("coi3d_mini", co3d.__version__, 12)
    assert record.labels == tuple(labels) and record.shape == (1, 3, SIZE, SIZE)
    assert record.weights["sha256"] == weights.sha256 and record.scores == "sigmoid"
    assert record.transform["fps"] == net.spec.native_fps
    assert max(queue.first for queue in record.queues) < net.warmup
    runner = Runner(tmp_path / f"net{suffix}", threads=1)
    assert runner.transform == Transform(48, net.spec.mean, net.spec.std)
    logits = torch.randn(1, 12)
    torch.testing.assert_close(runner.scores(logits), logits.sigmoid())


def test_phases_share_their_weights_and_nothing_tells_of_the_machine(tmp_path):
    net = net_of("coslowfast_mini")
    for suffix in FORMATS:
        files = export(net, tmp_path / f"net{suffix}", torch.randn(1, 3, SIZE, SIZE))
        sizes = {file.name: file.stat().st_size for file in files}
        params = 4 * sum(p.numel() for p in net.parameters())
        assert sizes[files[-1].name] < 1.4 * params  # and what makes files of it begin at pages
        folder = str(tmp_path).encode()
        for file in files:
            data = file.read_bytes()
            assert folder not in data and b"/co3d/" not in data and b"site-packages" not in data


def test_onnxruntime_fuses_the_activations(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    export(net_of("coslow_mini"), tmp_path / "net.onnx", torch.randn(1, 3, SIZE, SIZE))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(tmp_path / "net.onnx", options, ["CPUExecutionProvider"])
    import onnx

    nodes = onnx.load(tmp_path / "optimised.onnx").graph.node
    kinds = {name: node.op_type for node in nodes for name in node.output}
    assert "FusedConv" in kinds.values() and "BatchNormalization" not in kinds.values()
    assert not any(n.op_type == "Relu" and kinds.get(n.input[0]) == "Conv" for n in nodes)


def test_the_onnx_file_runs_by_its_record_alone(tmp_path):
    """As a user of another language would: the rule in `Record`, and no code of ours."""
    ort = pytest.importorskip("onnxruntime")
    net = net_of("cox3d_mini")
    export(net, tmp_path / "net.onnx", torch.randn(1, 3, SIZE, SIZE))
    session = ort.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    record = json.loads(session.get_modelmeta().custom_metadata_map["co3d"])
    (phase,) = record["phases"]
    state = {
        q["name"]: [np.full(q["shape"], q["initial"], np.float32)] * q["length"]
        for q in record["queues"]
    }
    held = None
    for number in range(record["warmup"] + 5):
        frame = torch.randn(record["shape"])
        expected, held = net.step(frame, held)
        read = {f"state.{name}@{depth}": state[name][depth - 1] for name, depth in phase["reads"]}
        given = {"frame": frame.numpy(), "counter": np.array(number), **read}
        logits, *written = session.run(None, given)
        for queue in record["queues"]:
            new = written[phase["writes"].index(queue["name"])]
            state[queue["name"]] = [new, *state[queue["name"]]][: queue["length"]]
    close(torch.from_numpy(logits), expected)

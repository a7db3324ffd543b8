"""Exported nets give what torch gives; files say what they hold."""

import copy
import json

import numpy as np
import pytest
import torch
from nets import clip_net, net_of

import co3d
from co3d.data.transforms import Transform
from co3d.deploy import Runner, export
from co3d.measure.equivalence import calibrate

SIZE = 32
MINIS = [f"{name}_mini" for name in ("cox3d", "coslow", "coi3d", "coslowfast", "cor2plus1d")]
FORMATS = [".onnx", ".xml"]


def close(given, expected, tolerance=3e-5):
    limit = tolerance * expected.abs().max().item()
    torch.testing.assert_close(given, expected, rtol=0, atol=limit)


def agree(net, runner, frames, states=(None, None), tolerance=3e-5):
    """Feeds both the same frames; logits come at the same ones and are equal. Gives both states."""
    state, exported_state = states
    for _ in range(frames):
        frame = torch.randn(runner.shape)
        expected, state = net.step(frame, state)
        given, exported_state = runner.step(frame, exported_state)
        assert (given is None) == (expected is None)
        if expected is not None:
            close(given, expected, tolerance)
    return state, exported_state


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("name", MINIS)
def test_an_exported_step_equals_the_step_over_warm_up_reset_and_200_frames(tmp_path, name, suffix):
    net = net_of(name, SIZE)
    files = export(net, tmp_path / f"net{suffix}", torch.randn(1, 3, SIZE, SIZE))
    assert sorted(files) == sorted(tmp_path.iterdir()) and files[0].name == f"net{suffix}"
    runner = Runner(files[0], threads=1)
    timing = ("receptive_field", "padding", "warmup", "stride", "window")
    assert all(getattr(runner, fact) == getattr(net, fact) for fact in timing)
    again = net.warmup + net.stride + 1
    agree(net, runner, 200 - again)
    agree(net, runner, again)  # from a new state on


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("name", [name.removeprefix("co") for name in MINIS])
def test_an_exported_clip_net_equals_the_net(tmp_path, name, suffix):
    net = net_of(name, SIZE)
    clip = torch.randn(2, 3, 32 if "fast" in name else net.spec.frames, SIZE, SIZE)
    export(net, tmp_path / f"net{suffix}", clip)
    runner = Runner(tmp_path / f"net{suffix}", threads=1)
    with torch.no_grad():
        for _ in range(2):
            clip = torch.randn_like(clip)
            close(runner(clip), net(clip))


def tree():
    """A net of torch layers, of a user who knows nothing of streams."""
    nn = torch.nn
    first = nn.Sequential(nn.Conv3d(3, 8, 3, padding=1), nn.BatchNorm3d(8), nn.GELU())
    pool = nn.MaxPool3d((3, 2, 2), (2, 2, 2), (1, 0, 0))
    main = nn.Sequential(nn.Conv3d(8, 8, (3, 1, 1), padding=(1, 0, 0)), nn.Hardswish())
    residual = co3d.nn.Residual(co3d.continual(main), None, co3d.nn.ReLU())
    branches = (nn.Conv3d(8, 4, (5, 1, 1), padding=(2, 0, 0)), nn.AvgPool3d(3, 1, 1))
    both = co3d.nn.Parallel(*map(co3d.continual, branches), join="cat")
    last = [nn.BatchNorm3d(12), nn.Sigmoid(), nn.AvgPool3d((4, 1, 1), 1)]
    head = [nn.AdaptiveAvgPool3d((None, 1, 1))]
    parts = [co3d.continual(part) for part in (first, pool)]
    parts += [residual, both, *(co3d.continual(part) for part in last + head)]
    net = co3d.nn.StreamNet(
        co3d.nn.Sequential(*parts, co3d.nn.RunningWindow(4)), co3d.nn.Linear(12, 5)
    )
    return net.eval()


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_tree_of_a_user_is_exported(tmp_path, suffix):
    torch.manual_seed(0)
    net = tree()
    calibrate(net, torch.randn(2, 3, 32, SIZE, SIZE))
    export(net, tmp_path / f"net{suffix}", torch.randn(1, 3, SIZE, SIZE))
    agree(net, Runner(tmp_path / f"net{suffix}", threads=1), net.receptive_field + 20)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_phase_may_have_nothing_to_do_and_a_net_no_padding(tmp_path, suffix):
    nn, channels = co3d.nn, 3
    for layers in ([nn.Subsample(2)], [nn.Delay(2), nn.Conv3d(3, 4, 3), nn.Delay(1), nn.Delay(3)]):
        net = nn.StreamNet(
            nn.Sequential(*layers, nn.RunningWindow(3)), nn.Linear(channels, 5)
        ).eval()
        export(net, tmp_path / f"net{suffix}", torch.randn(1, 3, 8, 8))
        agree(net, Runner(tmp_path / f"net{suffix}", threads=1), net.receptive_field + 6)
        channels = 4


def test_a_layer_without_an_exported_form_is_named(tmp_path):
    net = co3d.create("cox3d_mini")
    next(part for part in net.modules() if isinstance(part, co3d.nn.SqueezeExcite)).gate = "clip"
    with pytest.raises(TypeError, match=r"gates over single frames, given gate='clip' res2__"):
        export(net, tmp_path / "net.onnx", torch.zeros(1, 3, SIZE, SIZE))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["cox3d_mini", "coi3d_mini"])
def test_bfloat16_changes_probabilities_little(tmp_path, name):
    net = net_of(name, SIZE)
    frame = torch.randn(1, 3, SIZE, SIZE)
    export(net, tmp_path / "net.xml", frame, precision="bfloat16")
    runner = Runner(tmp_path / "net.xml", threads=1)
    state, exported_state, same, total = None, None, 0, 0
    for _ in range(net.receptive_field + 40):
        frame = torch.randn_like(frame)
        expected, state = net.step(frame, state)
        given, exported_state = runner.step(frame, exported_state)
        assert (given is None) == (expected is None)
        if expected is None:
            continue
        assert (given.softmax(1) - expected.softmax(1)).abs().max() < 0.02
        best, second = expected[0].sort(descending=True).values[:2]
        if best - second > 0.05 * expected.abs().max():  # else rounding may turn them
            same, total = same + (given.argmax() == expected.argmax()).item(), total + 1
    assert total and same == total


@pytest.mark.parametrize("suffix", FORMATS)
def test_streams_of_one_runner_are_apart_and_can_be_forked(tmp_path, suffix):
    net = net_of("coi3d_mini", SIZE)
    export(net, tmp_path / f"net{suffix}", torch.randn(2, 3, SIZE, SIZE))
    runner = Runner(tmp_path / f"net{suffix}", threads=1)
    first = agree(net, runner, 23)
    second = agree(net, runner, 8)
    first = agree(net, runner, 5, first)
    second = agree(net, runner, 20, second)
    forks = [co3d.clone(first[1]), copy.deepcopy(first[1])]
    agree(net, runner, 7, first)
    for fork in forks:
        assert co3d.nn.state_bytes(fork) == co3d.nn.state_bytes(second[1])
        agree(net, runner, 7, (first[0], fork))


def test_a_stream_runs_an_exported_net_and_a_nan_is_forgotten(tmp_path):
    net = net_of("cox3d_mini", window=32)
    export(net, tmp_path / "net.xml", torch.randn(1, 3, SIZE, SIZE))
    runner = Runner(tmp_path / "net.xml", threads=1)
    clip = torch.randn(1, 3, net.receptive_field + 1, SIZE, SIZE)
    expected, _ = runner.steps(clip)
    stream = co3d.Stream(runner)
    for _ in range(2):
        stream(torch.full((1, 3, SIZE, SIZE), torch.nan))
        for frame in clip[:, :, 1:].unbind(2):
            logits = stream(frame)
        close(logits, expected[:, :, -1])
        stream.reset()


def test_openvino_runs_onnx_files_too(tmp_path):
    net = net_of("coi3d_mini", SIZE)
    export(net, tmp_path / "net.onnx", torch.randn(1, 3, SIZE, SIZE))
    agree(net, Runner(tmp_path / "net.onnx", runtime="openvino", threads=1), net.warmup + 4)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_says_what_it_holds_and_nothing_of_the_machine(tmp_path, suffix):
    net = net_of("coi3d_mini", SIZE)
    net.weights = clip_net(scores="sigmoid").weights
    labels = [f"class {n} & <co>" for n in range(12)]
    files = export(net, tmp_path / f"net{suffix}", torch.randn(1, 3, SIZE, SIZE), labels=labels)
    runner = Runner(tmp_path / f"net{suffix}", threads=1)
    record = runner.record
    assert (record.model, record.version, record.classes) == ("coi3d_mini", co3d.__version__, 12)
    assert record.labels == tuple(labels) and record.shape == (1, 3, SIZE, SIZE)
    assert record.weights["sha256"] == net.weights.sha256 and record.scores == "sigmoid"
    assert record.transform["fps"] == net.spec.native_fps
    assert runner.transform == Transform(48, net.spec.mean, net.spec.std)
    logits = torch.randn(1, 12)
    torch.testing.assert_close(runner.scores(logits), logits.sigmoid())
    params = sum(p.numel() * p.element_size() for p in net.parameters())
    assert files[-1].stat().st_size < 1.4 * params  # the phases share it
    for data in (file.read_bytes() for file in files):
        for place in (str(tmp_path).encode(), b"/co3d/", b"site-packages", b"co3d.deploy"):
            assert place not in data


def test_the_onnx_file_runs_by_its_record_alone(tmp_path):
    """As a user of another language would: the rule in `Record`, and no code of ours."""
    ort = pytest.importorskip("onnxruntime")
    net = net_of("cox3d_mini", SIZE)
    export(net, tmp_path / "net.onnx", torch.randn(1, 3, SIZE, SIZE))
    session = ort.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    record = json.loads(session.get_modelmeta().custom_metadata_map["co3d"])
    outputs = [port.name for port in session.get_outputs()]
    state = {
        f"state.{q['name']}": [np.full(q["shape"], q["initial"], np.float32)] * q["length"]
        for q in record["queues"]
    }
    stream = co3d.Stream(net)
    for number in range(record["warmup"] + 5):
        frame = torch.randn(record["shape"])
        expected = stream(frame)
        given = {"frame": frame.numpy(), "counter": np.array(number)}
        for port in session.get_inputs():
            if port.name not in given:
                name, depth = port.name.split("@")
                given[port.name] = state[name][int(depth) - 1]
        results = dict(zip(outputs, session.run(None, given), strict=True))
        logits = results.pop("logits")
        for name, x in results.items():
            state[name] = [x, *state[name][:-1]]
    close(torch.from_numpy(logits), expected)

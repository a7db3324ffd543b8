"""Exported nets give what torch gives; files say what they hold. Steps: test_deploy_forms.py."""

import json

import numpy as np
import pytest
import torch
from nets import SIZE, assert_same, exported, frames_of, logits_of, net_of

import co3d
from co3d.data.transforms import Transform
from co3d.deploy import Runner, export
from co3d.measure.equivalence import calibrate
from co3d.nn import Delay, Linear, RunningWindow, Sequential, StreamNet, Subsample

pytestmark = pytest.mark.xdist_group("exports")
FORMATS = [".onnx", ".xml"]
FRAME = torch.zeros(1, 3, SIZE, SIZE)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(
    "name",
    [
        *("x3d_mini", "slowfast_mini"),
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("slow_mini", "i3d_mini", "r2plus1d_mini")
        ),
    ],
)
def test_an_exported_clip_net_equals_the_net(exports, name, suffix):
    net = net_of(name)
    clip = torch.randn(2, 3, 32 if "fast" in name else net.spec.frames, SIZE, SIZE)
    runner = Runner(exported(net, clip, exports, suffix), threads=1)
    for x in (clip, clip.flip(2)):
        with torch.no_grad():
            assert_same([runner(x)], [net(x)])


def tree():
    """A net of torch layers, of a user who knows nothing of streams."""
    nn = torch.nn
    main = nn.Sequential(nn.Conv3d(8, 8, (3, 1, 1), padding=(1, 0, 0)), nn.Hardswish())
    branches = (nn.Conv3d(8, 4, (5, 1, 1), padding=(2, 0, 0)), nn.AvgPool3d(3, 1, 1))
    parts = [
        nn.Sequential(nn.Conv3d(3, 8, 3, padding=1), nn.BatchNorm3d(8), nn.GELU()),
        nn.MaxPool3d((3, 2, 2), (2, 2, 2), (1, 0, 0)),
        co3d.nn.Residual(co3d.continual(main), None, co3d.nn.ReLU()),
        co3d.nn.Parallel(*map(co3d.continual, branches), join="cat"),
        *(nn.BatchNorm3d(12), nn.Sigmoid(), nn.AvgPool3d((4, 1, 1), 1)),
        nn.AdaptiveAvgPool3d((None, 1, 1)),
    ]
    net = StreamNet(Sequential(*map(co3d.continual, parts), RunningWindow(4)), Linear(12, 5))
    return calibrate(net.eval(), torch.randn(2, 3, 32, 12, 12))


def short(*layers, channels=3):
    return StreamNet(Sequential(*layers, RunningWindow(3)), Linear(channels, 5)).eval()


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(
    "make",
    [
        tree,
        lambda: short(Subsample(2)),  # a phase has nothing to do
        lambda: short(Delay(2), co3d.nn.Conv3d(3, 4, 3), Delay(1), Delay(3), channels=4),
    ],
)
def test_nets_of_a_user_are_exported(tmp_path, make, suffix):
    net = make()
    clip = frames_of(net.receptive_field + 12, size=12)
    export(net, tmp_path / f"net{suffix}", clip[0])
    runner = Runner(tmp_path / f"net{suffix}", threads=1)
    assert_same(logits_of(runner, clip)[0], logits_of(net, clip)[0])


def test_a_layer_without_an_exported_form_is_named(tmp_path):
    net = co3d.create("cox3d_mini")
    next(part for part in net.modules() if isinstance(part, co3d.nn.SqueezeExcite)).gate = "clip"
    with pytest.raises(TypeError, match=r"gates over single frames, given gate='clip' res2__"):
        export(net, tmp_path / "net.onnx", FRAME)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_says_what_it_holds_and_nothing_of_the_machine(exports, suffix):
    net = net_of("coi3d_mini")
    path = exported(net, FRAME, exports, suffix)
    runner = Runner(path, threads=1)
    record = runner.record
    assert (record.model, record.version, record.classes) == ("coi3d_mini", co3d.__version__, 12)
    assert record.labels == tuple(f"class {n} & <co>" for n in range(12))
    assert record.shape == (1, 3, SIZE, SIZE)
    assert record.weights["sha256"] == "0" * 64 and record.scores == "sigmoid"
    assert record.transform["fps"] == net.spec.native_fps
    assert runner.transform == Transform(48, net.spec.mean, net.spec.std)
    logits = torch.randn(1, 12)
    torch.testing.assert_close(runner.scores(logits), logits.sigmoid())
    files = [path] if suffix == ".onnx" else [path, path.with_suffix(".bin")]
    params = sum(p.numel() * p.element_size() for p in net.parameters())
    assert files[-1].stat().st_size < 1.4 * params  # the phases share it
    for data in (file.read_bytes() for file in files):
        for place in (str(exports).encode(), b"/co3d/", b"site-packages", b"co3d.deploy"):
            assert place not in data


def test_onnxruntime_fuses_the_activations(exports, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    import onnx

    path = exported(net_of("coi3d_mini"), FRAME, exports, ".onnx")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    nodes = onnx.load(tmp_path / "optimised.onnx").graph.node
    kinds = {name: node.op_type for node in nodes for name in node.output}
    assert "FusedConv" in kinds.values() and "BatchNormalization" not in kinds.values()
    assert not any(n.op_type == "Relu" and kinds.get(n.input[0]) == "Conv" for n in nodes)


def test_the_onnx_file_runs_by_its_record_alone(exports):
    """As a user of another language would: the rule in `Record`, and no code of ours."""
    ort = pytest.importorskip("onnxruntime")
    net = net_of("cox3d_mini")
    path = exported(net, FRAME, exports, ".onnx")
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    record = json.loads(session.get_modelmeta().custom_metadata_map["co3d"])
    outputs = [port.name for port in session.get_outputs()]
    state = {
        f"state.{q['name']}": [np.full(q["shape"], q["initial"], np.float32)] * q["length"]
        for q in record["queues"]
    }
    clip = frames_of(record["warmup"] + 5)
    for number, frame in enumerate(clip):
        given = {"frame": frame.numpy(), "counter": np.array(number)}
        for port in session.get_inputs():
            if port.name not in given:
                name, depth = port.name.split("@")
                given[port.name] = state[name][int(depth) - 1]
        results = dict(zip(outputs, session.run(None, given), strict=True))
        logits = results.pop("logits")
        for name, x in results.items():
            state[name] = [x, *state[name][:-1]]
    assert_same([torch.from_numpy(logits)], logits_of(net, clip)[0][-1:])

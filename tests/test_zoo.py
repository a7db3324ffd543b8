"""The zoo: exact sizes and stream constants, and every net's stream equal to its clip net."""

import pytest
import torch
from nets import calibrate, run
from safetensors.torch import load_file, save_file

import co3d
from co3d.measure import complexity
from co3d.zoo import checkpoints

# name, window: receptive field, padding, warm-up (paper, table in section 4.3, and derived)
CONSTANTS = {
    ("cox3d_xs", 4): (60, 28, 31),
    ("cox3d_s", 13): (69, 28, 40),
    ("cox3d_s", 64): (120, 28, 91),
    ("cox3d_m", 16): (72, 28, 43),
    ("cox3d_m", 64): (120, 28, 91),
    ("cox3d_l", 16): (130, 57, 72),
    ("cox3d_l", 64): (178, 57, 120),
    ("cox3d_mini", 16): (32, 8, 23),
    ("coslow_8x8_r50", 8): (26, 9, 16),
    ("coslow_8x8_r50", 64): (82, 9, 72),
    ("coi3d_8x8_r50", 8): (42, 17, 24),
    ("coi3d_8x8_r50", 64): (98, 17, 80),
    # Not in the paper: derived from the architectures.
    ("coslowfast_8x8_r50", 32): (125, 48, 76),
    ("coslowfast_4x16_r50", 32): (191, 83, 107),
    ("cor2plus1d_18", 8): (109, 54, 54),
    ("cor2plus1d_18", 16): (117, 54, 62),
}
STRIDES = {"coi3d": 2, "coslowfast_8x8": 4, "coslowfast_4x16": 8, "cor2plus1d": 8}
# Conv and linear MACs of a clip and a step, results/paper/flops_exact.csv
MACS = {
    "x3d_xs": (605_256_512, 152_711_312),
    "x3d_s": (1_962_892_112, 152_711_312),
    "x3d_m": (4_732_468_736, 297_525_776),
    "x3d_l": (18_367_710_176, 1_149_881_456),
}
PARAMS = {
    "x3d_xs": 3_794_322,
    "x3d_s": 3_794_322,
    "x3d_m": 3_794_322,
    "x3d_l": 6_153_432,
    "slow_8x8_r50": 32_454_096,
    "i3d_8x8_r50": 28_043_472,
    "slowfast_4x16_r50": 34_480_216,
    "slowfast_8x8_r50": 34_566_488,
    "r2plus1d_18": 31_505_325,
}


@pytest.mark.parametrize(("name", "window"), CONSTANTS)
def test_stream_constants(name, window):
    model = co3d.create(name, window=window)
    assert (model.receptive_field, model.padding, model.warmup) == CONSTANTS[name, window]
    stride = next((n for key, n in STRIDES.items() if name.startswith(key)), 1)
    assert model.window == window and model.stride == stride
    dense = co3d.create(name, window=window, dense=True)
    assert dense.stride == 1 and dense.window == window
    assert (dense.receptive_field, dense.padding, dense.warmup) == CONSTANTS[name, window]


def test_default_window_is_the_clip_length():
    for name in co3d.list_models():
        if co3d.spec(name).continual:
            assert co3d.create(name).window == co3d.spec(name).frames


@pytest.mark.parametrize("name", co3d.list_models())
def test_parameters_are_exact(name):
    model, record = co3d.create(name), co3d.spec(name)
    assert sum(p.numel() for p in model.parameters()) == record.n_params
    assert record.n_params == PARAMS.get(record.weights, record.n_params)
    assert not model.training
    more = co3d.create(name, num_classes=record.num_classes + 1)
    features = model.classifier.in_features
    assert sum(p.numel() for p in more.parameters()) == record.n_params + features + 1


@pytest.mark.parametrize("name", MACS)
def test_macs_equal_the_exact_counts(name):
    record = co3d.spec(name)
    clip = torch.zeros(1, 3, record.frames, record.image_size, record.image_size)
    assert complexity.macs_clip(co3d.create(name), clip) == MACS[name][0]
    model = co3d.create(f"co{name}")
    assert complexity.macs_step(model, clip[:, :, 0]) == MACS[name][1]
    assert complexity.macs_frame(model, clip[:, :, 0]) == MACS[name][1]


@pytest.mark.parametrize("name", ["cox3d_mini", "cox3d_xs", "cox3d_s", "cox3d_l"])
def test_streams_equal_clips(name):
    """float64 at 1e-10 of the largest logit; the weights make time matter first."""
    torch.manual_seed(0)
    frames = 12 if name == "cox3d_l" else 20
    model = co3d.create(name, window=4).double()
    clip = torch.randn(2, 3, frames, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        calibrate(model, clip)
        whole = model(clip)
        scale = float(whole.abs().max())
        assert (model(clip.flip(2)) - whole).abs().max() > 0.05 * scale
        streamed = run(model, clip, [1, 3, 2])
    torch.testing.assert_close(streamed[:, :, -1], whole, rtol=0, atol=1e-10 * scale)


@torch.no_grad()
def test_steady_stream_equals_the_unpadded_net_in_both_precisions():
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
        torch.manual_seed(0)
        model = co3d.create("cox3d_s", window=4).to(dtype)
        clip = torch.randn(1, 3, model.receptive_field + 3, 32, 32, dtype=dtype)
        calibrate(model, clip)
        y = run(model, clip, [7], flush=False)[:, :, -1]
        expected = model(clip[:, :, -model.receptive_field :], pad=False)
        scale = float(expected.abs().max())
        torch.testing.assert_close(y, expected, rtol=0, atol=tolerance * scale)
        first = run(model, clip, [7], flush=False)[:, :, 0]
        seen = clip[:, :, : model.warmup + 1]
        assert (first - model(seen)).abs().max() > 1e-3 * scale, "the first output equals neither"


@torch.no_grad()
def test_native_window_on_a_clip_is_the_global_pool_of_the_regular_net():
    """Equal but for the gate: with the frame gate in both, logits agree."""
    torch.manual_seed(0)
    regular = co3d.create("x3d_mini").double()
    clip = torch.randn(2, 3, 16, 32, 32, dtype=torch.float64)
    calibrate(regular, clip)
    twin = co3d.continual(regular, gate="frame", window=16)
    assert (twin(clip) - regular(clip)).abs().max() > 1e-3, "the gate makes a difference"
    for module in regular.modules():
        if isinstance(module, co3d.nn.SqueezeExcite):
            module.gate = "frame"
    torch.testing.assert_close(twin(clip), regular(clip), rtol=0, atol=1e-10)


def test_unknown_names_list_the_nearest():
    with pytest.raises(ValueError, match="such as cox3d_m.* given 'cox3d-m'"):
        co3d.create("cox3d-m")
    with pytest.raises(ValueError, match="given 'resnet'"):
        co3d.spec("resnet")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "x3d_s", "window": 64}, "no window for x3d_s"),
        ({"name": "cox3d_s", "window": 0}, "window of 1 or more frames, given 0"),
        ({"name": "coi3d_8x8_r50", "window": 9}, "AdaptiveAvgPool3d at body.pool.*multiple of 2"),
        ({"name": "coslow_mini", "gate": "window"}, "no gate for coslow_mini"),
        ({"name": "slow_mini", "dense": True}, "no dense for slow_mini"),
        ({"name": "x3d_s", "num_classes": 0}, "num_classes of 1 or more, given 0"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        co3d.create(**options)


def _saved(path, name="x3d_mini"):
    model = co3d.create(name)
    checkpoints.save(model, path, training_data="made", source="a test", licence="none")
    return model


@torch.no_grad()
def test_saved_weights_serve_both_twins(tmp_path):
    path = tmp_path / "w.safetensors"
    saved = _saved(path)
    clip = torch.randn(1, 3, 16, 48, 48)
    regular, transform = co3d.load("x3d_mini", path)
    torch.testing.assert_close(regular(clip), saved(clip))
    assert transform == co3d.Transform(48, (0.45,) * 3, (0.225,) * 3)
    assert regular.weights.training_data == "made" and len(regular.weights.sha256) == 64
    stream, _ = co3d.load("cox3d_mini", str(path), window=32)
    assert torch.equal(stream.body.conv5.conv.weight, saved.body.conv5.conv.weight)
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def _changed(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"model": "x3d_mini"})


def _nan(tensors):
    tensors["classifier.bias"][0] = float("nan")


def _pop(tensors):
    tensors["classifier.other"] = tensors.pop("classifier.bias")


def _reshape(tensors):
    tensors["classifier.bias"] = torch.zeros(13)


def _halve(tensors):
    tensors["classifier.bias"] = tensors["classifier.bias"].half()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:5000]), "is not a whole safetensors file"),
        (lambda p: p.write_text("<html>not found</html>"), "is not a whole safetensors file"),
        (lambda p: _changed(p, _nan), "not finite, in classifier.bias"),
        (lambda p: _changed(p, _pop), "missing classifier.bias; unexpected classifier.other"),
        (lambda p: _changed(p, _reshape), r"expected \(12,\) for classifier.bias, given \(13,\)"),
        (lambda p: _changed(p, _halve), "other types .* classifier.bias is torch.float16"),
        (lambda p: _saved(p, "x3d_xs"), "expected weights of x3d_mini, given those of x3d_xs"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, spoil, words):
    path = tmp_path / "w.safetensors"
    _saved(path)
    spoil(path)
    with pytest.raises(ValueError, match=words):
        co3d.load("x3d_mini", path)


def test_weights_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights file"):
        co3d.load("x3d_mini", tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="expected a .safetensors file or weights that come with"):
        co3d.load("cox3d_m", "kinetics400")

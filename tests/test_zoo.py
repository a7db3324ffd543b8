"""The zoo: exact sizes and stream constants, and every net's stream equal to its clip net."""

import json
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import torch
from nets import run
from torch.utils.flop_counter import FlopCounterMode

import co3d
from co3d.measure.equivalence import calibrate
from co3d.paths import repo_root
from co3d.zoo import specs

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
# Conv and linear MACs of a clip and a step, results/paper/flops_exact.csv (SlowFast, R(2+1)D
# streams and XS: counted by us)
MACS = {
    "x3d_xs": (605_256_512, 152_711_312),
    "x3d_s": (1_962_892_112, 152_711_312),
    "x3d_m": (4_732_468_736, 297_525_776),
    "x3d_l": (18_367_710_176, 1_149_881_456),
    "slow_8x8_r50": (54_518_382_592, 6_815_514_624),
    "i3d_8x8_r50": (28_407_660_544, 5_613_305_856),
    # Not published: the steps of the last three, and the clips of SlowFast.
    "r2plus1d_18": (40_519_080_960, 4_797_667_008),
    "slowfast_4x16_r50": (36_099_198_976, 4_972_875_776),
    "slowfast_8x8_r50": (65_708_888_064, 6_611_800_064),
}


def test_published_figures_are_those_of_the_table():
    table = pd.read_csv(repo_root() / "results" / "paper" / "kinetics400_published.csv")
    printed = {
        (row.model, row.frames if row.mode == "clip" else row.window): row.gflops_per_prediction
        for row in table[table["model"] != "rcu"].itertuples()
    }
    ours = {
        (name, published.frames or published.window): published.gflops
        for name in co3d.list_models()
        for published in co3d.spec(name).published
    }
    assert ours == printed


@pytest.mark.parametrize(("name", "window"), CONSTANTS)
def test_stream_constants(name, window):
    model = co3d.create(name, window=window)
    assert (model.receptive_field, model.padding, model.warmup) == CONSTANTS[name, window]
    stride = next((n for key, n in STRIDES.items() if name.startswith(key)), 1)
    assert model.window == window and model.stride == stride
    dense = co3d.create(name, window=window, dense=True)
    assert dense.stride == 1 and dense.window == window
    assert (dense.receptive_field, dense.padding, dense.warmup) == CONSTANTS[name, window]


@pytest.mark.parametrize("name", co3d.list_models())
def test_defaults_and_parameters(name):
    model, record = co3d.create(name), co3d.spec(name)
    assert not model.training
    assert not record.continual or model.window == record.frames
    assert sum(p.numel() for p in model.parameters()) == record.n_params
    more = co3d.create(name, num_classes=record.num_classes + 1)
    features = model.classifier.in_features
    assert sum(p.numel() for p in more.parameters()) == record.n_params + features + 1


def executed(model, *args):
    """MACs by torch's own count, on tensors without memory, and what the call returns."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        result = model(*args)
    return counter.get_total_flops() // 2, result


@pytest.mark.parametrize("name", MACS)
def test_macs_equal_the_exact_counts(name):
    """The paper's count of a step is the largest of a period; the mean is what a clip costs."""
    record, (clip_macs, step_macs) = co3d.spec(name), MACS[name]
    clip = torch.zeros(1, 3, record.frames, *[record.image_size] * 2, device="meta")
    assert executed(co3d.create(name).to("meta"), clip)[0] == clip_macs
    model = co3d.create(f"co{name}").to("meta")
    seen = clip[:, :, :1].expand(-1, -1, model.receptive_field, -1, -1)
    state, counts = model.steps(seen)[1], []
    for _ in range(model.stride):
        macs, (_, state) = executed(model.step, clip[:, :, 0], state)
        counts.append(macs)
    assert step_macs == max(counts)
    if name.startswith("x3d"):  # whose gates work once per frame in the place of once per clip
        assert counts == [step_macs]
    else:
        head = model.classifier.weight.numel()
        per_frame = (clip_macs - head) // record.frames
        assert sum(counts) == per_frame * model.stride + head


@pytest.mark.parametrize("name", MACS)
def test_parameters_have_the_published_shapes(name):
    """As in the state dicts that the authors' code builds (SlowFast at 287ec00, torchvision)."""
    ours = Counter("x".join(map(str, p.shape)) for p in co3d.create(name).parameters())
    path = Path(__file__).parent / "fixtures/parameter_shapes.json"
    assert ours == Counter(json.loads(path.read_text())[name])


CO = [name for name in co3d.list_models() if co3d.spec(name).continual]


def video(model, frames, batch=1):
    """In the precision of the model, in as few pixels as its strides leave sense in."""
    dtype = next(model.parameters()).dtype
    size = 16 if isinstance(model.spec.architecture, specs.R2Plus1D) else 32
    return torch.randn(batch, 3, frames, size, size, dtype=dtype)


def calibrated(model, frames):
    """In place; two videos of other contrast give the statistics."""
    contrast = torch.tensor([0.5, 2.0]).view(2, 1, 1, 1, 1)
    clip = video(model, frames, batch=2)
    return calibrate(model, contrast.to(clip.dtype) * clip)


def near(actual, expected, scale, tolerance=1e-10):
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance * scale)


@pytest.fixture(scope="module", params=CO)
@torch.no_grad()
def streamed(request):
    """A continual net in float64, a clip, the columns of its stream, and their scale."""
    torch.manual_seed(0)
    model = co3d.create(request.param).double()
    calibrated(model, max(24, model.window + 8))
    clip = video(model, model.receptive_field + model.stride + 1)
    columns = model.steps(clip, end=True)[0]
    scale = float(columns.abs().max())
    reversal = (model(clip.flip(2)) - columns[:, :, -1]).abs().max()
    assert reversal > 0.05 * scale, "time must matter, or nothing below means much"
    return model, clip, columns, scale


@torch.no_grad()
def test_streams_equal_clips(streamed):
    """In any chunks, column by column, and the last one is what the clip call gives."""
    model, clip, columns, scale = streamed
    assert columns.shape[2] == (clip.shape[2] + model.timing.surplus) // model.stride + 1
    near(run(model, clip, [1, 1, 5, 23]), columns, scale)
    near(model.classifier(model.body(clip).flatten(2)), columns, scale)
    near(model(clip), columns[:, :, -1], scale)


@torch.no_grad()
def test_steady_streams_equal_the_unpadded_net(streamed):
    model, clip, columns, scale = streamed
    emitted = model.steps(clip)[0].shape[2]
    assert emitted == (clip.shape[2] - model.warmup - 1) // model.stride + 1
    start = (emitted - 1) * model.stride - model.padding
    assert 0 < start <= clip.shape[2] - model.receptive_field
    seen = clip[:, :, start : start + model.receptive_field]
    near(columns[:, :, emitted - 1], model(seen, pad=False), scale)


@torch.no_grad()
def test_the_first_output_comes_after_the_warm_up_and_equals_neither(streamed):
    model, clip, columns, scale = streamed
    y, state = model.steps(clip[:, :, : model.warmup])
    assert y is None
    first, _ = model.step(clip[:, :, model.warmup], state)
    near(first, columns[:, :, 0], scale)
    padded = model(clip[:, :, : model.warmup + 1])
    unpadded = model(clip[:, :, : model.receptive_field], pad=False)
    for other in (padded, unpadded):
        assert (first - other).abs().max() > 1e-3 * scale


@torch.no_grad()
def test_strided_predictions_are_among_the_dense_ones(streamed):
    model, clip, columns, scale = streamed
    dense = co3d.continual(model, dense=True)
    assert dense.stride == 1 and dense.window == model.window
    if model.stride == 1:
        assert repr(dense) == repr(model)
        return
    every = run(dense, clip, [1, 30])
    assert every.shape[2] == clip.shape[2] + model.timing.surplus + 1
    near(every[:, :, :: model.stride], columns, scale)
    last = dense.steps(clip)[0][:, :, -1]
    near(last, model(clip[:, :, -model.receptive_field :], pad=False), scale)


FLOAT32 = {
    **dict.fromkeys(("coslow_8x8_r50", "coi3d_8x8_r50", "coslowfast_8x8_r50"), 1e-4),
    **{"cor2plus1d_18": 1e-4, "cox3d_s": 1e-4, "cox3d_l": 3e-4},
}


@pytest.mark.parametrize("name", FLOAT32)
@torch.no_grad()
def test_in_single_precision(name):
    model = co3d.create(name)
    calibrated(model, max(24, model.window))
    skip = -model.padding % model.stride  # so that an output comes at the last frame
    clip = video(model, model.receptive_field + skip)
    columns = run(model, clip, [1, 20, 41])
    tolerance = {"scale": float(columns.abs().max()), "tolerance": FLOAT32[name]}
    near(columns, model.classifier(model.body(clip).flatten(2)), **tolerance)
    near(model.steps(clip)[0][:, :, -1], model(clip[:, :, skip:], pad=False), **tolerance)


NATIVE = [name for name in co3d.list_models() if not name.startswith(("co", "x3d"))]


@pytest.mark.parametrize("name", [*NATIVE, "x3d_mini", "x3d_s"])
@torch.no_grad()
def test_native_window_on_a_clip_is_the_global_pool_of_the_regular_net(name):
    """But for X3D's gate, and for SlowFast's slow frames, which a stream samples otherwise."""
    frames = co3d.spec(name).frames
    regular = calibrated(co3d.create(name).double(), frames)
    clip = video(regular, frames)
    twin = co3d.continual(regular, gate=co3d.spec(f"co{name}").gate, window=frames)
    expected = regular(clip)
    scale = float(expected.abs().max())
    assert (regular(clip.flip(2)) - expected).abs().max() > 0.05 * scale
    if name.startswith(("slowfast", "x3d")):
        difference = 1e-2 if name.startswith("slowfast") else 1e-3
        assert (twin(clip) - expected).abs().max() > difference * scale
        for module in regular.modules():
            if isinstance(module, co3d.nn.SqueezeExcite):
                module.gate = "frame"
            if isinstance(module, co3d.nn.TwoPath):
                module.sampling = "stride"
    near(twin(clip), regular(clip), scale)


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
        ({"name": "slow_mini", "dense": True}, "no dense for slow_mini"),
        ({"name": "x3d_s", "num_classes": 0}, "num_classes of 1 or more, given 0"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        co3d.create(**options)


@pytest.mark.parametrize(
    "name", [n for n in co3d.list_models() if n.endswith("_mini") and n[:2] != "co"]
)
def test_a_training_step_is_the_same_in_both_layouts(name):
    torch.manual_seed(0)
    net = co3d.create(name).double().train()
    clip = torch.randn(2, 3, net.spec.frames, 32, 32, dtype=torch.float64)
    steps = []
    for layout in (torch.channels_last_3d, torch.contiguous_format):
        net.to(memory_format=layout).zero_grad()
        torch.manual_seed(1)  # of dropout
        net(clip).square().sum().backward()
        steps.append([p.grad.clone() for p in net.parameters()])
    for last, contiguous in zip(*steps, strict=True):
        torch.testing.assert_close(last, contiguous, rtol=0, atol=1e-9 * float(last.abs().max()))

"""The optimised clip net: the same logits, for clips of one shape."""

import pytest
import torch
from torch import nn

import co3d
from co3d.measure.equivalence import calibrate
from co3d.nn import (
    AdaptiveAvgPool3d,
    ClipNet,
    Conv3d,
    Linear,
    MaxPool3d,
    ReLU,
    Residual,
    Sequential,
    SiLU,
    SqueezeExcite,
)
from co3d.nn.optimize import kernels, maps

MINIS = [n for n in co3d.list_models() if n.endswith("_mini") and not n.startswith("co")]
FULL = {
    "x3d_s": 64,
    "slow_8x8_r50": 64,
    "i3d_8x8_r50": 64,
    "slowfast_4x16_r50": 64,
    "r2plus1d_18": 48,
}


def net_and_clip(name, dtype=torch.float64, batch=2, size=32):
    """A net with calibrated random weights."""
    torch.manual_seed(0)
    net = co3d.create(name).to(dtype)
    clip = torch.randn(batch, 3, net.spec.frames, size, size, dtype=dtype)
    return calibrate(net, clip), clip


def error(given, expected):
    return float((given - expected).abs().max() / expected.abs().max())


@torch.no_grad()
def check(net, clip, dtype=torch.float64, tolerance=1e-12):
    twin = co3d.optimize(net, clip, dtype)
    assert error(twin(clip), net(clip)) < tolerance
    assert error(twin.features(clip), net.features(clip)) < tolerance
    return twin


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", MINIS)
def test_logits_and_features_equal_those_of_the_net(name, batch):
    net, clip = net_and_clip(name, batch=batch)
    twin = check(net, clip)
    assert isinstance(twin, ClipNet) and twin.spec is net.spec
    assert error(twin(clip.flip(2)), twin(clip)) > 0.01  # there is something to get wrong


@pytest.mark.parametrize("layout", [torch.channels_last_3d, torch.contiguous_format])
@pytest.mark.parametrize("name", MINIS)
def test_float32_stays_within_its_tolerance(name, layout):
    net, clip = net_and_clip(name, torch.float32)
    check(net, clip.to(memory_format=layout), torch.float32, 3e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
def test_float32_of_full_nets_stays_within_its_tolerance(name):
    net, clip = net_and_clip(name, torch.float32, 1, FULL[name])
    check(net, clip, torch.float32, 3e-4)


@pytest.mark.parametrize("name", MINIS)
def test_bfloat16_of_shipped_weights_finds_the_same_classes(name):
    net, _ = co3d.load(name, "synthetic-kinetics")
    torch.manual_seed(0)
    size = net.spec.image_size
    # Smooth in space and time, as videos are: noise alone has no class.
    seeds = torch.randn(6, 3, 4, 6, 6)
    clip = nn.functional.interpolate(seeds, (net.spec.frames, size, size), mode="trilinear")
    twin = co3d.optimize(net, clip, torch.bfloat16)
    given, expected = twin(clip), net(clip)
    assert given.dtype == torch.float32
    given, expected = given.softmax(1), expected.softmax(1)
    assert (given - expected).abs().max() < 0.1
    first, second = expected.topk(2).values.T
    sure = first - second > 0.1
    assert sure.sum() > 1 and torch.equal(given.argmax(1)[sure], expected.argmax(1)[sure])


def test_parts_that_have_no_fast_form_are_taken_as_they_are():
    torch.manual_seed(0)
    main = Sequential(SqueezeExcite(8, 4, "frame"), Conv3d(8, 8, 3, padding=1, dilation=1))
    body = Sequential(
        SiLU(),  # would write to the caller's clip
        Conv3d(3, 8, (3, 3, 3), padding=(2, 0, 0), dilation=(2, 1, 1)),
        ReLU(),
        SiLU(),
        MaxPool3d((2, 1, 1)),
        MaxPool3d(2),
        Residual(main, activation=ReLU()),
        SqueezeExcite(8, 4, "window", window=3),
        Residual(Sequential(Conv3d(8, 8, 1), Conv3d(8, 8, 1))),
        AdaptiveAvgPool3d(1),
    )
    net = ClipNet(body, Linear(8, 5)).double().eval()
    clip = torch.randn(2, 3, 9, 11, 13, dtype=torch.float64)
    kept = clip.clone()
    check(net, clip)
    check(net, clip[:1].to(memory_format=torch.channels_last_3d))
    assert torch.equal(clip, kept)


def test_the_plain_forms_agree_with_those_of_onednn(monkeypatch):
    net, clip = net_and_clip("x3d_mini", torch.float32)
    for module in (kernels, maps):
        monkeypatch.setattr(module, "_packs", lambda weight: False)
    check(net, clip, torch.float32, 3e-5)


def test_the_original_and_the_clip_are_left_alone():
    net, clip = net_and_clip("slowfast_mini", torch.float32)
    clip = clip.to(memory_format=torch.channels_last_3d)
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    twin, kept = co3d.optimize(net, clip), clip.clone()
    first = twin(clip)
    assert torch.equal(twin(clip), first) and torch.equal(clip, kept)
    assert all(torch.equal(weights[name], value) for name, value in net.state_dict().items())


def test_other_clips_types_and_nets_are_refused():
    net, clip = net_and_clip("x3d_mini", torch.float32)
    twin = co3d.optimize(net, clip)
    for other in (clip[:1], clip[:, :, 1:], clip.double()):
        with pytest.raises(ValueError, match="for which the net was optimised"):
            twin(other)
    with pytest.raises(TypeError, match="expected a clip as a tensor"):
        twin(None)
    with pytest.raises(ValueError, match="ask the original net"):
        twin(clip, pad=False)
    with pytest.raises(TypeError, match="expected dtype in"):
        co3d.optimize(net, clip, torch.float16)
    with pytest.raises(ValueError, match="expected a clip"):
        co3d.optimize(net, clip[:, :, 0])
    with pytest.raises(ValueError, match="use .eval"):
        co3d.optimize(net.train(), clip)
    net, clip = net_and_clip("slowfast_mini")
    net.body.paths.lateral["stem"].conv.padding = (0, 0, 0)
    net.body.paths.lateral["stem"].conv._prepare()
    with pytest.raises(ValueError, match="expected two paths of one length, given 4 and 3 columns"):
        co3d.optimize(net, clip)

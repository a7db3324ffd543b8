"""Two-path nets: stream, chunks and clip against the same net in plain torch; work and refusals."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from nets import run
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from trees import clip, close, conv, forward, lengths, two_paths

import co3d
import co3d.nn as co
from co3d.measure.equivalence import calibrate


def plain(net, x):
    """The net in torch alone: every alpha-th frame is a slice, a lateral connection is a cat."""
    slow, fast = x[:, :, :: net.alpha], x
    for (name, part), other in zip(net.slow.named_children(), net.fast, strict=True):
        slow, fast = plain_stage(part, slow), plain_stage(other, fast)
        if name in net.lateral:
            slow = cat(slow, plain_stage(net.lateral[name], fast))
    return cat(slow, fast[:, :, :: net.alpha])


def plain_stage(part, x):
    if isinstance(part, co.RunningWindow):
        return F.avg_pool3d(x, (part.window, *x.shape[3:]), stride=1)
    (layer,) = (module for module in part.modules() if isinstance(module, co.Conv3d))
    y = F.conv3d(x, layer.weight, layer.bias, layer.stride, layer.padding)
    return F.relu(y + x if isinstance(part, co.Residual) else y)


def cat(slow, fast):
    columns = min(slow.shape[2], fast.shape[2])
    return torch.cat([slow[:, :, :columns], fast[:, :, :columns]], 1)


@given(two_paths(), st.integers(1, 60), lengths)
def test_clip_and_stream_equal_plain_torch(net, frames, lengths):
    x = clip(frames)
    y = forward(net, x)
    close(y, plain(net, x))
    close(run(net, x, lengths), y)
    close(net.steps(x, end=True)[0], y)


@given(two_paths())
def test_a_constant_clip_replicated_is_steady_at_once(net):
    """Every layer's first input continued backwards: the start of a still video is its future."""
    assume(net.receptive_field < 100)
    x = clip(1).expand(-1, -1, net.receptive_field + net.padding, -1, -1)
    y = run(net, x, flush=False, fill="replicate")
    close(y, y[:, :, -1:].expand_as(y))


def video(frames):
    return clip(frames, size=16, channels=3)


@torch.no_grad()
def test_executed_macs_over_a_period():
    """By torch's own count: nothing of the slow path between its frames, no product twice."""
    net = calibrate(co3d.create("coslowfast_mini", window=8).double(), video(40))
    paths, state = net.body.paths, net.steps(video(80))[1]
    executed = []
    for frame in video(paths.alpha).unbind(2):
        with FlopCounterMode(display=False) as counter:
            _, state = net.step(frame, state)
        executed.append(counter.get_total_flops() // 2)
    fast, slow, lateral = (
        macs_per_output(net, part) for part in (paths.fast, paths.slow, paths.lateral)
    )
    head = net.classifier.weight.numel()
    assert sum(executed) == paths.alpha * fast + slow + lateral + head


def macs_per_output(net, part):
    """[kH kW kT] cI cO nH nW of every convolution of a part, by the maps that a clip gives."""
    sizes, layers = {}, [layer for layer in part.modules() if isinstance(layer, co.Conv3d)]
    for layer in layers:
        layer.register_forward_hook(lambda layer, _, y: sizes.update({layer: y[0, 0, 0].numel()}))
    net(video(40))
    return sum(layer.weight.numel() * sizes[layer] for layer in layers)


def paths(slow=("a", "end"), fast=("a", "end"), lateral=("a",), stride=2, alpha=2, **options):
    """Stages of 1x1x1 convolutions and one lateral convolution, as the arguments say."""
    return co.TwoPath(
        co.Sequential(co.named(**{name: conv(1, channels=(2, 2)) for name in slow})),
        co.Sequential(co.named(**{name: conv(1, channels=(2, 2)) for name in fast})),
        nn.ModuleDict({name: conv(3, stride, 1) for name in lateral}),
        alpha,
        **options,
    )


def strided(*strides):
    return co.Sequential(co.named(**{f"s{n}": conv(1, stride) for n, stride in enumerate(strides)}))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: paths(fast=("b", "end")), r"of the same names.*'a', 'end'.*'b', 'end'"),
        (lambda: paths(lateral=("end",)), "lateral convolutions behind all but the la"),
        (lambda: paths(stride=3), "lateral convolutions of stride 2, given 3 behind a"),
        (lambda: paths(sampling="random"), "sampling in .* given 'random'"),
        (lambda: paths(alpha=0), "stride of 1 or more frames, given 0"),
        (
            lambda: co.TwoPath(strided(1, 1), strided(1, 2), nn.ModuleDict(), 2),
            "one temporal stride in both paths, given 1 and 2 in s1",
        ),
        (
            lambda: co.TwoPath(nn.Sequential(), strided(1), nn.ModuleDict(), 2),
            "continual modules, given Sequential as 'slow'",
        ),
    ],
)
def test_refusals(make, words):
    with pytest.raises((TypeError, ValueError), match=words):
        make()


@pytest.mark.parametrize(("frames", "alpha"), [(32, 4), (32, 8), (16, 4), (64, 2), (9, 3), (5, 1)])
def test_linspace_is_the_published_sampling(frames, alpha):
    """The slow path is the identity, so its output is its frames."""
    net = co.TwoPath(
        *(co.Sequential(co.Identity()), co.Sequential(co.Identity()), nn.ModuleDict(), alpha),
        sampling="linspace",
    )
    numbers = torch.arange(frames).view(1, 1, frames, 1, 1).float()
    seen = net(numbers)[0, 0].flatten().long()
    assert seen.tolist() == torch.linspace(0, frames - 1, frames // alpha).long().tolist()
    if (frames, alpha) == (32, 4):
        assert seen.tolist() == [0, 4, 8, 13, 17, 22, 26, 31]
    twin = co3d.continual(net)
    assert twin.sampling == "stride" and net.sampling == "linspace"
    assert twin(numbers)[0, 0].flatten().tolist() == list(range(0, frames, alpha))

"""Two-path nets: stream, chunks and clip against the same net in plain torch; work and refusals."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from nets import run
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from trees import clip, close, conv, forward, lengths, path_plans, two_path

import co3d
import co3d.nn as co
from co3d.measure.equivalence import calibrate

plans = path_plans()
with_laterals = path_plans(always_lateral=True)


def plain(plan, net, x):
    """The net of a plan in torch alone: every alpha-th frame is a slice, a lateral is a cat."""
    alpha = plan["alpha"]
    *stages, end = plan["stages"]
    slow, fast = x[:, :, ::alpha], x
    for n, (slow_plan, fast_plan, side_plan) in enumerate(stages):
        slow = plain_stage(*slow_plan, net.slow[n], slow)
        fast = plain_stage(*fast_plan, net.fast[n], fast)
        if side_plan is not None:
            side = plain_stage(side_plan, False, net.lateral[f"s{n}"], fast)
            slow = cat(slow, side)
    if plan["window"]:
        slow, fast = mean(slow, plan["window"]), mean(fast, plan["window"] * alpha)
    else:
        slow = plain_stage(*end[0], net.slow[-1], slow)
        fast = plain_stage(*end[1], net.fast[-1], fast)
    return cat(slow, fast[:, :, ::alpha])


def plain_stage(plan, residual, part, x):
    _, stride, padding, *_ = plan
    y = F.conv3d(x, *part.parameters(), stride=(stride, 1, 1), padding=(padding, 0, 0))
    return F.relu(y + x if residual else y)


def cat(slow, fast):
    columns = min(slow.shape[2], fast.shape[2])
    return torch.cat([slow[:, :, :columns], fast[:, :, :columns]], 1)


def mean(x, window):
    return F.avg_pool3d(x, (window, *x.shape[3:]), stride=1)


@given(plans, st.integers(1, 60), lengths)
def test_clip_and_stream_equal_plain_torch(plan, frames, lengths):
    net, x = two_path(plan), clip(frames)
    y = forward(net, x)
    close(y, plain(plan, net, x))
    close(run(net, x, lengths), y)
    close(net.steps(x, end=True)[0], y)


@given(plans, st.integers(0, 40))
def test_unpadded_columns_are_those_that_padding_does_not_reach(plan, more):
    net = two_path(plan)
    assume(net.receptive_field < 100)
    x = clip(net.receptive_field + more)
    y = net(x, pad=False)
    for n in range(more // net.stride + 1):
        start = n * net.stride
        seen = net(x[:, :, start : start + net.receptive_field], pad=False)
        close(y[:, :, n : n + 1], seen)
    assert y.shape[2] == more // net.stride + 1


@given(plans)
def test_a_constant_clip_replicated_is_steady_at_once(plan):
    """Every layer's first input continued backwards: the start of a still video is its future."""
    net = two_path(plan)
    assume(net.receptive_field < 100)
    x = clip(1).expand(-1, -1, net.receptive_field + net.padding, -1, -1)
    y = run(net, x, flush=False, fill="replicate")
    close(y, y[:, :, -1:].expand_as(y))


@given(plans, st.integers(0, 3), st.integers(1, 2), lengths)
def test_states_are_saved_forked_and_stacked_at_equal_phase(plan, more, periods, lengths):
    net = two_path(plan)
    assume(net.receptive_field < 100)
    seen = net.receptive_field + net.padding + more
    heads = clip(seen), clip(seen + periods * net.stride)
    states = [net.steps(head)[1] for head in heads]
    tail = clip(2 * net.stride + 1, batch=2)
    alone = [net.steps(tail[n : n + 1], state)[0] for n, state in enumerate(states)]
    together, after = net.steps(tail, co.stack([co.clone(state) for state in states]))
    close(together, torch.cat(alone))
    for n, state in enumerate(co.unstack(after)):
        own = net.steps(tail[n : n + 1], states[n])[1]
        flushed, expected = net.flush(state)[0], net.flush(own)[0]
        assert (flushed is None) == (expected is None)
        if expected is not None:
            close(flushed, expected)
    whole = run(net, torch.cat([heads[0], tail[:1]], 2), lengths, flush=False)
    close(alone[0], whole[:, :, -alone[0].shape[2] :])


def video(frames, size=16):
    return torch.randn(1, 3, frames, size, size, dtype=torch.float64)


def mini(**options):
    net = co3d.create("coslowfast_mini", window=8, **options).double()
    return calibrate(net, video(40).repeat(2, 1, 1, 1, 1))


def convolutions(part):
    return [module for module in part.modules() if isinstance(module, co.Conv3d)]


@given(with_laterals)
def test_the_slow_path_runs_once_in_alpha_frames(plan):
    """Every convolution of it is called on the frames that it is due on, and on no other."""
    net = two_path(plan)
    assume(net.receptive_field < 100 and not plan["window"])
    state = net.steps(clip(net.receptive_field + net.padding))[1]
    slow, calls = convolutions(net.slow), []
    for layer in slow:
        layer._steps = _counting(layer._steps, calls, layer)
    counts = []
    for frame in clip(net.stride).unbind(2):
        calls.clear()
        _, state = net.step(frame, state)
        counts.append(list(calls))
    behind = [stage[0][0][1] for stage in plan["stages"]]
    for n, layer in enumerate(slow):
        strides = torch.tensor([1, *behind[:n]]).prod()
        assert sum(layer in ran for ran in counts) == net.stride // plan["alpha"] // strides


def _counting(steps, calls, layer):
    def counted(x, state, end):
        calls.append(layer)
        return steps(x, state, end)

    return counted


@torch.no_grad()
def test_executed_macs_over_a_period():
    """By torch's own count: nothing of the slow path between its frames, no product twice."""
    net, x = mini(), video(80)
    paths = net.body.paths
    state = net.steps(x)[1]
    executed = []
    for frame in video(paths.alpha).unbind(2):
        with FlopCounterMode(display=False) as counter:
            _, state = net.step(frame, state)
        executed.append(counter.get_total_flops() // 2)
    fast, slow = (macs_per_output(net, part) for part in (paths.fast, paths.slow))
    lateral = macs_per_output(net, paths.lateral)
    head = net.classifier.weight.numel()
    assert sum(executed) == paths.alpha * fast + slow + lateral + head


def macs_per_output(net, part):
    """[kH kW kT] cI cO nH nW of every convolution of a part, by the maps that a clip gives."""
    sizes = {}
    hooks = [
        layer.register_forward_hook(lambda module, _, y: sizes.update({module: y[0, 0, 0].numel()}))
        for layer in convolutions(part)
    ]
    net(video(40))
    for hook in hooks:
        hook.remove()
    return sum(layer.weight.numel() * pixels for layer, pixels in sizes.items())


def paths(slow=("a", "end"), fast=("a", "end"), lateral=("a",), stride=2, alpha=2, **options):
    """Stages of 1x1x1 convolutions and one lateral convolution, as the arguments say."""
    return co.TwoPath(
        co.Sequential(co.named(**{name: conv(1, channels=(2, 2)) for name in slow})),
        co.Sequential(co.named(**{name: conv(1, channels=(2, 2)) for name in fast})),
        nn.ModuleDict({name: conv(3, stride, 1) for name in lateral}),
        alpha,
        **options,
    )


def strided(stages):
    return co.Sequential(co.named(**{f"s{n}": conv(1, stride) for n, stride in enumerate(stages)}))


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (
            lambda: paths(fast=("b", "end")),
            ValueError,
            r"of the same names.*'a', 'end'.*'b', 'end'",
        ),
        (lambda: paths(lateral=("end",)), ValueError, "lateral convolutions behind all but the la"),
        (lambda: paths(lateral=("b",)), ValueError, r"behind all but the last, given .*\['b'\]"),
        (lambda: paths(stride=3), ValueError, "lateral convolutions of stride 2, given 3 behind a"),
        (lambda: paths(sampling="random"), ValueError, "sampling in .* given 'random'"),
        (lambda: paths(alpha=0), ValueError, "stride of 1 or more frames, given 0"),
        (
            lambda: co.TwoPath(strided([2, 1]), strided([1, 1]), nn.ModuleDict(), 2),
            ValueError,
            "one temporal stride in both paths, given 2 and 1 in s0",
        ),
        (
            lambda: co.TwoPath(strided([1, 1]), strided([1, 2]), nn.ModuleDict(), 2),
            ValueError,
            "one temporal stride in both paths, given 1 and 2 in s1",
        ),
        (
            lambda: co.TwoPath(nn.Sequential(), strided([1]), nn.ModuleDict(), 2),
            TypeError,
            "continual modules, given Sequential as 'slow'",
        ),
        (
            lambda: co.TwoPath(
                *(strided([1, 1]), strided([1, 1]), nn.ModuleDict({"s0": nn.Conv3d(2, 2, 1)}), 1)
            ),
            TypeError,
            "continual modules, given Conv3d as 's0'",
        ),
    ],
)
def test_refusals(make, kind, words):
    with pytest.raises(kind, match=words):
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

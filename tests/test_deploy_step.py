"""The step as a function of tensors gives what the step gives, from the first frame on."""

import copy

import pytest
import torch
from nets import net_of

import co3d
import co3d.nn as nn
from co3d.deploy.step import Explicit, lower

MINIS = [name for name in co3d.list_models() if name.startswith("co") and name.endswith("_mini")]
OPTIONS = [{}, {"dense": True}, {"window": 32}]


def agree(net, frames, size=32, batch=1, **options):
    """Both steps over some frames, in float64; returns how many logits there were."""
    example = torch.zeros(batch, 3, size, size, dtype=torch.float64)
    explicit = Explicit(net, example, **options)
    state, held, emitted = None, explicit.begin(), 0
    for number in range(frames):
        frame = torch.randn_like(example)
        expected, state = net.step(frame, state)
        given, held = explicit.step(frame, number, held)
        if expected is not None:  # before them the explicit step may give anything
            torch.testing.assert_close(given, expected, rtol=0, atol=1e-10)
            emitted += 1
    return emitted


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", MINIS)
def test_the_explicit_step_equals_the_step_from_the_first_logits_on(name, options):
    net = net_of(name, 32, **options).double()
    assert agree(net, net.receptive_field + 2 * net.stride) > 2


@pytest.mark.parametrize("name", MINIS)
def test_channels_may_lie_last_in_the_state(name):
    net = net_of(name).double()
    assert agree(net, net.warmup + net.stride + 1, 40, 2, channels_last=True) > 0


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Conv3d(3, 6, (4, 3, 3), padding=(2, 1, 1), dilation=(2, 1, 1)), nn.ReLU()],
        [nn.Conv3d(3, 2, (3, 1, 1), padding=(2, 0, 0), dilation=(2, 1, 1)), nn.SiLU()],
        [nn.Conv3d(3, 6, (3, 1, 1), (2, 1, 1), (1, 0, 0)), nn.Delay(2)],
        [nn.Conv3d(3, 6, (2, 1, 1), (4, 1, 1), groups=3), nn.BatchNorm3d(6), nn.Delay(1)],
        [nn.MaxPool3d((3, 2, 2), (1, 2, 2), (1, 0, 0)), nn.AdaptiveAvgPool3d((None, 2, 2))],
        [nn.AvgPool3d((3, 3, 3), (2, 1, 1), (1, 1, 1)), nn.GELU()],
        [nn.Subsample(3), nn.BatchNorm3d(3), nn.Conv3d(3, 6, (3, 1, 1), padding=(1, 0, 0))],
    ],
    ids=lambda layers: "-".join(type(layer).__name__ for layer in layers),
)
def test_every_layer_keeps_its_time(layers):
    """Behind a convolution that delays, so that inputs before the first are masked."""
    first = nn.Conv3d(3, 3, (3, 3, 3), padding=(1, 1, 1))
    shortcut = nn.Sequential(nn.Conv3d(3, 3, 1))
    block = nn.Residual(nn.Sequential(nn.Conv3d(3, 3, (5, 1, 1), padding=(2, 0, 0))), shortcut)
    body = nn.Sequential(first, block, *copy.deepcopy(layers), nn.RunningWindow(3))
    channels = body(torch.randn(1, 3, 40, 6, 6)).shape[1]
    net = nn.StreamNet(body, nn.Linear(channels, 4)).eval().double()
    assert agree(net, net.receptive_field + 3 * net.stride, 6) > 3


def test_branches_of_other_delays_join_by_index_at_every_phase():
    def branch(kernel, stride):
        pad = kernel // 2
        return nn.Conv3d(3, 2, (kernel, 1, 1), (stride, 1, 1), (pad, 0, 0))

    joined = nn.Parallel(branch(3, 4), branch(7, 4), branch(11, 4), join="cat")
    net = nn.StreamNet(nn.Sequential(joined, nn.RunningWindow(2)), nn.Linear(6, 2))
    assert agree(net.eval().double(), net.receptive_field + 16, 4) > 3


def test_what_is_not_due_is_not_computed():
    net = co3d.create("coi3d_mini")
    phases = Explicit(net, torch.zeros(1, 3, 32, 32)).phases
    half, full = sorted(phases, key=lambda phase: phase.emits)
    assert full.emits and not half.emits
    assert "time_pool" in half.writes  # the first frame of a pair waits for the second
    assert not any(name.startswith(("res3", "res4")) for name in half.writes)


def test_what_does_not_fit_is_refused():
    frame = torch.zeros(1, 3, 32, 32)
    with pytest.raises(TypeError, match="expected a continual net, given ClipNet"):
        Explicit(co3d.create("x3d_mini"), frame)
    with pytest.raises(ValueError, match="expected 3 channels, given 4"):
        Explicit(co3d.create("cox3d_mini"), torch.zeros(1, 4, 32, 32))
    with pytest.raises(ValueError, match="evaluation"):
        Explicit(co3d.create("cox3d_mini").train(), frame)

    with pytest.raises(TypeError, match="expected layers with a form on frames, given Softmax a"):
        lower(torch.nn.Softmax(1), torch.nn.ModuleList(), 0, "a")

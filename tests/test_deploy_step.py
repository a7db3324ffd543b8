"""The explicit step of single layers: what the step gives, at the same frames."""

import copy

import pytest
import torch
from nets import assert_same, logits_of

import co3d
import co3d.nn as nn
from co3d.deploy.step import Explicit, lower


def agree(body, channels, size=6):
    """The step of a body and a classifier equals the explicit one over all phases, in float64."""
    net = nn.StreamNet(body, nn.Linear(channels, 4)).eval().double()
    clip = torch.randn(net.receptive_field + 4 * net.stride, 1, 3, size, size, dtype=torch.float64)
    twin = co3d.optimize(net, clip[0], torch.float64)
    assert_same(logits_of(twin, clip)[0], logits_of(net, clip)[0], 1e-12)


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
    agree(body, body(torch.randn(1, 3, 40, 6, 6)).shape[1])


def test_branches_of_other_delays_join_by_index_at_every_phase():
    branches = [nn.Conv3d(3, 2, (k, 1, 1), (4, 1, 1), (k // 2, 0, 0)) for k in (3, 7, 11)]
    agree(nn.Sequential(nn.Parallel(*branches, join="cat"), nn.RunningWindow(2)), 6)


def test_what_is_not_due_is_not_computed():
    net = co3d.create("coi3d_mini")
    phases = Explicit(net, torch.zeros(1, 3, 32, 32)).phases
    half, full = sorted(phases, key=lambda phase: phase.emits)
    assert full.emits and not half.emits
    assert "time_pool" in half.writes  # the first frame of a pair waits for the second
    assert not any(name.startswith(("res3", "res4")) for name in half.writes)


FRAME = torch.zeros(1, 3, 32, 32)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: Explicit(co3d.create("x3d_mini"), FRAME),
            "expected a continual net, given ClipNet",
        ),
        (
            lambda: Explicit(co3d.create("cox3d_mini"), torch.zeros(1, 4, 32, 32)),
            "expected 3 channels, given 4",
        ),
        (lambda: Explicit(co3d.create("cox3d_mini").train(), FRAME), "evaluation"),
        (
            lambda: lower(torch.nn.Softmax(1), torch.nn.ModuleList(), 0, "a"),
            "expected layers with a form on frames, given Softmax a",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call, words):
    with pytest.raises((TypeError, ValueError), match=words):
        call()

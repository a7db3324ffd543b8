"""continual(module): twins that share parameters, and refusals that name path and reason."""

import pytest
import torch
from nets import run
from torch import nn

import co3d
import co3d.nn as co
from co3d.measure.equivalence import calibrate


def plain_net():
    return nn.Sequential(
        nn.Conv3d(3, 8, (3, 3, 3), padding=1, bias=False),
        nn.BatchNorm3d(8),
        nn.ReLU(),
        nn.MaxPool3d((3, 2, 2), (2, 2, 2), (1, 0, 0)),
        nn.Sequential(nn.Conv3d(8, 4, (3, 1, 1), dilation=(2, 1, 1)), nn.SiLU()),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(4, 5),
    ).eval()


def test_a_plain_torch_tree_becomes_a_stream():
    torch.manual_seed(0)
    net = calibrate(plain_net(), torch.randn(2, 3, 12, 8, 8)).double()
    x = torch.randn(2, 3, 13, 8, 8, dtype=torch.float64)
    twin = co3d.continual(net, window=6)
    assert twin.stride == 2 and twin.receptive_field == 3 + 2 + 4 * 2 + 2 * 2
    y = run(twin, x, [1, 3])
    torch.testing.assert_close(y[:, :, :1], twin(x)[:, :, :1], rtol=0, atol=1e-10)
    torch.testing.assert_close(y[:, :, 0], net(x[:, :, :13]), rtol=0, atol=1e-10)


def test_twins_share_parameters_and_statistics_and_leave_the_original_as_it_was():
    net = plain_net()
    twin = co3d.continual(net, window=6)
    assert list(net.state_dict()) == list(twin.state_dict())
    for a, b in zip(net.parameters(), twin.parameters(), strict=True):
        assert a is b
    net[1].running_mean.add_(1)
    assert torch.equal(net[1].running_mean, twin[1].running_mean)
    assert type(net[0]) is nn.Conv3d and type(net) is nn.Sequential
    assert net(torch.randn(1, 3, 9, 8, 8)).shape == (1, 5)
    net.double()
    assert twin[0].weight.dtype == torch.float64


def test_zoo_twins():
    regular = co3d.create("x3d_mini")
    twin = co3d.continual(regular, gate="frame", window=8)
    wider = co3d.continual(twin, window=64)
    assert wider.receptive_field == twin.receptive_field + 56 == 80
    assert regular.classifier.weight is wider.classifier.weight
    for net, kind in ((regular, "clip"), (twin, "frame")):
        gates = [part.gate for part in net.modules() if isinstance(part, co.SqueezeExcite)]
        assert gates == [kind] * 4
    assert not hasattr(regular, "step")
    assert repr(wider) == repr(co3d.continual(regular, gate="frame", window=64))


class Custom(nn.Module):
    def forward(self, x):
        return x.flip(2)


def hooked():
    net = nn.Sequential(nn.Conv3d(1, 1, 1))
    net[0].register_forward_hook(lambda module, args, y: 2 * y)
    return net


def x3d(**options):
    return co3d.continual(co3d.create("x3d_mini"), window=16, **options)


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (lambda: nn.Sequential(nn.ReLU(), Custom()), TypeError, "Custom at 1: its forward is its"),
        (lambda: nn.Sequential(nn.Sequential(nn.InstanceNorm3d(2))), TypeError, "at 0.0"),
        (lambda: nn.Softmax(2), TypeError, "Softmax at the root"),
        (lambda: nn.Conv3d(1, 1, 3, padding=4), ValueError, "Conv3d at the root: .* given 4"),
        (lambda: nn.Sequential(nn.MaxPool3d(2, ceil_mode=True)), ValueError, "MaxPool3d at 0"),
        (lambda: nn.AdaptiveAvgPool3d(1), ValueError, "window=frames"),
        (lambda: nn.AdaptiveAvgPool3d(2), ValueError, "given \\(2, 2, 2\\)"),
        (lambda: nn.Sequential(nn.Linear(2, 2)), ValueError, "Flatten before the Linear at 0"),
        (lambda: co.SqueezeExcite(4, 2), ValueError, "gate='frame'"),
        (lambda: co3d.create("x3d_mini"), ValueError, "SqueezeExcite at body.res2.0.main.se"),
        (hooked, ValueError, "Conv3d at 0 with forward hooks"),
        (lambda: x3d(gate="clip"), ValueError, "gate None or 'frame', given 'clip'"),
        (lambda: co.SqueezeExcite(4, 2).begin(), ValueError, "gate='clip'"),
        (lambda: co.AdaptiveAvgPool3d(1).begin(), ValueError, "over whole clips"),
    ],
)
def test_refusals(make, kind, words):
    with pytest.raises(kind, match=words):
        co3d.continual(make())


def test_windows_that_are_no_window():
    with pytest.raises(ValueError, match="expected a window of 1 or more frames, given '4'"):
        co3d.continual(nn.AdaptiveAvgPool3d(1), window="4")


def test_nets_without_a_head_window_take_clips():
    body = co.Sequential(co.Conv3d(3, 4, 3), co.AdaptiveAvgPool3d((None, 1, 1)))
    net = co.ClipNet(body, co.Linear(4, 5)).eval()
    twin, x = co3d.continual(net), torch.randn(1, 3, 6, 8, 8)
    torch.testing.assert_close(twin(x), net(x))
    torch.testing.assert_close(twin.steps(x)[0][:, :, -1], net(x))
    with pytest.raises(ValueError, match="a running window in the body .* given none"):
        _ = twin.window


def test_body_and_head_may_be_trees_of_their_own():
    head = nn.Sequential(nn.Dropout(), nn.Linear(4, 5))
    body = nn.Sequential(nn.Conv3d(3, 4, 3), nn.AdaptiveAvgPool3d((1, 1, 1)), nn.Flatten())
    net = nn.Sequential(body, head).eval()
    twin = co3d.continual(net, window=4)
    x = torch.randn(1, 3, 6, 8, 8)
    torch.testing.assert_close(run(twin, x)[:, :, -1], net(x))
    spatial = co3d.continual(nn.AdaptiveAvgPool3d([None, 1, 1]))
    assert run(spatial, x).shape == (1, 3, 6, 1, 1)


def test_padding_by_name_is_kept():
    """Half of a span is known only when torch's name for it is read."""
    net = nn.Sequential(nn.Conv3d(2, 3, 3, (2, 1, 1), 1), nn.Conv3d(3, 2, 3, padding="same"))
    net, x = net.double(), torch.randn(1, 2, 9, 4, 4, dtype=torch.float64)
    for dense, stride in ((False, 1), (True, 2)):
        twin = co3d.continual(net, dense=dense)
        assert twin.padding == 1 + 2
        torch.testing.assert_close(run(twin, x)[:, :, ::stride], net(x), rtol=0, atol=1e-10)

"""co3d.report: what converts, what does not and why, and how exactly."""

import pytest
import torch
from torch import nn

import co3d


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(3, 3, 3, padding=1)
        self.norm = nn.InstanceNorm3d(3)

    def forward(self, x):
        return x + self.norm(self.conv(x))


def plain():
    return nn.Sequential(
        nn.Conv3d(3, 8, 3, padding=1, stride=(1, 2, 2)),
        nn.BatchNorm3d(8),
        nn.Hardswish(),
        nn.MaxPool3d((3, 2, 2), (2, 2, 2), (1, 0, 0)),
        nn.Conv3d(8, 6, (3, 1, 1)),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(6, 4),
    ).eval()


CLIP = torch.zeros(1, 3, 12, 16, 16)


def test_a_plain_net_converts_and_equals_itself():
    torch.manual_seed(0)
    net = plain()
    report = co3d.report(net, CLIP)
    assert not report.refused and len(report.layers) == 8
    assert report.layers[5][:3] == ("5", "AdaptiveAvgPool3d", "RunningWindow")
    figures, twin = report.figures, report.twin
    assert twin[0].weight is net[0].weight
    field = 3 + 2 + 2 * 2 + 3 * 2  # 12 frames are 4 maps at the pool
    assert (figures["receptive_field"], figures["padding"], figures["stride"]) == (field, 2, 2)
    assert figures["warmup"] == field - 1 - 2
    assert figures["stream_error"] < 1e-5 and figures["module_error"] < 1e-5
    # Per frame: the first convolution, and every second frame the other one and the classifier.
    first, second = 8 * 3 * 27 * 64, 6 * 8 * 3 * 16 + 24
    assert figures["macs_step"] == first + second
    assert figures["macs_frame"] == first + second / 2
    assert "8 of 8 layers convert" in str(report) and "stream_error" in str(report)


def test_refusals_have_a_path_and_a_reason_and_parts_are_looked_at():
    net = nn.Sequential(Own(), nn.Conv3d(3, 3, 3, padding=1, padding_mode="circular"), nn.ReLU())
    report = co3d.report(net.eval(), CLIP)
    reasons = {layer.path: layer.reason for layer in report.layers}
    assert reasons["0"] == "its forward is its own, so it is not converted"
    assert reasons["0.conv"] is None and reasons["0.norm"] == "it has no continual form"
    assert reasons["1"] == "expected padding_mode='zeros', given 'circular'" and not reasons["2"]
    assert report.twin is None and report.figures == {}
    assert "2 of 5 layers convert" in str(report) and "NOT CONVERTED" in str(report)


def test_a_tree_can_be_refused_though_its_layers_convert():
    report = co3d.report(nn.Sequential(nn.Linear(3, 3)).eval(), CLIP)
    assert [(layer.path, layer.becomes) for layer in report.layers] == [
        ("the root", None),
        ("0", "Linear"),
    ]
    assert "expected Flatten before the Linear at 0" in report.refused[0].reason


def test_flatten_over_time_is_no_flatten_of_frames():
    for pool in (nn.Identity(), nn.AdaptiveAvgPool3d((None, 1, 1))):
        net = nn.Sequential(nn.Conv3d(3, 2, 3, padding=1), pool, nn.Flatten(), nn.Linear(24, 4))
        report = co3d.report(net.eval(), CLIP)
        assert [layer.path for layer in report.refused] == ["2"]
        assert "pool over time before it" in report.refused[0].reason
    whole = nn.Sequential(nn.Conv3d(3, 2, (12, 16, 16)), nn.Flatten(), nn.Linear(2, 4)).eval()
    assert co3d.report(whole, CLIP).figures["module_error"] < 1e-5, "one map is left of time"


def test_zoo_nets():
    report = co3d.report(co3d.create("x3d_mini"), torch.zeros(1, 3, 16, 32, 32))
    assert {layer.kind for layer in report.refused} == {"SqueezeExcite"}
    assert "its gate needs the whole clip" in report.refused[0].reason
    gated = co3d.report(co3d.create("x3d_mini"), torch.zeros(1, 3, 16, 32, 32), gate="frame")
    assert gated.figures["stream_error"] < 1e-4 and gated.figures["receptive_field"] == 32
    two = co3d.report(co3d.create("slowfast_mini"), torch.zeros(1, 3, 16, 32, 32))
    assert two.figures["stride"] == 4 and two.figures["stream_error"] < 1e-4
    assert two.figures["module_error"] > 1e-3, "the slow frames are sampled otherwise"


def test_a_window_wider_than_the_clip():
    report = co3d.report(plain(), CLIP, window=20)
    assert "module_error" not in report.figures and report.twin.receptive_field == 27
    assert report.figures["stream_error"] < 1e-5


@pytest.mark.parametrize(
    ("args", "error", "words"),
    [
        ((plain(), CLIP[0]), TypeError, r"given Sequential and \(3, 12, 16, 16\)"),
        ((plain().train(), CLIP), ValueError, "expected evaluation mode"),
    ],
)
def test_bad_input(args, error, words):
    with pytest.raises(error, match=words):
        co3d.report(*args)

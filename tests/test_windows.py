"""Many windows from one pass equal a stream of each."""

import pytest
import torch

import co3d
from co3d.measure.equivalence import calibrate
from co3d.measure.windows import steps_of_windows

MINIS = ("x3d_mini", "slow_mini", "i3d_mini", "slowfast_mini", "r2plus1d_mini")


@pytest.fixture(scope="module", params=MINIS)
def twins(request):
    """A function from a window to a stream net, with shared random weights in float64."""
    torch.manual_seed(0)
    regular = co3d.create(request.param).double()
    calibrate(regular, torch.randn(4, 3, 16, 32, 32, dtype=torch.float64))
    gate = "frame" if regular.spec.gate else None
    return lambda window: co3d.continual(regular, gate=gate, window=window)


@pytest.mark.parametrize("fill", ["zeros", "replicate"])
@pytest.mark.parametrize("emit", ["valid", "always"])
def test_each_window_equals_its_own_stream(twins, fill, emit):
    clip = torch.randn(2, 3, 70, 32, 32, dtype=torch.float64)
    stride = twins(16).stride
    found = steps_of_windows(twins(stride), [16, 40, 64], clip, fill, emit, chunk=29)
    for window, logits in found.items():
        net = twins(window)
        expected, _ = net.steps(clip, net.begin(fill, emit))
        if expected is None:
            assert logits is None and window == 64 and emit == "valid"
            continue
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-10 * expected.abs().max())


def test_too_few_frames_give_none(twins):
    net = twins(twins(16).stride)
    found = steps_of_windows(net, [16, 64], torch.randn(1, 3, 4, 32, 32, dtype=torch.float64))
    assert found == {16: None, 64: None}


def test_windows_that_do_not_fit_are_refused(twins):
    clip = torch.zeros(1, 3, 40, 32, 32, dtype=torch.float64)
    for wrong in (24, 0):
        with pytest.raises(ValueError, match="multiples of 16"):
            steps_of_windows(twins(16), [wrong], clip)

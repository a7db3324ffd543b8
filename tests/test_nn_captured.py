"""Steps bound to memory, as CUDA graphs are: everything but the capture itself runs on a CPU."""

import pytest
import torch

import co3d
from co3d.measure.equivalence import calibrate
from co3d.nn.optimize import captured
from co3d.nn.optimize.captured import CapturedStream

MINIS = [name for name in co3d.list_models() if name.startswith("co") and name.endswith("_mini")]


@pytest.fixture
def uncaptured(monkeypatch):
    """Functions in the place of graphs."""
    monkeypatch.setattr(captured, "check_device", lambda device: None)
    monkeypatch.setattr(CapturedStream, "_captured", lambda self, work: work)


def stream_net(name, size=32, **options):
    torch.manual_seed(0)
    net = co3d.create(name, **options)
    calibrate(net, torch.randn(2, 3, max(16, net.window), size, size))
    return net.double()


@pytest.mark.parametrize("name", MINIS)
def test_bound_steps_equal_the_step(uncaptured, name):
    net = stream_net(name)
    weights = {key: value.clone() for key, value in net.state_dict().items()}
    frames = torch.randn(net.receptive_field + 2 * net.stride, 2, 3, 32, 32, dtype=torch.float64)
    twin = co3d.optimize(net, frames[0], torch.float64, graph=True)
    ours, expected = co3d.Stream(twin), co3d.Stream(net)
    for again in range(2):
        for frame in frames[: None if again else net.warmup + 1]:
            wanted, given = expected(frame), ours(frame)
            assert (given is None) == (wanted is None)
            if wanted is not None:
                torch.testing.assert_close(given, wanted, rtol=0, atol=1e-10)
        ours.reset(), expected.reset()
    assert (twin.warmup, twin.stride, twin.window) == (net.warmup, net.stride, net.window)
    assert all(torch.equal(value, weights[key]) for key, value in net.state_dict().items())


def test_other_types_inside_leave_the_net_as_it_is(uncaptured):
    net = stream_net("cox3d_mini").float()
    frame = torch.randn(1, 3, 32, 32)
    stream = co3d.Stream(co3d.optimize(net, frame, torch.bfloat16, graph=True))
    for _ in range(net.warmup + 1):
        logits = stream(frame)
    assert logits.dtype == net.classifier.weight.dtype == torch.float32


def test_streams_go_separate_ways_and_a_state_is_consumed(uncaptured):
    net = stream_net("cox3d_mini", window=16)
    first, *frames = torch.randn(net.warmup + 6, 1, 3, 32, 32, dtype=torch.float64)
    twin = co3d.optimize(net, first, torch.float64, graph=True)
    _, state = twin.step(first)
    _, expected = net.step(first)
    for frame in frames[:-1]:
        _, state = twin.step(frame, state)
        _, expected = net.step(frame, expected)
    fork = co3d.clone(state)
    before = state
    for held in (state, fork):
        logits, _ = twin.step(frames[-1], held)
        torch.testing.assert_close(logits, net.step(frames[-1], expected)[0], rtol=0, atol=1e-10)
    with pytest.raises(ValueError, match="given one consumed"):
        twin.step(frames[-1], before)


def test_what_cannot_be_captured_is_refused(uncaptured, monkeypatch):
    net, frame = co3d.create("cox3d_mini"), torch.zeros(1, 3, 32, 32)
    twin = co3d.optimize(net, frame, graph=True)
    with pytest.raises(ValueError, match=r"expected a frame \(1, 3, 32, 32\) of torch.float32"):
        twin.step(frame.double())
    with pytest.raises(TypeError, match="expected a frame as a tensor, given int"):
        twin.step(1)
    with pytest.raises(ValueError, match="expected fill 'zeros'"):
        twin.begin("replicate")
    with pytest.raises(ValueError, match="expected evaluation mode"):
        co3d.optimize(co3d.create("cox3d_mini").train(), frame, graph=True)
    with pytest.raises(TypeError, match="expected a continual net to capture, given ClipNet"):
        co3d.optimize(co3d.create("x3d_mini"), torch.zeros(1, 3, 16, 32, 32), graph=True)
    with pytest.raises(TypeError, match="on cpu, given torch.float16"):
        co3d.optimize(net, frame, torch.float16, graph=True)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="expected a CUDA device to capture graphs of steps"):
        co3d.optimize(net, frame, graph=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", MINIS)
def test_graphs_equal_the_step_on_cuda(name):
    net = stream_net(name).cuda()
    frames = torch.randn(net.receptive_field + 2 * net.stride, 1, 3, 32, 32, dtype=torch.float64)
    frames = frames.cuda()
    ours = co3d.Stream(co3d.optimize(net, frames[0], torch.float64, graph=True))
    expected = co3d.Stream(net)
    for frame in frames:
        wanted, given = expected(frame), ours(frame)
        assert (given is None) == (wanted is None)
        if wanted is not None:
            torch.testing.assert_close(given, wanted, rtol=0, atol=1e-10)

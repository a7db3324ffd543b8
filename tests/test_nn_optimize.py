"""The optimised step: the same outputs at the same frames, in less memory."""

import pytest
import torch
from nets import run

import co3d
from co3d.measure.equivalence import calibrate
from co3d.nn import Conv3d, Linear, Residual, RunningWindow, Sequential, StreamNet

STREAMS = ["cox3d_mini", "coslow_mini", "coi3d_mini", "coslowfast_mini", "cor2plus1d_mini"]
SIZE = 32


def net_of(name, dtype=torch.float64, **options):
    """A net with calibrated random weights."""
    torch.manual_seed(0)
    net = co3d.create(name, **options).to(dtype)
    calibrate(net, torch.randn(2, 3, max(net.window, 16), SIZE, SIZE, dtype=dtype))
    return net


def clip_for(net, batch=1, extra=9):
    torch.manual_seed(1)
    dtype = next(net.parameters()).dtype
    return torch.randn(batch, 3, net.receptive_field + extra, SIZE, SIZE, dtype=dtype)


def fast(net, batch=1, dtype=None):
    frame = clip_for(net, batch)[:, :, 0]
    return co3d.optimize(net, frame, frame.dtype if dtype is None else dtype)


@pytest.mark.parametrize("fill", ["zeros", "replicate"])
@pytest.mark.parametrize("name", STREAMS)
def test_every_step_and_the_flush_equal_those_of_the_net(name, fill):
    net = net_of(name)
    twin, clip = fast(net), clip_for(net)
    assert (twin.warmup, twin.stride, twin.window) == (net.warmup, net.stride, net.window)
    slow, quick = net.begin(fill), twin.begin(fill)
    for frame in clip.unbind(2):
        expected, slow = net.step(frame, slow)
        given, quick = twin.step(frame, quick)
        assert (given is None) == (expected is None)
        if given is not None:
            torch.testing.assert_close(given, expected, rtol=0, atol=1e-10)
    expected, given = net.flush(slow)[0], twin.flush(quick)[0]
    torch.testing.assert_close(given, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "name, options",
    [
        ("coi3d_mini", {"dense": True}),
        ("coslowfast_mini", {"dense": True}),
        ("cox3d_mini", {"gate": "window", "window": 8}),
        ("cox3d_mini", {"window": 40}),
    ],
)
def test_options_of_a_net_are_kept(name, options):
    net = net_of(name, **options)
    clip = clip_for(net)
    torch.testing.assert_close(run(fast(net), clip), run(net, clip), rtol=0, atol=1e-10)


def test_a_batch_of_streams_in_chunks_from_the_first_frame_on():
    net = net_of("cox3d_mini")
    clip = clip_for(net, batch=3)
    expected = run(net, clip, emit="always")
    given = run(fast(net, batch=3), clip, [1, 4, 2], emit="always")
    torch.testing.assert_close(given, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", STREAMS)
def test_float32_stays_within_its_tolerance(name):
    net = net_of(name, torch.float32)
    clip = clip_for(net)
    expected = run(net, clip)
    error = (run(fast(net), clip) - expected).abs().max() / expected.abs().max()
    assert error < 3e-5


@pytest.mark.parametrize("name", STREAMS)
def test_bfloat16_gives_nearly_the_same_probabilities_as_float32(name):
    net, _ = co3d.load(name, "synthetic-kinetics")
    clip = torch.randn(1, 3, net.receptive_field, 48, 48)
    twin = co3d.optimize(net, clip[:, :, 0], torch.bfloat16)
    expected, given = run(net, clip), run(twin, clip)
    assert given.dtype == torch.float32 and given.shape == expected.shape
    assert (given.softmax(1) - expected.softmax(1)).abs().max() < 0.1


def test_ring_and_sums_agree(monkeypatch):
    net, results = net_of("cox3d_mini"), []
    for limit in (0, 1 << 30):
        monkeypatch.setattr("co3d.nn.optimize.stream.RING", limit)
        results.append(run(fast(net), clip_for(net)))
    torch.testing.assert_close(*results, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", STREAMS)
def test_steps_consume_a_state_and_a_clone_goes_its_own_way(name):
    net = net_of(name)
    twin, clip = fast(net), clip_for(net)
    _, state = twin.steps(clip[:, :, :-4])
    fork = co3d.clone(state)
    first, _ = twin.steps(clip[:, :, -4:], state, end=True)
    twin.steps(torch.randn_like(clip))  # another stream in between
    second, _ = twin.steps(clip[:, :, -4:], fork, end=True)
    assert torch.equal(first, second)


def test_a_clip_gives_the_last_window_as_before():
    net = net_of("cox3d_mini")
    twin, clip = fast(net), clip_for(net)
    torch.testing.assert_close(twin(clip), net(clip), rtol=0, atol=1e-10)
    torch.testing.assert_close(twin(clip, pad=False), net(clip, pad=False), rtol=0, atol=1e-10)


def test_the_original_the_frames_and_earlier_outputs_are_left_alone():
    net = net_of("cox3d_mini")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    twin, clip = fast(net), clip_for(net)
    kept, stream, outputs = clip.clone(), co3d.Stream(twin), []
    for frame in clip.unbind(2):
        if (y := stream(frame)) is not None:
            outputs.append((y, y.clone()))
            y.requires_grad_()  # an ordinary tensor
    assert torch.equal(clip, kept)
    assert outputs and all(torch.equal(y, copy) for y, copy in outputs)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_a_block_that_keeps_the_frame_itself_is_not_changed_with_it():
    """A camera may fill the same memory again."""
    torch.manual_seed(0)
    conv = Conv3d(4, 4, (3, 1, 1), padding=(1, 0, 0))
    body = Sequential(Residual(Sequential(conv)), RunningWindow(2))
    net = StreamNet(body, Linear(4, 3)).double().eval()
    frames = torch.randn(6, 1, 4, 5, 5, dtype=torch.float64)
    memory = frames[0].contiguous(memory_format=torch.channels_last)
    twin = co3d.optimize(net, memory, torch.float64)
    slow, quick = net.begin(), twin.begin()
    for frame in frames:
        memory.copy_(frame)
        (expected, slow), (given, quick) = net.step(frame, slow), twin.step(memory, quick)
        assert (given is None) == (expected is None)
        if given is not None:
            torch.testing.assert_close(given, expected, rtol=0, atol=1e-10)


def test_features_are_those_before_the_classifier():
    net = net_of("coslow_mini")
    twin, clip = fast(net), clip_for(net)
    expected, _ = net.steps(clip, features=True)
    given, _ = twin.steps(clip, features=True)
    torch.testing.assert_close(given, expected, rtol=0, atol=1e-10)


def test_other_frames_types_and_states_are_refused():
    net = net_of("cox3d_mini", torch.float32)
    twin, frame = fast(net), clip_for(net)[:, :, 0]
    with pytest.raises(ValueError, match="for which the net was optimised"):
        twin.step(frame[:, :, 1:])
    with pytest.raises(ValueError, match="for which the net was optimised"):
        twin.step(frame.double())
    with pytest.raises(ValueError, match="expected a state of this model"):
        twin.step(frame, net.begin())
    with pytest.raises(TypeError, match="expected dtype in"):
        co3d.optimize(net, frame, torch.float16)
    with pytest.raises(ValueError, match="use .eval"):
        co3d.optimize(net.train(), frame)


def test_blocks_with_a_temporal_stride_wait_for_valid_outputs():
    twin = fast(net_of("cor2plus1d_mini"))
    with pytest.raises(ValueError, match="expected emit='valid'"):
        twin.begin(emit="always")

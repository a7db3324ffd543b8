"""States are values: interleaved, forked, saved, batched; and bad input meets one sentence."""

import copy
import re
from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nets import run

import co3d
import co3d.nn as co
from co3d.measure.equivalence import calibrate


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    model = co3d.create("cox3d_mini", window=8).double()
    return calibrate(model, frames(40, batch=2))


def frames(n, batch=1, seed=0, size=32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, n, size, size, generator=generator, dtype=torch.float64)


def strided_net():
    torch.manual_seed(0)
    first = co.Conv3d(3, 8, (3, 3, 3), stride=(2, 2, 2), padding=(1, 1, 1))
    block = co.Residual(co.Conv3d(8, 8, (3, 1, 1), padding=(1, 0, 0)), None, co.ReLU())
    body = co.Sequential(first, block, co.Conv3d(8, 2, (3, 1, 1)), co.RunningWindow(3))
    return body.double().eval()


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-10)


def test_two_interleaved_streams(net):
    a, b = frames(30, seed=1), frames(30, seed=2)
    streams, outputs = (co.Stream(net), co.Stream(net)), ([], [])
    for pair in zip(a.unbind(2), b.unbind(2), strict=True):
        for frame, stream, output in zip(pair, streams, outputs, strict=True):
            output.append(stream(frame))
    for clip, output in zip((a, b), outputs, strict=True):
        emitted = torch.stack([y for y in output if y is not None], 2)
        close(emitted, run(net, clip, flush=False))


@pytest.mark.parametrize("make", [lambda net: net, lambda net: strided_net()], ids=["net", "tree"])
@pytest.mark.parametrize("cut", [3, 20, 25])
def test_forked_saved_and_older_states_go_on_alone(net, make, cut, tmp_path):
    model = make(net)
    head, tails = frames(cut), (frames(20, seed=3), frames(20, seed=4))
    state = model.steps(head)[1]
    torch.save(state, tmp_path / "state.pt")
    restored = torch.load(tmp_path / "state.pt", weights_only=True)
    for tail in tails:
        whole = run(model, torch.cat([head, tail], 2), flush=False)
        for start in (state, co.clone(state), restored):
            y = model.steps(tail, start)[0]
            close(y, whole[:, :, -y.shape[2] :])


@pytest.mark.parametrize("seen", [(25, 25), (25, 41), (4, 4)])
def test_a_batch_of_streams_agrees_with_single_ones(net, seen):
    heads = [frames(n, seed=n + i) for i, n in enumerate(seen)]
    tail = frames(30, batch=2, seed=9)
    states = [net.steps(head)[1] for head in heads]
    stacked = co.stack(states)
    together, after = net.steps(tail, stacked)
    for n, (state, single) in enumerate(zip(states, co.unstack(after), strict=True)):
        alone, after_alone = net.steps(tail[n : n + 1], state)
        close(together[n : n + 1], alone)
        more = frames(3, seed=11)
        close(net.steps(more, single)[0], net.steps(more, after_alone)[0])


def test_states_stack_only_at_equal_phase(net):
    tree = strided_net()
    even, odd, later = (tree.steps(frames(n))[1] for n in (20, 21, 32))
    assert co.stack([even, later])["frame"][0] == 2
    for others in ([even, odd], [even, net.steps(frames(20))[1]], [even, tree.begin()]):
        with pytest.raises(ValueError, match="one model, frame size and phase"):
            co.stack(others)
    with pytest.raises(ValueError, match="at least one state"):
        co.stack([])
    with pytest.raises(ValueError, match="given a new one"):
        co.unstack(tree.begin())


def test_the_state_after_a_step_does_not_change_the_state_before(net):
    state = net.steps(frames(25))[1]
    before = [t.clone() for t in co.core.iter_tensors(state)]
    net.steps(frames(5, seed=5), state, end=True)
    for was, now in zip(before, co.core.iter_tensors(state), strict=True):
        assert torch.equal(was, now)


@pytest.mark.parametrize("make", [lambda net: net, lambda net: strided_net()], ids=["net", "tree"])
def test_a_frame_buffer_may_be_used_again(net, make):
    model, clip = make(net), frames(30)
    buffer, state = torch.empty_like(clip[:, :, 0]), None
    for frame in clip.unbind(2):
        y, state = model.step(buffer.copy_(frame), state)
        buffer.fill_(float("nan"))
    close(y, run(model, clip, flush=False)[:, :, -1])


@pytest.mark.slow
@torch.no_grad()
def test_twenty_thousand_steps_do_not_drift():
    """float32 over a long stream against the unpadded net on the last frames alone."""
    torch.manual_seed(0)
    net = calibrate(co3d.create("cox3d_mini", window=8), frames(40, batch=2).float())
    clip, state = frames(50, size=8).float(), None
    assert 20_000 % 50 == 0
    for n in range(20_000):
        y, state = net.step(clip[:, :, n % 50], state)
    expected = net(clip[:, :, -net.receptive_field :], pad=False)
    torch.testing.assert_close(y, expected, rtol=0, atol=float(1e-4 * expected.abs().max()))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_net_in_chunks(lengths):
    model, clip = _small_net(), frames(36, size=16)
    whole = model.steps(clip, end=True)[0]
    close(run(model, clip, lengths), whole)
    close(model(clip), whole[:, :, -1])


@cache  # a fixture cannot be mixed with @given
def _small_net():
    model = co3d.create("cox3d_mini", window=5).double()
    return calibrate(model, frames(30, batch=2, size=16))


def test_features_are_what_the_classifier_takes(net):
    clip = frames(30)
    y, _ = net.steps(clip, features=True)
    close(net.classifier(y), net.steps(clip)[0])
    close(net.classifier(net.features(clip)), net(clip))
    state = net.steps(clip)[1]
    frame = frames(1, seed=7)[:, :, 0]
    close(net.classifier(net.step(frame, state, features=True)[0]), net.step(frame, state)[0])


def _state_of_another(net):
    return co3d.create("cox3d_mini", window=9).double().begin()


BAD = {
    "rank": (lambda n: n.step(frames(1)), ValueError, r"frame \(B, C, H, W\), given shape \(1, 3,"),
    "clip rank": (lambda n: n(frames(9)[0]), ValueError, r"clip \(B, C, T, H, W\), given shape"),
    "channels": (lambda n: n.step(frames(1)[:, :2, 0]), ValueError, "expected 3 channels, given 2"),
    "clip channels": (lambda n: n(frames(30)[:, :2]), ValueError, "3 channels, given 2"),
    "no tensor": (lambda n: n.step([1.0]), TypeError, "as a tensor, given list"),
    "integers": (lambda n: n.step(frames(1)[:, :, 0].int()), TypeError, "given torch.int32"),
    "dtype": (
        lambda n: n.step(frames(1)[:, :, 0].float()),
        TypeError,
        "expected torch.float64 as in the weights, given torch.float32",
    ),
    "device": (
        lambda n: n.step(torch.empty(1, 3, 32, 32, device="meta", dtype=torch.float64)),
        ValueError,
        "expected device cpu as in the weights, given meta",
    ),
    "size": (
        lambda n: n.step(frames(1)[:, :, 0, :16, :16], n.steps(frames(9))[1]),
        ValueError,
        r"expected the frame size of the state, \(1, 3, 32, 32\), given \(1, 3, 16, 16\)",
    ),
    "batch": (
        lambda n: n.step(frames(1, batch=2)[:, :, 0], n.steps(frames(9))[1]),
        ValueError,
        "expected the batch of the state",
    ),
    "other model": (
        lambda n: n.step(frames(1)[:, :, 0], _state_of_another(n)),
        ValueError,
        "expected a state of this model, StreamNet-.* given one of StreamNet-",
    ),
    "closed": (
        lambda n: n.steps(frames(3), n.steps(frames(3), end=True)[1]),
        ValueError,
        "expected an open state, given one that was closed",
    ),
    "no state": (lambda n: n.steps(frames(3), "state"), TypeError, "expected a state from begin"),
    "nothing": (lambda n: n.steps(None), ValueError, "empty chunk without end=True"),
    "empty": (lambda n: n.steps(frames(0)), ValueError, "empty chunk without end=True"),
    "fill": (lambda n: n.begin(fill="ones"), ValueError, "expected fill in .* given 'ones'"),
    "emit": (lambda n: n.begin(emit="never"), ValueError, "and 'never'"),
    "short clip": (
        lambda n: n(frames(5)),
        ValueError,
        "at least 8 frames, the window, given 5",
    ),
    "short unpadded": (
        lambda n: n(frames(20), pad=False),
        ValueError,
        "at least 24 frames, the receptive field, for pad=False, given 20",
    ),
    "training": (
        lambda n: _training(n).steps(frames(3)),
        ValueError,
        r"in training: use .eval\(\)",
    ),
}


def _training(net):
    return copy.deepcopy(net).train()


@pytest.mark.parametrize("case", BAD)
def test_bad_input_names_what_was_expected_and_given(net, case):
    call, kind, words = BAD[case]
    with pytest.raises(kind, match=words) as caught:
        call(net)
    assert len(re.findall(r"[.] [A-Z]", str(caught.value))) == 0, "one sentence"


def test_layers_check_too():
    conv = co.Conv3d(2, 3, 3)
    with pytest.raises(ValueError, match="frames of 3 pixels or more for Conv3d, given 2"):
        conv.step(torch.randn(1, 2, 2, 8))
    with pytest.raises(ValueError, match="expected 2 channels, given 1"):
        conv.step(torch.randn(1, 1, 8, 8))
    with pytest.raises(ValueError, match="at least 3 frames for Conv3d, given 2"):
        conv(torch.randn(1, 2, 2, 8, 8))
    state = conv.step(torch.randn(1, 2, 8, 8))[1]
    with pytest.raises(TypeError, match="expected torch.float32 as in the state"):
        co.MaxPool3d(2).step(
            torch.randn(1, 2, 8, 8).double(), co.MaxPool3d(2).step(torch.randn(1, 2, 8, 8))[1]
        )
    assert state["frame"] == (1, 2, 8, 8)


def test_streams_run_under_autocast():
    """Layers hold half precision then, the frames stay what they are."""
    model = co3d.create("cox3d_mini", window=5)
    clip = frames(24, size=16).float()
    with torch.autocast("cpu", torch.bfloat16):
        y = run(model, clip, [1, 5], flush=False)
    expected = run(model, clip, flush=False)
    assert y.shape == expected.shape and (y - expected).abs().max() < 0.05


def test_nan_passes_through(net):
    clip = frames(30)
    clip[:, :, 20] = float("nan")
    assert net.steps(clip)[0].isnan().any()

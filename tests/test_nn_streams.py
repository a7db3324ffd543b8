"""States are values: interleaved, forked, saved, batched; and bad input meets one sentence."""

import copy
import re
from functools import cache

import pytest
import torch
from nets import run
from trees import close

import co3d
import co3d.nn as co
from co3d.measure.equivalence import calibrate


def frames(n, batch=1, seed=0, size=32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, n, size, size, generator=generator, dtype=torch.float64)


@cache
def net():
    torch.manual_seed(0)
    model = co3d.create("cox3d_mini", window=8).double()
    return calibrate(model, frames(40, batch=2))


@cache
def tree():
    first = co.Conv3d(3, 8, (3, 3, 3), stride=(2, 2, 2), padding=(1, 1, 1))
    block = co.Residual(co.Conv3d(8, 8, (3, 1, 1), padding=(1, 0, 0)), None, co.ReLU())
    body = co.Sequential(first, block, co.Conv3d(8, 2, (3, 1, 1)), co.RunningWindow(3))
    return body.double().eval()


@pytest.mark.parametrize("make", [net, tree])
def test_streams_interleave_in_one_frame_buffer_and_reset(make):
    model, clips = make(), (frames(30, seed=1), frames(30, seed=2))
    expected = [run(model, clip, flush=False) for clip in clips]
    streams, buffer = [co.Stream(model) for _ in clips], torch.empty_like(clips[0][:, :, 0])
    for _ in range(2):
        outputs = [[], []]
        for number in range(30):
            for clip, stream, output in zip(clips, streams, outputs, strict=True):
                y = stream(buffer.copy_(clip[:, :, number]))
                output += [] if y is None else [y]
                buffer.fill_(float("nan"))
        for stream, output, whole in zip(streams, outputs, expected, strict=True):
            close(torch.stack(output, 2), whole)
            stream.reset()


@pytest.mark.parametrize("make", [net, tree])
@pytest.mark.parametrize("cut", [3, 20, 25])
def test_forked_saved_stacked_and_older_states_go_on_alone(make, cut, tmp_path):
    model, head, tails = make(), frames(cut), (frames(20, seed=3), frames(20, seed=4))
    state = model.steps(head)[1]
    torch.save(state, tmp_path / "state.pt")
    restored = torch.load(tmp_path / "state.pt", weights_only=True)
    copied = co.clone(state)
    memory = [{t.data_ptr() for t in co.core.iter_tensors(s) if t.numel()} for s in (state, copied)]
    assert memory[0].isdisjoint(memory[1])
    wholes = [run(model, torch.cat([head, tail], 2), flush=False) for tail in tails]
    for tail, whole in zip(tails, wholes, strict=True):
        for start in (state, copied, restored):
            y = model.steps(tail, start)[0]
            close(y, whole[:, :, -y.shape[2] :])
            model.steps(tail, start, end=True)  # changes no older state
    y = model.steps(torch.cat(tails), co.stack([state, restored]))[0]
    close(y, torch.cat(wholes)[:, :, -y.shape[2] :])


@pytest.mark.parametrize(
    ("states", "words"),
    [
        (lambda state: [state, tree().steps(frames(21))[1]], "one model, frame size and phase"),
        (lambda state: [state, net().steps(frames(20))[1]], "one model, frame size and phase"),
        (lambda state: [state, tree().begin()], "one model, frame size and phase"),
        (lambda state: [], "at least one state"),
    ],
)
def test_states_stack_only_at_equal_phase(states, words):
    even, later = (tree().steps(frames(n))[1] for n in (20, 32))
    assert co.stack([even, later])["frame"][0] == 2
    with pytest.raises(ValueError, match=words):
        co.stack(states(even))
    with pytest.raises(ValueError, match="given a new one"):
        co.unstack(tree().begin())


def test_state_size_of_a_stream_is_constant():
    sizes = {co.state_bytes(net().steps(frames(n))[1]) for n in (32, 40, 60)}
    assert len(sizes) == 1


def test_features_are_what_the_classifier_takes():
    model, clip, frame = net(), frames(30), frames(1, seed=7)[:, :, 0]
    y, state = model.steps(clip, features=True)
    close(model.classifier(y), model.steps(clip)[0])
    close(model.classifier(model.features(clip)), model(clip))
    close(model.classifier(model.step(frame, state, features=True)[0]), model.step(frame, state)[0])


def test_an_ended_stream_is_closed_even_if_it_saw_nothing():
    y, state = net().steps(None, net().begin(), end=True)
    assert y is None and state["closed"]
    assert net().steps(frames(0), end=True)[0] is None


def _other():
    return co3d.create("cox3d_mini", window=9).double()


FRAME, LAYER = frames(1)[:, :, 0], co.Conv3d(2, 3, 3)
PLAIN = torch.zeros(1, 2, 8, 8)
BAD = {
    "rank": (lambda n: n.step(frames(1)), r"frame \(B, C, H, W\), given shape \(1, 3,"),
    "clip rank": (lambda n: n(frames(9)[0]), r"clip \(B, C, T, H, W\), given shape"),
    "channels": (lambda n: n.step(FRAME[:, :2]), "expected 3 channels, given 2"),
    "no tensor": (lambda n: n.step([1.0]), "as a tensor, given list"),
    "dtype": (
        lambda n: n.step(FRAME.float()),
        "expected torch.float64 as in the weights, given torch.float32",
    ),
    "device": (
        lambda n: n.step(torch.empty_like(FRAME, device="meta")),
        "expected device cpu as in the weights, given meta",
    ),
    "size": (
        lambda n: n.step(FRAME[..., :16, :16], n.steps(frames(9))[1]),
        r"expected the frame size of the state, \(1, 3, 32, 32\), given \(1, 3, 16, 16\)",
    ),
    "batch": (
        lambda n: n.step(torch.cat([FRAME, FRAME]), n.steps(frames(9))[1]),
        "expected the batch of the state",
    ),
    "other model": (
        lambda n: n.step(FRAME, _other().begin()),
        "expected a state of this model, StreamNet-.* given one of StreamNet-",
    ),
    "closed": (
        lambda n: n.steps(frames(3), n.steps(frames(3), end=True)[1]),
        "expected an open state, given one that was closed",
    ),
    "no state": (lambda n: n.steps(frames(3), "state"), "expected a state from begin"),
    "nothing": (lambda n: n.steps(None), "empty chunk without end=True"),
    "empty": (lambda n: n.steps(frames(0)), "empty chunk without end=True"),
    "fill": (lambda n: n.begin(fill="ones"), "expected fill in .* given 'ones'"),
    "emit": (lambda n: n.begin(emit="never"), "and 'never'"),
    "short clip": (lambda n: n(frames(5)), "at least 8 frames, the window, given 5"),
    "short unpadded": (
        lambda n: n(frames(20), pad=False),
        "at least 24 frames, the receptive field, for pad=False, given 20",
    ),
    "training": (lambda n: copy.deepcopy(n).train().begin(), r"in training: use .eval\(\)"),
    "dropout": (
        lambda n: co.Sequential(co.ReLU(), co.Dropout()).begin(),
        "given Dropout 1 in training",
    ),
    "small frames": (
        lambda n: LAYER.step(PLAIN[:, :, :2]),
        "frames of 3 pixels or more for Conv3d, given 2",
    ),
    "few frames": (
        lambda n: LAYER(torch.zeros(1, 2, 2, 8, 8)),
        "at least 3 frames for Conv3d, given 2",
    ),
    "dtype of a state": (
        lambda n: co.MaxPool3d(2).step(PLAIN.double(), co.MaxPool3d(2).step(PLAIN)[1]),
        "expected torch.float32 as in the state",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_names_what_was_expected_and_given(case):
    call, words = BAD[case]
    with pytest.raises((TypeError, ValueError), match=words) as caught:
        call(net())
    assert len(re.findall(r"[.] [A-Z]", str(caught.value))) == 0, "one sentence"


def test_streams_run_under_autocast():
    """Layers hold half precision then, the frames stay what they are."""
    model = co3d.create("cox3d_mini", window=5)
    clip = frames(24, size=16).float()
    with torch.autocast("cpu", torch.bfloat16):
        y = run(model, clip, [1, 5], flush=False)
    expected = run(model, clip, flush=False)
    assert y.shape == expected.shape and (y - expected).abs().max() < 0.05

"""Trees of layers: any nesting, stride, dilation and chunking equals the clip forward."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from nets import run
from torch import nn
from trees import clip, close, conv, forward, lengths, trees, two_paths

import co3d.nn as co


@given(trees, st.integers(1, 30), lengths)
def test_steps_and_flush_equal_the_clip(tree, frames, lengths):
    x = clip(frames)
    expected = forward(tree, x)
    assert expected.shape[2] == (frames + tree.timing.surplus) // tree.stride + 1
    close(run(tree, x, lengths), expected)
    whole, state = tree.steps(x, end=True)
    close(whole, expected)
    assert state["closed"]


@given(trees, lengths)
def test_emissions_from_the_receptive_field_on_equal_the_unpadded_net(tree, lengths):
    assume(tree.receptive_field < 60)
    x = clip(tree.receptive_field + 2 * tree.stride + tree.padding)
    assert tree.warmup == tree.receptive_field - 1 - tree.padding
    assert run(tree, x[:, :, : tree.warmup], flush=False) is None
    y = run(tree, x, lengths, flush=False)
    assert y.shape[2] == len(range(tree.warmup, x.shape[2], tree.stride))
    first = -(-tree.padding // tree.stride)  # column that sees frames alone
    for column in range(first, y.shape[2]):
        start = column * tree.stride - tree.padding
        expected = tree(x[:, :, start : start + tree.receptive_field], pad=False)
        close(y[:, :, column : column + 1], expected)


@given(trees, st.integers(1, 40))
def test_timing_says_how_many_columns_there_are_and_which_frames_reach_them(tree, frames):
    """A NaN marks every column that depends on its frame, and no other."""
    x, timing = clip(frames), tree.timing
    columns = forward(tree, x).shape[2]
    assert columns == (frames + timing.surplus) // timing.stride + 1
    first = torch.arange(columns) * timing.stride - timing.padding
    last = first + timing.receptive_field - 1
    inside = (first >= 0) & (last < frames)
    reach = not any(isinstance(part, co.Delay) for part in tree.modules())  # sees one frame of many
    for frame in range(frames):
        marked = x.clone()
        marked[:, :, frame] = float("nan")
        moved = tree(marked).isnan().any(1).flatten(2).any(2)[0]
        assert (first[moved] <= frame).all() and (last[moved] >= frame).all()
        assert not reach or moved[inside & ((first == frame) | (last == frame))].all()


@given(trees, st.sampled_from(["zeros", "replicate"]), lengths)
def test_always_emitting_streams_agree_once_the_past_is_real(tree, fill, lengths):
    """Any fill and emission is forgotten after RF frames, and chunks do not matter before."""
    assume(tree.receptive_field < 60)
    x = clip(tree.receptive_field + 2 * tree.stride)
    y = run(tree, x, lengths, flush=False, fill=fill, emit="always")
    close(y, run(tree, x, flush=False, fill=fill, emit="always"))
    assert y.shape[2] == len(range(tree.warmup % tree.stride, x.shape[2], tree.stride))
    close(y[:, :, -1], run(tree, x, flush=False)[:, :, -1])


@given(st.one_of(trees, two_paths()))
def test_always_emitting_streams_keep_their_phase(tree):
    """Where strided branches join, the first output alone may come late, by less than a stride."""
    assume(tree.stride < 20)
    frames, stride = 3 * tree.stride + 2, tree.stride
    state, came = tree.begin(emit="always"), []
    for number, frame in enumerate(clip(frames).unbind(2)):
        y, state = tree.step(frame, state)
        came += [] if y is None else [number]
    due = list(range(tree.warmup % stride, frames, stride))
    assert came[1:] == due[1:] and due[0] <= came[0] < due[1]
    assert stride > 1 or came[0] == 0


@given(trees)
def test_a_nan_frame_is_forgotten_after_the_receptive_field(tree):
    assume(tree.receptive_field < 60)
    x = clip(tree.receptive_field + 2 * tree.stride)
    x[:, :, 0] = float("nan")
    y = run(tree, x, flush=False)
    clean = [n for n in range(y.shape[2]) if n * tree.stride > tree.padding]
    assert clean and y[:, :, clean].isfinite().all()


@given(trees, st.integers(1, 30), st.integers(0, 2), lengths)
def test_states_are_stacked_at_equal_phase_and_taken_apart(tree, seen, periods, lengths):
    """Streams of one age at any time, of other ages past the warm-up."""
    assume(tree.receptive_field < 60)
    seen += (tree.receptive_field + tree.padding) * (periods > 0)
    heads = clip(seen), clip(seen + periods * tree.stride)
    states = [tree.steps(head)[1] for head in heads]
    tail = clip(tree.receptive_field + tree.stride, batch=2)
    together, after = tree.steps(tail, co.stack(states))
    for n, state in enumerate(co.unstack(after)):
        flushed = tree.flush(state)[0]
        y = together[n : n + 1]
        y = y if flushed is None else torch.cat([y, flushed], 2)
        whole = run(tree, torch.cat([heads[n], tail[n : n + 1]], 2), lengths)
        close(y, whole[:, :, -y.shape[2] :])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: co.Residual(conv(3)), "one stride and one output length"),
        (lambda: co.Residual(conv(3, 2, 1)), "one stride and one output length"),
        (lambda: co.Residual(nn.Conv3d(2, 2, 1)), "given Conv3d as 'main'"),
        (
            lambda: co.Residual(conv(3, 1, 1), activation=conv(3, 1, 1)),
            "treats every frame alone",
        ),
    ],
)
def test_branches_that_do_not_fit_are_refused(make, words):
    with pytest.raises((TypeError, ValueError), match=words):
        make()


def test_residual_joins_by_output_index():
    """main = x[t-1] + x[t+1] by hand: frame t leaves with its own main column one frame later."""
    main = co.Conv3d(1, 1, (3, 1, 1), padding=(1, 0, 0), bias=False)
    with torch.no_grad():
        main.weight.copy_(torch.tensor([1.0, 0.0, 1.0]).view(1, 1, 3, 1, 1))
    x = torch.arange(1.0, 6.0).view(1, 1, 5, 1, 1)
    block = co.Residual(main)
    y, state = block.steps(x)
    assert y.flatten().tolist() == [1 + 2, 2 + 4, 3 + 6, 4 + 8]
    assert block.flush(state)[0].flatten().tolist() == [5 + 4]

"""dense=True: an output on every frame, of which every stride-th is that of the strided net."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from nets import run
from trees import CHANNELS, clip, close, conv, forward, lengths, trees

import co3d
import co3d.nn as co
from co3d.measure.equivalence import calibrate


def dense_twin(tree):
    """Trees that dense=True refuses are tested elsewhere."""
    try:
        return co3d.continual(tree, dense=True)
    except ValueError as error:
        assume("no average pool" not in str(error))
        raise


def head(stride):
    """A strided start, so that most of a tree behind it has something to dilate."""
    return co.Sequential(conv(3, stride, 1), co.ReLU()).double()


strided = st.tuples(st.integers(1, 3), trees).map(
    lambda pair: co.Sequential(head(pair[0]), *pair[1]).eval()
)


@given(strided, st.integers(1, 40), lengths)
def test_strided_columns_are_among_the_dense_ones(tree, frames, lengths):
    dense, x = dense_twin(tree), clip(frames)
    expected, every = forward(tree, x), dense(x)
    assert every.shape[2] == frames + tree.timing.surplus + 1
    close(every[:, :, :: tree.stride], expected)
    close(run(dense, x, lengths), every)


@given(strided, lengths)
def test_every_frame_has_the_output_of_the_unpadded_strided_net(tree, lengths):
    assume(tree.receptive_field < 60)
    dense, field = dense_twin(tree), tree.receptive_field
    x = clip(field + 2 * tree.stride)
    columns = run(dense, x, lengths, flush=False)
    assert columns.shape[2] == x.shape[2] - tree.warmup
    for last in range(field, x.shape[2] + 1):
        seen = tree(x[:, :, last - field : last], pad=False)
        close(columns[:, :, last - 1 - tree.warmup : last - tree.warmup], seen)


@given(strided)
def test_a_dense_net_shares_parameters_and_is_its_own_dense_twin(tree):
    before, dense = repr(tree), dense_twin(tree)
    assert dense.timing == tree.timing._replace(stride=1)
    assert repr(tree) == before
    tensors = [dict(net.named_parameters()) | dict(net.named_buffers()) for net in (tree, dense)]
    assert list(tensors[0]) == list(tensors[1])
    assert all(a is b for a, b in zip(*(x.values() for x in tensors), strict=True))
    assert repr(co3d.continual(dense, dense=True)) == repr(dense) == repr(co3d.continual(dense))


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(
    "behind",
    [
        lambda: co.MaxPool3d((2, 1, 1), (2, 1, 1), (1, 0, 0)),
        lambda: co.MaxPool3d((3, 2, 2), 2, 1, dilation=(2, 1, 1)),
        lambda: co.MaxPool3d((4, 1, 1), (3, 1, 1), (2, 0, 0)),
        lambda: conv(3, 2, 4, 2),
        lambda: co.Conv3d(CHANNELS, 3, 3, 2, 1, bias=False),
        lambda: co.Conv3d(CHANNELS, 3, (3, 1, 1), padding="same"),
        lambda: co.Sequential(co.Delay(3), co.Subsample(2), co.RunningWindow(3)),
        lambda: co.SqueezeExcite(CHANNELS, 3, "frame"),
    ],
)
def test_layers_behind_strides(behind, stride):
    tree = co.Sequential(conv(3, stride, 1), behind(), co.ReLU(), co.RunningWindow(2))
    tree.double().eval()
    dense = co3d.continual(tree, dense=True)
    x = clip(tree.receptive_field + tree.padding + 3)
    close(run(dense, x, [1, 4])[:, :, :: tree.stride], tree(x))
    seen, every = x[:, :, -tree.receptive_field :], run(dense, x, flush=False)
    close(every[:, :, -1:], tree(seen, pad=False))


def test_an_average_pool_behind_a_stride_is_refused():
    def tree(stride):
        second = co.Sequential(co.ReLU(), co.AvgPool3d(2))
        return co.Sequential(co.named(a=conv(1, stride), b=second))

    words = r"AvgPool3d at b\.1: expected no average pool behind a stride"
    with pytest.raises(ValueError, match=words):
        co3d.continual(tree(2), dense=True)
    assert co3d.continual(tree(1), dense=True).stride == 1


STRIDED = {"coi3d_mini": 2, "coslowfast_mini": 4, "cor2plus1d_mini": 4}


@pytest.mark.parametrize("name", STRIDED)
@torch.no_grad()
def test_windows_of_dense_nets_are_input_frames(name):
    model = calibrate(co3d.create(name, window=8).double(), clip(40, size=16, channels=3))
    stride = STRIDED[name]
    dense = co3d.continual(model, dense=True)
    assert (model.stride, dense.stride) == (stride, 1)
    assert dense.window == model.window == 8 and dense.receptive_field == model.receptive_field
    for window in (stride, 12, 16):
        wider, alike = (co3d.continual(part, window=window) for part in (dense, model))
        assert wider.window == alike.window == window and wider.stride == 1
        assert wider.receptive_field == alike.receptive_field == model.receptive_field + window - 8
        assert repr(co3d.continual(alike, dense=True)) == repr(wider)
        assert repr(co3d.continual(model, window=window, dense=True)) == repr(wider)
        x = clip(alike.receptive_field, size=16, channels=3)
        close(wider.steps(x)[0][:, :, -1], alike(x, pad=False))
    with pytest.raises(ValueError, match=f"a multiple of {stride}, given {stride + 1}"):
        co3d.continual(dense, window=stride + 1)

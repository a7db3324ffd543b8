"""dense=True: an output on every frame, of which every stride-th is that of the strided net."""

from functools import cache

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from nets import run
from trees import CHANNELS, clip, close, conv, forward, lengths, path_plans, trees, two_path

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
def test_constants_and_parameters_are_those_of_the_strided_net(tree):
    before, dense = repr(tree), dense_twin(tree)
    assert dense.timing == tree.timing._replace(stride=1)
    assert repr(tree) == before
    for (name, held), (other, shared) in zip(
        [*tree.named_parameters(), *tree.named_buffers()],
        [*dense.named_parameters(), *dense.named_buffers()],
        strict=True,
    ):
        assert held is shared and name == other


@given(path_plans(), st.integers(1, 2), st.integers(1, 50), lengths)
def test_dense_two_path_nets(plan, stride, frames, lengths):
    tree = co.Sequential(head(stride), two_path(plan))
    dense, x = co3d.continual(tree, dense=True), clip(frames)
    assert dense[1].alpha == 1 and dense.timing == tree.timing._replace(stride=1)
    expected = forward(tree, x)
    close(run(dense, x, lengths)[:, :, :: tree.stride], expected)
    assume(tree.receptive_field < 60)
    x = clip(tree.receptive_field + 1)
    y = run(dense, x, lengths, flush=False)[:, :, -1:]
    close(y, tree(x[:, :, 1:], pad=False))


def strided_block(stride):
    """A residual with a strided shortcut, nested in another."""
    inner = co.Residual(conv(3, stride, 1), conv(1, stride), co.ReLU())
    main = co.Sequential(inner, conv(5, 1, 2), co.Residual(conv(3, 1, 1)))
    return co.Residual(main, co.Sequential(co.Delay(2), conv(1, stride)))


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
        lambda: strided_block(2),
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


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (lambda: co.AvgPool3d(2), r"AvgPool3d at b\.1: expected no average pool behind a stride"),
    ],
)
def test_refused_behind_a_stride(layer, words):
    def tree(stride):
        second = co.Sequential(co.ReLU(), layer())
        return co.Sequential(co.named(a=conv(1, stride), b=second))

    with pytest.raises(ValueError, match=words):
        co3d.continual(tree(2), dense=True)
    assert co3d.continual(tree(1), dense=True).stride == 1


def test_an_average_pool_before_all_strides_becomes_dense():
    tree = co.Sequential(co.AvgPool3d((3, 1, 1), (2, 1, 1), (1, 0, 0)), conv(3, 2, 1)).double()
    x = clip(20)
    close(co3d.continual(tree, dense=True)(x)[:, :, ::4], tree(x))


STRIDED = {"coi3d_mini": 2, "coslowfast_mini": 4, "cor2plus1d_mini": 4}


@cache
def net(name):
    torch.manual_seed(0)
    model = co3d.create(name, window=8).double()
    return calibrate(model, torch.randn(2, 3, 40, 16, 16, dtype=torch.float64))


@pytest.mark.parametrize("name", STRIDED)
@torch.no_grad()
def test_windows_of_dense_nets_are_input_frames(name):
    model, stride = net(name), STRIDED[name]
    dense = co3d.continual(model, dense=True)
    assert (model.stride, dense.stride) == (stride, 1)
    assert dense.window == model.window == 8 and dense.receptive_field == model.receptive_field
    for window in (stride, 12, 16):
        wider, alike = (co3d.continual(part, window=window) for part in (dense, model))
        assert wider.window == alike.window == window and wider.stride == 1
        assert wider.receptive_field == alike.receptive_field == model.receptive_field + window - 8
        assert repr(co3d.continual(alike, dense=True)) == repr(wider)
        assert repr(co3d.continual(model, window=window, dense=True)) == repr(wider)
        clip = torch.randn(1, 3, alike.receptive_field, 16, 16, dtype=torch.float64)
        close(wider.steps(clip)[0][:, :, -1], alike(clip, pad=False))
    with pytest.raises(ValueError, match=f"a multiple of {stride}, given {stride + 1}"):
        co3d.continual(dense, window=stride + 1)

"""Single layers: stepping equals torch.nn for every hyper-parameter, at the MACs of the formula."""

import pickle

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from nets import run
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import co3d.nn as co

lengths = st.lists(st.integers(1, 5), min_size=1, max_size=4)


@st.composite
def time_options(draw):
    kernel, dilation = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    padding = draw(st.integers(0, dilation * (kernel - 1)))
    return kernel, draw(st.integers(1, 4)), padding, dilation


@st.composite
def convolutions(draw):
    """A continual convolution in float64 and a clip that it can take."""
    kernel, stride, padding, dilation = draw(time_options())
    groups, spatial = draw(st.sampled_from([1, 2])), draw(st.sampled_from([1, 2]))
    conv = co.Conv3d(
        groups * draw(st.integers(1, 2)),
        groups * draw(st.integers(1, 3)),
        (kernel, draw(st.integers(1, 3)), 2),
        stride=(stride, spatial, 1),
        padding=(padding, draw(st.integers(0, 1)), 1),
        dilation=(dilation, 1, draw(st.integers(1, 2))),
        groups=groups,
        bias=draw(st.booleans()),
        dtype=torch.float64,
    )
    frames = draw(st.integers(1, 14))
    assume(frames + 2 * padding >= conv.receptive_field)
    return conv, _clip(conv.in_channels, frames)


def _clip(channels, frames, batch=2, size=(4, 5), dtype=torch.float64):
    return torch.randn(batch, channels, frames, *size, dtype=dtype)


@given(convolutions(), lengths)
def test_conv_steps_equal_torch(case, lengths):
    conv, x = case
    expected = nn.Conv3d.forward(conv, x)
    torch.testing.assert_close(run(conv, x, lengths), expected, rtol=0, atol=1e-10)


@given(
    convolutions(),
    lengths,
    st.sampled_from(["zeros", "replicate"]),
    st.sampled_from(["always", "valid"]),
)
def test_conv_goes_on_from_a_past_that_is_filled(case, lengths, fill, emit):
    """Zeros, or copies of the first frame; emission keeps to the phases of the padded clip."""
    conv, x = case
    past = conv.padding[0]
    if emit == "always":
        past += conv.delay // conv.stride[0] * conv.stride[0]
    past = x[:, :, :1].repeat(1, 1, past, 1, 1) * (fill == "replicate")
    clip = torch.cat([past, x], 2)
    y = run(conv, x, lengths, flush=False, fill=fill, emit=emit)
    if clip.shape[2] < conv.receptive_field:
        assert y is None
    else:
        torch.testing.assert_close(y, conv(clip, pad=False), rtol=0, atol=1e-10)


@given(time_options(), st.integers(1, 14), lengths, st.sampled_from([nn.MaxPool3d, nn.AvgPool3d]))
def test_pools_equal_torch(options, frames, lengths, kind):
    kernel, stride, padding, dilation = options
    padding = min(padding, kernel // 2)  # torch's own bound
    kwargs = {"kernel_size": (kernel, 2, 2), "stride": (stride, 1, 2), "padding": (padding, 1, 0)}
    if kind is nn.MaxPool3d:
        kwargs["dilation"] = (dilation, 1, 1)
    reference, pool = kind(**kwargs), co.continual(kind(**kwargs))
    assume(frames + 2 * padding >= pool.receptive_field)
    assume(kind is nn.MaxPool3d or frames >= kernel)  # torch refuses the others
    x = _clip(2, frames)
    torch.testing.assert_close(run(pool, x, lengths), reference(x), rtol=0, atol=1e-12)


@given(st.integers(1, 9), st.integers(1, 4), st.integers(0, 8), lengths)
def test_running_window_is_a_mean_over_time_and_space(window, dilation, more, lengths):
    pool = co.RunningWindow(window, dilation)
    x = _clip(3, pool.receptive_field + more)
    weight = torch.full((3, 1, window, 4, 5), 1 / (20 * window), dtype=torch.float64)
    expected = nn.functional.conv3d(x, weight, dilation=(dilation, 1, 1), groups=3)
    for y in (pool(x), run(pool, x, lengths)):
        torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)


@given(st.integers(1, 5), st.integers(1, 12), lengths)
def test_subsample_is_a_slice(stride, frames, lengths):
    x, layer = _clip(2, frames), co.Subsample(stride)
    assert torch.equal(run(layer, x, lengths), x[:, :, ::stride])
    assert torch.equal(layer(x), x[:, :, ::stride]) and layer.warmup == 0


@given(st.integers(0, 4), st.integers(1, 9), lengths)
def test_delay_is_the_identity_that_comes_late(frames, length, lengths):
    x, delay = _clip(1, length), co.Delay(frames)
    torch.testing.assert_close(run(delay, x, lengths), x, rtol=0, atol=0)
    assert (delay.step(x[:, :, 0])[0] is None) == (frames > 0)
    if length > 2 * frames:
        torch.testing.assert_close(delay(x, pad=False), x[:, :, frames : length - frames])


@given(st.integers(1, 9), lengths)
def test_a_gate_scales_each_frame_by_its_own_mean(frames, lengths):
    layer, x = co.SqueezeExcite(4, 3, "frame").double(), 5 * _clip(4, frames)
    inner = x.mean((3, 4)).movedim(1, 2) @ layer.fc1.weight.flatten(1).T + layer.fc1.bias
    scale = (inner.relu() @ layer.fc2.weight.flatten(1).T + layer.fc2.bias).sigmoid()
    expected = x * scale.movedim(1, 2)[..., None, None]
    for y in (layer(x), run(layer, x, lengths)):
        torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", sorted(co.ACTIVATIONS))
def test_activations_equal_torch(name):
    x = _clip(2, 4, dtype=torch.float32)
    layer = pickle.loads(pickle.dumps(getattr(co, name)()))
    expected = getattr(nn, name)()(x)  # not to the bit: torch rounds the tail of an array otherwise
    torch.testing.assert_close(run(layer, x), expected, rtol=1e-5, atol=1e-6)


def test_pointwise_layers_equal_torch():
    x = _clip(4, 3)
    linear = co.Linear(4, 2, dtype=torch.float64)
    vectors = x[:, :, 0, 0, 0]
    torch.testing.assert_close(linear(vectors), nn.Linear.forward(linear, vectors))
    torch.testing.assert_close(run(linear, x)[:, :, 2, 1, 3], linear(x[:, :, 2, 1, 3]))
    norm = co.BatchNorm3d(4, dtype=torch.float64)
    norm.train()(x)
    torch.testing.assert_close(run(norm.eval(), x), nn.BatchNorm3d.forward(norm, x))
    assert run(co.Flatten(), x).shape == (2, 80, 3)


@given(convolutions())
def test_steps_execute_the_macs_of_the_formula_in_little_memory(case):
    """[kH kW kT] cI cO nH nW / groups per output, by torch's own count of what was executed."""
    conv, x = case
    frames = 4 * conv.stride[0] * conv.receptive_field  # whole periods, past the warm-up
    x = x[:1, :, :1].repeat(1, 1, frames, 1, 1)
    state = conv.steps(x)[1]
    executed, outputs = 0, 0
    for frame in x.unbind(2)[: 3 * conv.stride[0]]:
        with FlopCounterMode(display=False) as counter:
            y, state = conv.step(frame, state)
        executed += counter.get_total_flops() // 2
        outputs += 0 if y is None else y[0, 0].numel()
    assert executed == outputs * conv.weight[0].numel() * conv.out_channels
    sums = conv.out_channels < conv.in_channels * conv.stride[1] * conv.stride[2]
    smaller = conv(x)[0, :, 0] if sums else x[0, :, 0]
    assert co.state_bytes(state) <= 8 * (conv.receptive_field - 1) * smaller.numel()


@pytest.mark.parametrize(
    ("channels", "kernel", "stride", "groups", "values"),
    [
        ((64, 16), (3, 1, 1), 1, 1, 2 * 16 * 64),  # sums
        ((16, 64), (3, 1, 1), 1, 1, 2 * 16 * 64),  # inputs
        ((8, 8), (3, 3, 3), (1, 2, 2), 8, 2 * 8 * 16),  # maps are smaller behind a stride
        ((2, 8), (5, 1, 1), 1, 1, 4 * 2 * 64),
        ((8, 2), (5, 1, 1), 1, 1, 4 * 2 * 64),
    ],
)
def test_a_state_keeps_sums_or_inputs_whichever_is_smaller(
    channels, kernel, stride, groups, values
):
    padding = [k // 2 for k in kernel]
    conv = co.Conv3d(*channels, kernel, stride, padding, groups=groups)
    state = conv.steps(torch.randn(1, channels[0], 50, 8, 8))[1]
    memory = sum(t.untyped_storage().nbytes() for t in co.core.iter_tensors(state))
    assert memory == co.state_bytes(state) == 4 * values


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: co.Conv3d(1, 1, 3, padding=3), "padding of at most 2 .* given 3"),
        (lambda: co.Conv3d(1, 1, 3, padding=1, padding_mode="replicate"), "given 'replicate'"),
        (lambda: co.Conv3d(1, 1, 2, padding="same"), "odd kernels"),
        (lambda: co.MaxPool3d(2, ceil_mode=True), "ceil_mode=False"),
        (lambda: co.AvgPool3d(3, padding=1, count_include_pad=False), "count_include_pad"),
        (lambda: co.MaxPool3d(2, return_indices=True), "return_indices"),
        (lambda: co.BatchNorm3d(2, track_running_stats=False), "normalises over time"),
        (lambda: co.MaxPool3d((3, 1, 1), padding=(2, 0, 0)), "at most 1, half the kernel, given 2"),
        (lambda: co.RunningWindow(2.5), "window of 1 or more frames, given 2.5"),
        (lambda: co.Delay(-1), "0 or more frames, given -1"),
        (lambda: co.SqueezeExcite(4, 2, gate="video"), "given 'video'"),
        (lambda: co.Subsample(0), "stride of 1 or more frames, given 0"),
        (lambda: co.Flatten(2), r"Flatten\(1, -1\)"),
    ],
)
def test_what_cannot_be_stepped_is_refused_at_construction(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_padding_by_name(padding):
    x, conv = _clip(2, 7), co.Conv3d(2, 3, 3, padding=padding, dtype=torch.float64)
    expected = nn.functional.conv3d(x, conv.weight, conv.bias, padding=padding)
    torch.testing.assert_close(run(conv, x), expected, rtol=0, atol=1e-12)


def test_no_layer_writes_to_its_input():
    """A layer in place would change frames of the caller, and what the other branch sees."""
    x = _clip(2, 5)
    branch = co.Sequential(co.ReLU(inplace=True), co.Conv3d(2, 2, 1, dtype=torch.float64))
    for tree in (co.Sequential(co.Identity(), co.ReLU(inplace=True)), co.Residual(branch)):
        before = x.clone()
        torch.testing.assert_close(run(tree, x), tree(x), rtol=0, atol=1e-12)
        assert torch.equal(x, before)
    source = nn.Sequential(nn.ReLU(inplace=True))
    assert not co.continual(source)[0].inplace and source[0].inplace

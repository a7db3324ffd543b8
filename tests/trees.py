"""Random trees of continual layers for property tests, and the two-path nets among them."""

import torch
from hypothesis import assume
from hypothesis import strategies as st

import co3d.nn as co

lengths = st.lists(st.integers(1, 6), min_size=1, max_size=4)
CHANNELS = 2


def clip(frames, batch=1, size=2, channels=CHANNELS):
    return torch.randn(batch, channels, frames, size, size, dtype=torch.float64)


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-10)


def forward(tree, x, **kwargs):
    """The clip forward; clips too short for it are no case."""
    try:
        return tree(x, **kwargs)
    except ValueError as error:
        assume("at least" not in str(error))
        raise


def conv(kernel, stride=1, padding=0, dilation=1, channels=(CHANNELS, CHANNELS)):
    options = {"stride": (stride, 1, 1), "padding": (padding, 0, 0), "dilation": (dilation, 1, 1)}
    return co.Conv3d(*channels, (kernel, 1, 1), **options)


@st.composite
def convs(draw):
    kernel, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    padding = draw(st.integers(0, dilation * (kernel - 1)))
    return conv(kernel, draw(st.integers(1, 3)), padding, dilation)


@st.composite
def pools(draw):
    kernel = draw(st.integers(1, 3))
    kind = draw(st.sampled_from([co.MaxPool3d, co.AvgPool3d]))
    padding = draw(st.integers(0, kernel // 2))
    return kind((kernel, 1, 1), (draw(st.integers(1, 2)), 1, 1), (padding, 0, 0))


def gates():
    return st.builds(co.SqueezeExcite, st.just(CHANNELS), st.just(3), st.just("frame"))


def small_layers():
    norm = st.builds(co.BatchNorm3d, st.just(CHANNELS))
    return st.one_of(convs(), pools(), norm, gates(), st.builds(co.ReLU))


@st.composite
def residuals(draw, inner):
    """Branches of equal length: odd kernels padded by half, one stride, delays."""
    stride, kernel = draw(st.integers(1, 2)), 1 + 2 * draw(st.integers(0, 2))
    dilation = draw(st.integers(1, 2))
    main = [conv(kernel, stride, dilation * (kernel // 2), dilation), co.ReLU()]
    if draw(st.booleans()):
        main.append(conv(3, 1, 1))
    if draw(st.booleans()):
        main.insert(draw(st.integers(0, len(main))), draw(gates()))
    other = None if stride == 1 else conv(1, stride)
    if draw(st.booleans()):
        late = co.Delay(draw(st.integers(0, 3)))
        other = late if other is None else co.Sequential(late, other)
    if draw(st.booleans()):
        return co.Residual(co.Sequential(*main), other, co.ReLU())
    mix = co.Conv3d(2 * CHANNELS, CHANNELS, 1)
    both = co.Parallel(co.Sequential(*main), other or co.Identity(), join="cat")
    return co.Sequential(both, mix, draw(inner))


@st.composite
def stages(draw, channels, stride):
    """A convolution, residual where that fits, and ReLU."""
    kernel = draw(st.sampled_from([1, 3, 5]))
    padding = draw(st.sampled_from([kernel // 2] * 3 + [0]))
    layer = conv(kernel, stride, padding, channels=channels)
    if stride == 1 and kernel == 2 * padding + 1 and channels[0] == channels[1]:
        return co.Residual(layer, None, co.ReLU())
    return co.Sequential(layer, co.ReLU())


@st.composite
def two_paths(draw):
    """A two-path net, which ends in a stage or in running windows."""
    alpha, inputs = draw(st.integers(1, 4)), [CHANNELS, CHANNELS]
    paths, lateral = ({}, {}), torch.nn.ModuleDict()
    ends = [False] * draw(st.integers(1, 3)) + [True]
    for n, last in enumerate(ends):
        stride = 1 if last else draw(st.sampled_from([1, 1, 1, 2]))
        widths = [draw(st.integers(1, 3)), draw(st.integers(1, 3))]
        for path, *channels in zip(paths, inputs, widths, strict=True):
            path[f"s{n}"] = draw(stages(channels, stride))
        if last and draw(st.booleans()):
            window, widths = draw(st.integers(1, 3)), inputs
            for path, span in zip(paths, (window, window * alpha), strict=True):
                path[f"s{n}"] = co.RunningWindow(span)
        inputs = widths
        if not last and draw(st.booleans()):
            kernel = draw(st.integers(1, 7))
            padding = draw(st.integers(0, kernel // 2))
            side = conv(kernel, alpha, padding, channels=(inputs[1], 2))
            lateral[f"s{n}"] = co.Sequential(side, co.ReLU())
            inputs[0] += 2
    slow, fast = (co.Sequential(co.named(**path)) for path in paths)
    net = co.TwoPath(slow, fast, lateral, alpha)
    net.channels = sum(inputs)
    return net.double().eval()


def as_wide(net):
    """The two-path net with as many channels behind it as before it."""
    return co.Sequential(net, conv(1, channels=(net.channels, CHANNELS)))


trees = st.recursive(
    st.one_of(small_layers(), two_paths().map(as_wide)),
    lambda inner: st.one_of(
        residuals(inner),
        st.lists(inner, min_size=1, max_size=4).map(lambda parts: co.Sequential(*parts)),
    ),
    max_leaves=6,
).map(lambda tree: co.Sequential(tree).double().eval())

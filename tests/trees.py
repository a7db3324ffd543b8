"""Random trees of continual layers for property tests, and the two-path nets among them."""

import torch
from hypothesis import assume
from hypothesis import strategies as st

import co3d.nn as co

lengths = st.lists(st.integers(1, 6), min_size=1, max_size=4)
CHANNELS = 2


def clip(frames, batch=1):
    return torch.randn(batch, CHANNELS, frames, 2, 2, dtype=torch.float64)


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
def path_plans(draw, always_lateral=False):
    """What a two-path net is made of, for `two_path` and for an oracle.

    Every convolution is (kernel, stride, padding, inputs, outputs); a lateral one may be None.
    """
    alpha, slow, fast = draw(st.integers(1, 4)), CHANNELS, CHANNELS
    stages = []
    for last in [False] * draw(st.integers(1, 3)) + [True]:
        stride = 1 if last else draw(st.sampled_from([1, 1, 1, 2]))
        widths = draw(st.integers(1, 3)), draw(st.integers(1, 3))
        plans = []
        for inputs, outputs in zip((slow, fast), widths, strict=True):
            kernel = draw(st.sampled_from([1, 3, 5]))
            padding = draw(st.sampled_from([kernel // 2] * 3 + [0]))
            plans.append((kernel, stride, padding, inputs, outputs))
        slow, fast = widths
        lateral = None
        if not last and (always_lateral or draw(st.booleans())):
            kernel = draw(st.integers(1, 7))
            lateral = (kernel, alpha, draw(st.integers(0, kernel // 2)), fast, 2)
            slow += 2
        residual = [s == 1 and k == 2 * p + 1 and i == o for k, s, p, i, o in plans]
        stages.append((*zip(plans, residual, strict=True), lateral))
    window = draw(st.integers(1, 3)) if draw(st.booleans()) else None
    if window:
        slow, fast = (plan[3] for plan in plans)
    return {"alpha": alpha, "stages": stages, "window": window, "channels": slow + fast}


def two_path(plan):
    """The continual net of a plan; stages are convolutions, residual where that fits, and ReLU."""
    slow, fast, lateral = {}, {}, torch.nn.ModuleDict()
    *stages, end = plan["stages"]
    for n, (slow_plan, fast_plan, side) in enumerate(stages):
        slow[f"s{n}"], fast[f"s{n}"] = _stage(*slow_plan), _stage(*fast_plan)
        if side is not None:
            lateral[f"s{n}"] = co.Sequential(_planned(side), co.ReLU())
    slow["end"], fast["end"] = _stage(*end[0]), _stage(*end[1])
    if plan["window"]:
        slow["end"] = co.RunningWindow(plan["window"])
        fast["end"] = co.RunningWindow(plan["window"] * plan["alpha"])
    slow, fast = (co.Sequential(co.named(**path)) for path in (slow, fast))
    return co.TwoPath(slow, fast, lateral, plan["alpha"]).double().eval()


def _stage(plan, residual):
    layer = _planned(plan)
    return co.Residual(layer, None, co.ReLU()) if residual else co.Sequential(layer, co.ReLU())


def _planned(plan):
    kernel, stride, padding, *channels = plan
    return conv(kernel, stride, padding, channels=channels)


@st.composite
def two_paths(draw):
    """A two-path net with as many channels behind it as before it."""
    plan = draw(path_plans())
    return co.Sequential(two_path(plan), conv(1, channels=(plan["channels"], CHANNELS)))


trees = st.recursive(
    st.one_of(small_layers(), two_paths()),
    lambda inner: st.one_of(
        residuals(inner),
        st.lists(inner, min_size=1, max_size=4).map(lambda parts: co.Sequential(*parts)),
    ),
    max_leaves=6,
).map(lambda tree: co.Sequential(tree).double().eval())

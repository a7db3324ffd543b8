"""From a spec to a network. One definition per architecture serves clip and stream."""

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import nn

from ..nn import (
    AdaptiveAvgPool3d,
    BatchNorm3d,
    ClipNet,
    Conv3d,
    Dropout,
    Linear,
    MaxPool3d,
    ReLU,
    Residual,
    Sequential,
    SiLU,
    SqueezeExcite,
    StreamNet,
    TwoPath,
    continual,
    named,
)
from .specs import X3D, R2Plus1D, ResNet, SlowFast, spec


def create(
    name: str,
    window: int | None = None,
    num_classes: int | None = None,
    *,
    dense: bool = False,
) -> ClipNet | StreamNet:
    """A network with random weights in evaluation mode.

    Args:
        name: one of `list_models()`.
        window: span of the running average of a continual net, in input frames (default: the
            clip length of its regular twin), a multiple of the strides before it.
        num_classes: default as published (400; 12 for the minis).
        dense: whether a continual net predicts on every frame in spite of its temporal strides;
            see `co3d.continual`.

    Raises:
        ValueError: for an unknown name, options of continual nets given for a regular one, or
            numbers that do not fit.
    """
    record = spec(name)
    classes = record.num_classes if num_classes is None else num_classes
    if classes < 1:
        raise ValueError(f"expected num_classes of 1 or more, given {classes}")
    for option, given in {"window": window, "dense": dense or None}.items():
        if given is not None and not record.continual:
            raise ValueError(
                f"expected no {option} for {name}, which looks at whole clips, given {given!r}"
            )
    network = _BUILDERS[type(record.architecture)](record.architecture, classes)
    if record.continual:
        window = record.window if window is None else window
        network = continual(network, gate=record.gate, window=window, dense=dense)
    network.spec = record
    return network.eval().to(memory_format=torch.channels_last_3d)


def x3d(net: X3D, num_classes: int) -> ClipNet:
    """X3D (https://arxiv.org/abs/2004.04730) for RGB clips (B, 3, T, H, W)."""
    width, stages = net.stem, {}
    for number, stage in enumerate(net.stages, start=2):
        block = partial(_x3d_block, inner=stage.inner)
        squeeze = [stage.squeeze if index % 2 == 0 else None for index in range(stage.blocks)]
        stages[f"res{number}"] = _stage(block, width, stage.width, 2, squeeze)
        width = stage.width
    stem = named(
        conv_xy=Conv3d(3, net.stem, (1, 3, 3), (1, 2, 2), (0, 1, 1), bias=False),
        conv_t=Conv3d(
            net.stem, net.stem, (5, 1, 1), padding=(2, 0, 0), groups=net.stem, bias=False
        ),
        bn=BatchNorm3d(net.stem),
        relu=ReLU(),
    )
    conv5 = named(
        conv=Conv3d(width, net.conv5, 1, bias=False), bn=BatchNorm3d(net.conv5), relu=ReLU()
    )
    body = named(
        stem=Sequential(stem),
        **stages,
        conv5=Sequential(conv5),
        pool=AdaptiveAvgPool3d((1, 1, 1)),
        linear5=Conv3d(net.conv5, net.features, 1, bias=False),
        relu=ReLU(),
        dropout=Dropout(0.5),
    )
    return ClipNet(Sequential(body), Linear(net.features, num_classes))


def resnet(net: ResNet, num_classes: int) -> ClipNet:
    """Slow or I3D for RGB clips (B, 3, T, H, W)."""
    body = named(**_resnet_stages(net), dropout=Dropout(0.5))
    return ClipNet(Sequential(body), Linear(_widths(net)[-1], num_classes))


def slowfast(net: SlowFast, num_classes: int) -> ClipNet:
    """SlowFast (https://arxiv.org/abs/1812.03982) for RGB clips (B, 3, T, H, W)."""
    *sides, _ = fast = _widths(net.fast)
    lateral = nn.ModuleDict()
    for name, width in zip(("stem", "res2", "res3", "res4"), sides, strict=False):
        lateral[name] = _lateral(width, net)
    extra = [width * net.fusion_ratio for width in sides]
    paths = TwoPath(
        Sequential(named(**_resnet_stages(net.slow, extra))),
        Sequential(named(**_resnet_stages(net.fast))),
        lateral,
        net.alpha,
        sampling="linspace",
    )
    body = Sequential(named(paths=paths, dropout=Dropout(0.5)))
    return ClipNet(body, Linear(_widths(net.slow)[-1] + fast[-1], num_classes))


def r2plus1d(net: R2Plus1D, num_classes: int) -> ClipNet:
    """R(2+1)D (https://arxiv.org/abs/1711.11248) for RGB clips (B, 3, T, H, W)."""
    width, stages = net.widths[0], {}
    for number, out in enumerate(net.widths, start=2):
        stride = 1 if number == 2 else 2
        stages[f"res{number}"] = _stage(_r2plus1d_block, width, out, stride, [None] * net.blocks)
        width = out
    stem = named(
        conv_xy=Conv3d(3, net.stem, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False),
        bn=BatchNorm3d(net.stem),
        relu=ReLU(),
        conv_t=Conv3d(net.stem, net.widths[0], (3, 1, 1), padding=(1, 0, 0), bias=False),
        bn_t=BatchNorm3d(net.widths[0]),
        relu_t=ReLU(),
    )
    body = named(stem=Sequential(stem), **stages, pool=AdaptiveAvgPool3d((1, 1, 1)))
    return ClipNet(Sequential(body), Linear(width, num_classes))


_BUILDERS = {X3D: x3d, ResNet: resnet, SlowFast: slowfast, R2Plus1D: r2plus1d}


def _resnet_stages(net: ResNet, extra: Iterable[int] = ()) -> dict[str, nn.Module]:
    """Stem to pool; `extra` channels join before each stage behind the stem."""
    stem = named(
        conv=Conv3d(
            *(3, net.width, (net.stem_kernel, 7, 7), (1, 2, 2), (net.stem_kernel // 2, 3, 3)),
            bias=False,
        ),
        bn=BatchNorm3d(net.width),
        relu=ReLU(),
        pool=MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
    )
    stages, extra = {"stem": Sequential(stem)}, [*extra] or [0] * len(net.kernels)
    widths = _widths(net)
    for index, (kernels, out) in enumerate(zip(net.kernels, widths[1:], strict=True)):
        block = partial(_bottleneck, inner=out // net.expansion)
        stride = 1 if index == 0 else 2
        stage = _stage(block, widths[index] + extra[index], out, stride, kernels)
        stages[f"res{index + 2}"] = stage
        if index == 0 and net.time_pool > 1:
            stages["time_pool"] = MaxPool3d((net.time_pool, 1, 1))
    return {**stages, "pool": AdaptiveAvgPool3d((1, 1, 1))}


def _widths(net: ResNet) -> list[int]:
    """Output channels of the stem and of each stage."""
    stages = [net.width * net.expansion * 2**index for index in range(len(net.kernels))]
    return [net.width, *stages]


def _lateral(width: int, net: SlowFast) -> Sequential:
    kernel, out = net.fusion_kernel, width * net.fusion_ratio
    stride, padding = (net.alpha, 1, 1), (kernel // 2, 0, 0)
    conv = Conv3d(width, out, (kernel, 1, 1), stride, padding, bias=False)
    return Sequential(named(conv=conv, bn=BatchNorm3d(out), relu=ReLU()))


def _stage(
    block: Callable[..., Residual], width: int, out: int, stride: int, settings: Iterable
) -> Sequential:
    """One block(width, out, stride, setting) per setting; the first has the stride."""
    blocks = []
    for setting in settings:
        blocks.append(block(width, out, stride, setting))
        width, stride = out, 1
    return Sequential(*blocks)


def _residual(main: dict, width: int, out: int, strides: tuple[int, int, int]) -> Residual:
    """Around a shortcut that is projected where the size changes."""
    shortcut = None
    if strides != (1, 1, 1) or width != out:
        conv = Conv3d(width, out, 1, strides, bias=False)
        shortcut = Sequential(named(conv=conv, bn=BatchNorm3d(out)))
    return Residual(Sequential(main), shortcut, ReLU())


def _x3d_block(width: int, out: int, stride: int, squeeze: int | None, inner: int) -> Residual:
    """1x1x1, depthwise 3x3x3, [SE], 1x1x1."""
    strides = (1, stride, stride)
    main = named(
        a=Conv3d(width, inner, 1, bias=False),
        a_bn=BatchNorm3d(inner),
        a_relu=ReLU(),
        b=Conv3d(inner, inner, 3, strides, 1, groups=inner, bias=False),
        b_bn=BatchNorm3d(inner),
        se=SqueezeExcite(inner, squeeze) if squeeze else None,
        b_swish=SiLU(),
        c=Conv3d(inner, out, 1, bias=False),
        c_bn=BatchNorm3d(out),
    )
    return _residual(main, width, out, strides)


def _bottleneck(width: int, out: int, stride: int, kernel: int, inner: int) -> Residual:
    """kernel x 1x1, 1x3x3, 1x1x1."""
    strides = (1, stride, stride)
    main = named(
        a=Conv3d(width, inner, (kernel, 1, 1), padding=(kernel // 2, 0, 0), bias=False),
        a_bn=BatchNorm3d(inner),
        a_relu=ReLU(),
        b=Conv3d(inner, inner, (1, 3, 3), strides, (0, 1, 1), bias=False),
        b_bn=BatchNorm3d(inner),
        b_relu=ReLU(),
        c=Conv3d(inner, out, 1, bias=False),
        c_bn=BatchNorm3d(out),
    )
    return _residual(main, width, out, strides)


def _r2plus1d_block(width: int, out: int, stride: int, _: None) -> Residual:
    """Twice 1x3x3 and 3x1x1, with as many parameters as two 3x3x3 would have."""
    middle = width * out * 27 // (width * 9 + 3 * out)
    first = _two_plus_one(width, middle, out, stride)
    second = _two_plus_one(out, middle, out, 1)
    main = named(a=first, a_bn=BatchNorm3d(out), a_relu=ReLU(), b=second, b_bn=BatchNorm3d(out))
    return _residual(main, width, out, (stride,) * 3)


def _two_plus_one(width: int, middle: int, out: int, stride: int) -> Sequential:
    parts = named(
        conv_xy=Conv3d(width, middle, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False),
        bn=BatchNorm3d(middle),
        relu=ReLU(),
        conv_t=Conv3d(middle, out, (3, 1, 1), (stride, 1, 1), (1, 0, 0), bias=False),
    )
    return Sequential(parts)

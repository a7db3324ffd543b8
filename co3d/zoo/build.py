"""From a spec to a network. One definition per architecture serves clip and stream."""

from collections.abc import Callable, Sequence
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

Size = tuple[int, int, int]
ONE = (1, 1, 1)


def create(
    name: str, window: int | None = None, num_classes: int | None = None, *, dense: bool = False
) -> ClipNet | StreamNet:
    """A network with random weights in evaluation mode.

    Args:
        name: one of `list_models()`.
        window: span of the running average of a continual net, in input frames: a multiple of
            its strides (default: the clip length of its regular twin).
        num_classes: default: as published (400; 12 for the minis).
        dense: whether a continual net predicts on every frame despite its temporal strides; see
            `co3d.continual`.

    Raises:
        ValueError: for an unknown name, options of continual nets for a regular one, or numbers
            that do not fit.
    """
    record = spec(name)
    classes = record.num_classes if num_classes is None else num_classes
    if classes < 1:
        raise ValueError(f"expected num_classes of 1 or more, given {classes}")
    if not record.continual and (window is not None or dense):
        option = "window" if window is not None else "dense"
        raise ValueError(f"expected no {option} for {name}, which takes whole clips")
    network = _BUILDERS[type(record.architecture)](record.architecture, classes)
    if record.continual:
        window = record.window if window is None else window
        network = continual(network, gate=record.gate, window=window, dense=dense)
    network.spec = record
    return network.eval().to(memory_format=torch.channels_last_3d)


def x3d(net: X3D, num_classes: int) -> ClipNet:
    """X3D (https://arxiv.org/abs/2004.04730) for RGB clips (B, 3, T, H, W)."""
    stages, width = {}, net.stem
    for number, stage in enumerate(net.stages, start=2):
        # Every other block has a squeeze-and-excitation
        squeeze = [0 if index % 2 else stage.squeeze for index in range(stage.blocks)]
        blocks = [partial(_x3d_block, inner=stage.inner, squeeze=n) for n in squeeze]
        stages[f"res{number}"] = _stage(blocks, width, stage.width, 2)
        width = stage.width
    stem = named(
        conv_xy=_conv(3, net.stem, (1, 3, 3), (1, 2, 2)),
        conv_t=_conv(net.stem, net.stem, (5, 1, 1), groups=net.stem),
        bn=BatchNorm3d(net.stem),
        relu=ReLU(),
    )
    conv5 = named(conv=_conv(width, net.conv5), bn=BatchNorm3d(net.conv5), relu=ReLU())
    body = named(
        stem=Sequential(stem),
        **stages,
        conv5=Sequential(conv5),
        pool=AdaptiveAvgPool3d(ONE),
        linear5=_conv(net.conv5, net.features),
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
    *sides, fast = _widths(net.fast)
    lateral = nn.ModuleDict()
    for name, width in zip(("stem", "res2", "res3", "res4"), sides, strict=False):
        out = width * net.fusion_ratio
        conv = _conv(width, out, (net.fusion_kernel, 1, 1), (net.alpha, 1, 1))
        lateral[name] = Sequential(named(conv=conv, bn=BatchNorm3d(out), relu=ReLU()))
    extra = [width * net.fusion_ratio for width in sides]
    paths = TwoPath(
        Sequential(named(**_resnet_stages(net.slow, extra))),
        Sequential(named(**_resnet_stages(net.fast))),
        lateral,
        net.alpha,
        sampling="linspace",
    )
    body = Sequential(named(paths=paths, dropout=Dropout(0.5)))
    return ClipNet(body, Linear(_widths(net.slow)[-1] + fast, num_classes))


def r2plus1d(net: R2Plus1D, num_classes: int) -> ClipNet:
    """R(2+1)D (https://arxiv.org/abs/1711.11248) for RGB clips (B, 3, T, H, W)."""
    stages, width = {}, net.widths[0]
    for number, out in enumerate(net.widths, start=2):
        blocks = [_r2plus1d_block] * net.blocks
        stages[f"res{number}"] = _stage(blocks, width, out, stride=1 if number == 2 else 2)
        width = out
    stem = named(
        conv_xy=_conv(3, net.stem, (1, 7, 7), (1, 2, 2)),
        bn=BatchNorm3d(net.stem),
        relu=ReLU(),
        conv_t=_conv(net.stem, net.widths[0], (3, 1, 1)),
        bn_t=BatchNorm3d(net.widths[0]),
        relu_t=ReLU(),
    )
    body = named(stem=Sequential(stem), **stages, pool=AdaptiveAvgPool3d(ONE))
    return ClipNet(Sequential(body), Linear(width, num_classes))


_BUILDERS = {X3D: x3d, ResNet: resnet, SlowFast: slowfast, R2Plus1D: r2plus1d}


def _resnet_stages(net: ResNet, extra: Sequence[int] = (0, 0, 0, 0)) -> dict[str, nn.Module]:
    """Stem to pool; `extra` channels join before each stage behind the stem."""
    stem = named(
        conv=_conv(3, net.width, (net.stem_kernel, 7, 7), (1, 2, 2)),
        bn=BatchNorm3d(net.width),
        relu=ReLU(),
        pool=MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
    )
    stages, widths = {"stem": Sequential(stem)}, _widths(net)
    for index, kernels in enumerate(net.kernels):
        width, out = widths[index] + extra[index], widths[index + 1]
        blocks = [partial(_bottleneck, inner=out // net.expansion, kernel=n) for n in kernels]
        stages[f"res{index + 2}"] = _stage(blocks, width, out, stride=1 if index == 0 else 2)
        if index == 0 and net.time_pool > 1:
            stages["time_pool"] = MaxPool3d((net.time_pool, 1, 1))
    return {**stages, "pool": AdaptiveAvgPool3d(ONE)}


def _widths(net: ResNet) -> list[int]:
    """Output channels of the stem and of each stage."""
    stages = [net.width * net.expansion * 2**index for index in range(len(net.kernels))]
    return [net.width, *stages]


def _stage(blocks: list[Callable[..., Residual]], width: int, out: int, stride: int) -> Sequential:
    """Blocks made by block(width, out, stride); the first has the stride."""
    first, *others = blocks
    return Sequential(first(width, out, stride), *(block(out, out, 1) for block in others))


def _conv(width: int, out: int, kernel: Size = ONE, stride: Size = ONE, groups: int = 1) -> Conv3d:
    """A convolution without bias, padded to keep the size at stride 1."""
    padding = tuple(size // 2 for size in kernel)
    return Conv3d(width, out, kernel, stride, padding, groups=groups, bias=False)


def _residual(main: dict, width: int, out: int, stride: Size) -> Residual:
    """Around a shortcut, which is projected where the size changes."""
    shortcut = None
    if stride != ONE or width != out:
        conv = _conv(width, out, stride=stride)
        shortcut = Sequential(named(conv=conv, bn=BatchNorm3d(out)))
    return Residual(Sequential(main), shortcut, ReLU())


def _x3d_block(width: int, out: int, stride: int, inner: int, squeeze: int) -> Residual:
    """1x1x1, depthwise 3x3x3, [SE], 1x1x1."""
    strides = (1, stride, stride)
    main = named(
        a=_conv(width, inner),
        a_bn=BatchNorm3d(inner),
        a_relu=ReLU(),
        b=_conv(inner, inner, (3, 3, 3), strides, groups=inner),
        b_bn=BatchNorm3d(inner),
        se=SqueezeExcite(inner, squeeze) if squeeze else None,
        b_swish=SiLU(),
        c=_conv(inner, out),
        c_bn=BatchNorm3d(out),
    )
    return _residual(main, width, out, strides)


def _bottleneck(width: int, out: int, stride: int, inner: int, kernel: int) -> Residual:
    """kernel x 1x1, 1x3x3, 1x1x1."""
    strides = (1, stride, stride)
    main = named(
        a=_conv(width, inner, (kernel, 1, 1)),
        a_bn=BatchNorm3d(inner),
        a_relu=ReLU(),
        b=_conv(inner, inner, (1, 3, 3), strides),
        b_bn=BatchNorm3d(inner),
        b_relu=ReLU(),
        c=_conv(inner, out),
        c_bn=BatchNorm3d(out),
    )
    return _residual(main, width, out, strides)


def _r2plus1d_block(width: int, out: int, stride: int) -> Residual:
    """Twice 1x3x3 and 3x1x1, with as many parameters as two 3x3x3 would have."""
    middle = width * out * 27 // (width * 9 + 3 * out)
    first = _two_plus_one(width, middle, out, stride)
    second = _two_plus_one(out, middle, out, 1)
    main = named(a=first, a_bn=BatchNorm3d(out), a_relu=ReLU(), b=second, b_bn=BatchNorm3d(out))
    return _residual(main, width, out, (stride, stride, stride))


def _two_plus_one(width: int, middle: int, out: int, stride: int) -> Sequential:
    parts = named(
        conv_xy=_conv(width, middle, (1, 3, 3), (1, stride, stride)),
        bn=BatchNorm3d(middle),
        relu=ReLU(),
        conv_t=_conv(middle, out, (3, 1, 1), (stride, 1, 1)),
    )
    return Sequential(parts)

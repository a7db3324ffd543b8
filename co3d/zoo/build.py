"""From a spec to a network. One definition per architecture serves clip and stream."""

from itertools import takewhile

import torch

from ..nn import (
    AdaptiveAvgPool3d,
    BatchNorm3d,
    ClipNet,
    Conv3d,
    Dropout,
    Linear,
    ReLU,
    Residual,
    Sequential,
    SiLU,
    SqueezeExcite,
    StreamNet,
    continual,
    named,
)
from .specs import X3D, Stage, spec


def create(
    name: str, window: int | None = None, num_classes: int | None = None
) -> ClipNet | StreamNet:
    """A network with random weights in evaluation mode.

    Args:
        name: one of `list_models()`.
        window: span of the running average of a continual net, in input frames (default: the
            clip length of its regular twin).
        num_classes: default as published (400; 12 for the minis).

    Raises:
        ValueError: for an unknown name, a window of a regular net, or numbers below 1.
    """
    record = spec(name)
    classes = record.num_classes if num_classes is None else num_classes
    if classes < 1:
        raise ValueError(f"expected num_classes of 1 or more, given {classes}")
    if window is not None and not record.continual:
        raise ValueError(
            f"expected no window for {name}, which pools over all frames, given {window}"
        )
    network = x3d(record.architecture, classes)
    if record.continual:
        window = record.window if window is None else window
        network = continual(network, gate=record.gate, window=_positions(window, network))
    network.spec = record
    return network.eval().to(memory_format=torch.channels_last_3d)


def _positions(window: int, network: ClipNet) -> int:
    """Slots of the head's pool: the window divided by the temporal strides before it."""
    before = takewhile(lambda part: not isinstance(part, AdaptiveAvgPool3d), network.body)
    stride = Sequential(*before).stride
    if window < 1 or window % stride:
        raise ValueError(
            f"expected a window of 1 or more frames, a multiple of {stride}, given {window}"
        )
    return window // stride


def x3d(net: X3D, num_classes: int) -> ClipNet:
    """X3D (https://arxiv.org/abs/2004.04730) for RGB clips (B, 3, T, H, W)."""
    width, stages = net.stem, {}
    for number, stage in enumerate(net.stages, start=2):
        stages[f"res{number}"] = _x3d_stage(width, stage)
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
    body = Sequential(
        named(
            stem=Sequential(stem),
            **stages,
            conv5=Sequential(conv5),
            pool=AdaptiveAvgPool3d((1, 1, 1)),
            linear5=Conv3d(net.conv5, net.features, 1, bias=False),
            relu=ReLU(),
            dropout=Dropout(0.5),
        )
    )
    return ClipNet(body, Linear(net.features, num_classes))


def _x3d_stage(width: int, stage: Stage) -> Sequential:
    blocks = []
    for index in range(stage.blocks):
        squeeze = stage.squeeze if index % 2 == 0 else None
        blocks.append(_x3d_block(width, stage, 2 if index == 0 else 1, squeeze))
        width = stage.width
    return Sequential(*blocks)


def _x3d_block(width: int, stage: Stage, stride: int, squeeze: int | None) -> Residual:
    """1x1x1, depthwise 3x3x3, [SE], 1x1x1, around a shortcut that is projected if sizes change."""
    inner, out, strides = stage.inner, stage.width, (1, stride, stride)
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
    shortcut = None
    if stride > 1 or width != out:
        conv = Conv3d(width, out, 1, strides, bias=False)
        shortcut = Sequential(named(conv=conv, bn=BatchNorm3d(out)))
    return Residual(Sequential(main), shortcut, ReLU())

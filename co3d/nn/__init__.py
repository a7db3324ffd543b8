"""Continual 3D convolutional networks: the layers, their trees, conversion, streams."""

from .blocks import Parallel, Residual, Sequential, SqueezeExcite, named
from .conv import Conv3d
from .convert import continual
from .core import Continual, State, Timing
from .fold import fold
from .net import ClipNet, StreamNet
from .pointwise import (
    ACTIVATIONS,
    BatchNorm3d,
    Dropout,
    Flatten,
    Identity,
    Linear,
    ReLU,
    Sigmoid,
    SiLU,
)
from .pool import AdaptiveAvgPool3d, AvgPool3d, MaxPool3d, RunningWindow
from .stream import Stream, clone, stack, state_bytes, unstack
from .temporal import Delay, Subsample
from .twopath import TwoPath

globals().update(ACTIVATIONS)

__all__ = [
    "ACTIVATIONS",
    "AdaptiveAvgPool3d",
    "AvgPool3d",
    "BatchNorm3d",
    "ClipNet",
    "Continual",
    "Conv3d",
    "Delay",
    "Dropout",
    "Flatten",
    "Identity",
    "Linear",
    "MaxPool3d",
    "Parallel",
    "ReLU",
    "Residual",
    "RunningWindow",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "SqueezeExcite",
    "State",
    "Stream",
    "StreamNet",
    "Subsample",
    "Timing",
    "TwoPath",
    "clone",
    "continual",
    "fold",
    "named",
    "stack",
    "state_bytes",
    "unstack",
]

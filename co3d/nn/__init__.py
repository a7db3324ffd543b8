"""Continual 3D convolutional networks: the layers, their trees, conversion, streams."""

# ruff: noqa: F401

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

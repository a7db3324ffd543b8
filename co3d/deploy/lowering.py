"""From a tree of layers to the operations of an explicit step."""

from functools import singledispatch

import torch.nn.functional as F
from torch import Tensor, nn

from ..nn.blocks import Node, SqueezeExcite, Tree, run
from ..nn.conv import Conv3d
from ..nn.core import Timing
from ..nn.pointwise import BatchNorm3d, Dropout, Flatten, Identity, Linear, Pointwise
from ..nn.pool import AdaptiveAvgPool3d, AvgPool3d, MaxPool3d, RunningWindow
from ..nn.temporal import Delay, Subsample
from .operations import (
    Convolution,
    Gate,
    Join,
    Late,
    Map,
    Mean,
    Operation,
    Pool,
    Sample,
    SummingConvolution,
)


class Operations:
    """The operations of a net, in the order in which they run."""

    def __init__(self) -> None:
        self.list: list[Operation] = []

    def timing(self, value: int) -> Timing:
        """When a value comes."""
        return self.list[value - 1].timing if value else Timing()

    def add(self, operation: Operation) -> int:
        """Appends an operation; returns the number of its result."""
        self.list.append(operation)
        return len(self.list)

    def join(self, name: str, sources: tuple[int, ...], concatenates: bool) -> int:
        """Appends a `Join`."""
        timings = [self.timing(source) for source in sources]
        return self.add(Join(name, sources, timings, concatenates))


@singledispatch
def lower(layer: nn.Module, net: Operations, x: int, name: str) -> int:
    """Appends the operations of a layer on value `x`; returns the number of the result.

    Raises:
        TypeError: for a layer without a form on frames.
    """
    raise TypeError(f"expected layers with a form on frames, given {type(layer).__name__} {name}")


@lower.register
def _(layer: Tree, net: Operations, x: int, name: str) -> int:
    def add(node: Node, *sources: int) -> int:
        where = _path(name, node.name)
        if node.part is None:
            return net.join(where, sources, node.join == "cat")
        return lower(node.part, net, sources[0], where)

    return run(layer.nodes, x, add)


@lower.register
def _(layer: Conv3d, net: Operations, x: int, name: str) -> int:
    kernel, _, _, stride = layer._time
    sums = kernel > 1 and stride == 1 and layer._keeps_sums
    kind = SummingConvolution if sums else Convolution
    return net.add(kind(name, x, net.timing(x), layer))


@lower.register(MaxPool3d)
@lower.register(AvgPool3d)
def _(layer: MaxPool3d | AvgPool3d, net: Operations, x: int, name: str) -> int:
    return net.add(Pool(name, x, net.timing(x), layer))


@lower.register
def _(layer: RunningWindow, net: Operations, x: int, name: str) -> int:
    return net.add(Mean(name, x, net.timing(x), layer))


@lower.register
def _(layer: Subsample, net: Operations, x: int, name: str) -> int:
    return net.add(Sample(name, x, net.timing(x), layer)) if layer.stride > 1 else x


@lower.register
def _(layer: Delay, net: Operations, x: int, name: str) -> int:
    timing = net.timing(x).then(layer.timing)
    return net.add(Late(name, x, timing, layer.frames)) if layer.frames else x


@lower.register
def _(layer: SqueezeExcite, net: Operations, x: int, name: str) -> int:
    if layer.gate != "frame":
        raise TypeError(f"expected gates over single frames, given gate={layer.gate!r} {name}")
    return net.add(Gate(name, x, net.timing(x), layer))


@lower.register(Pointwise)
def _(layer: nn.Module, net: Operations, x: int, name: str) -> int:
    return net.add(Map(name, x, net.timing(x), layer))


@lower.register
def _(layer: Linear, net: Operations, x: int, name: str) -> int:
    return net.add(Map(name, x, net.timing(x), layer))


@lower.register(Identity)
@lower.register(Dropout)
def _(layer: nn.Module, net: Operations, x: int, name: str) -> int:
    return x


@lower.register
def _(layer: BatchNorm3d, net: Operations, x: int, name: str) -> int:
    return net.add(Map(name, x, net.timing(x), _Norm(layer)))


class _Norm(nn.Module):
    """A normalisation that no convolution could take up."""

    def __init__(self, layer: BatchNorm3d) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        norm = self.layer
        statistics = norm.running_mean, norm.running_var
        return F.batch_norm(x, *statistics, norm.weight, norm.bias, False, 0.0, norm.eps)


@lower.register
def _(layer: Flatten, net: Operations, x: int, name: str) -> int:
    return net.add(Map(name, x, net.timing(x), flatten))


def flatten(x: Tensor) -> Tensor:
    """A frame as a vector."""
    return x.flatten(1)


@lower.register
def _(layer: AdaptiveAvgPool3d, net: Operations, x: int, name: str) -> int:
    size = layer.output_size[1:]
    return net.add(Map(name, x, net.timing(x), lambda y: F.adaptive_avg_pool2d(y, size)))


def _path(*names: str) -> str:
    return ".".join(name for name in names if name)

"""A network with fewer layers and the same outputs: normalisation is folded into convolutions."""

from collections.abc import Iterator

import torch
from torch import nn

from .blocks import Sequential, Tree
from .conv import Conv3d
from .convert import START, rebuilt, twin_of
from .core import Timing, check_evaluation
from .net import ClipNet
from .pointwise import BatchNorm3d, Dropout, Identity


@torch.no_grad()
def fold(module: nn.Module) -> nn.Module:
    """A copy for inference: chains are flat, each BatchNorm3d is part of the convolution before it,
    and what does nothing in evaluation (Dropout, Identity in a chain) is gone.

    Parameters that stay as they are are shared with the original; those that change are new. The
    copy has the class, timing and methods of the original.

    Raises:
        ValueError: if a layer is in training mode that behaves otherwise in evaluation.
    """
    check_evaluation(module)
    return _folded(module)[0]


def _folded(module: nn.Module, path: str = "", before: Timing = START) -> tuple[nn.Module, Timing]:
    """A folded part, as `rebuilt` takes it; the timing does not matter."""
    if isinstance(module, Tree | ClipNet) and type(module) is not Sequential:
        return rebuilt(module, type(module), _folded, path, before)
    twin = twin_of(module)
    if type(module) is Sequential:
        twin._modules = parts = {}
        last = None
        for name, part in _flat(module):
            if isinstance(part, BatchNorm3d) and last and type(parts[last]) is Conv3d:
                parts[last] = _normalised(parts[last], part)
            elif not isinstance(part, Dropout | Identity):
                parts[name], _ = _folded(part)
                last = name
    return twin, before


def _flat(sequential: Sequential, before: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The names and parts of a chain, those of nested chains in their place."""
    for name, part in sequential._modules.items():
        if type(part) is Sequential:
            yield from _flat(part, f"{before}{name}__")
        else:
            yield before + name, part


def _normalised(conv: Conv3d, norm: BatchNorm3d) -> Conv3d:
    """One convolution in the place of two layers, its factors computed in float64."""
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    shift = -norm.running_mean.double() * scale
    if norm.affine:
        shift = shift * norm.weight.double() + norm.bias.double()
        scale = scale * norm.weight.double()
    if conv.bias is not None:
        shift = shift + conv.bias.double() * scale
    weight = conv.weight.double() * scale.view(-1, 1, 1, 1, 1)
    weight = weight.to(conv.weight).contiguous(memory_format=torch.channels_last_3d)
    twin = twin_of(conv)
    twin._parameters = {
        "weight": nn.Parameter(weight, requires_grad=False),
        "bias": nn.Parameter(shift.to(conv.weight), requires_grad=False),
    }
    return twin

"""A network with fewer layers and the same outputs: normalisation is folded into convolutions."""

import torch
from torch import nn

from .blocks import Sequential, Tree
from .conv import Conv3d
from .convert import rebuilt, twin_of
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


def _folded(
    module: nn.Module, path: str = "", before: Timing | None = None
) -> tuple[nn.Module, Timing | None]:
    """As parts are made for `rebuilt`; nothing depends on the timing."""
    if type(module) is Sequential:
        twin = twin_of(module)
        twin._modules = _chain(module)
        return twin, before
    if isinstance(module, Tree | ClipNet):
        return rebuilt(module, type(module), _folded, path)
    return twin_of(module), before


def _chain(sequential: Sequential) -> dict[str, nn.Module]:
    """The parts of a chain and of the chains in it, by the joined names, norms folded."""
    parts: dict[str, nn.Module] = {}
    for name, part in flat(sequential):
        if isinstance(part, Dropout | Identity):
            continue
        last = next(reversed(parts), None)
        if isinstance(part, BatchNorm3d) and last and type(parts[last]) is Conv3d:
            parts[last] = _normalised(parts[last], part)
        else:
            parts[name], _ = _folded(part)
    return parts


def flat(sequential: Sequential, before: str = ""):
    """(name, part) of all parts, those of nested chains in their place."""
    for name, part in sequential._modules.items():
        if type(part) is Sequential:
            yield from flat(part, f"{before}{name}__")
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

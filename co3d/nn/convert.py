"""From a tree of `torch.nn` layers to its continual twin, which shares the parameters."""

from collections import OrderedDict

from torch import nn

from . import blocks, conv, net, pointwise, pool, temporal
from .core import Continual

_COUNTERPARTS = (
    *(conv.Conv3d, pool.MaxPool3d, pool.AvgPool3d, pool.AdaptiveAvgPool3d),
    *(pointwise.BatchNorm3d, pointwise.Linear, pointwise.Flatten, pointwise.Dropout),
    *(pointwise.Identity, *pointwise.ACTIVATIONS.values()),
)
_LEAVES = {getattr(nn, layer.__name__): layer for layer in _COUNTERPARTS}
_OWN_LEAVES = {*_COUNTERPARTS, temporal.Delay, pool.RunningWindow}


class _Refused(ValueError):
    """A refusal that names the path of the layer."""


def continual(
    module: nn.Module, *, gate: str | None = None, window: int | None = None
) -> Continual:
    """The continual twin of a tree of known layers; both share parameters and running statistics.

    Args:
        module: a layer of `torch.nn` or of this package, or a tree of them (`nn.Sequential`,
            `Residual`, `Parallel`, `SqueezeExcite`, `ClipNet`).
        gate: gates over whole clips have no step; "frame" replaces them, as in CoX3D.
        window: global pools over time have no step; a running window of so many positions (frames
            divided by the strides before it) replaces them.

    Raises:
        TypeError: for a module of another class, named with its path.
        ValueError: for a layer that cannot be stepped, named with its path and the reason.
    """
    if gate not in (None, "frame"):
        raise ValueError(f"expected gate None or 'frame', given {gate!r}")
    if window is not None and (not isinstance(window, int) or window < 1):
        raise ValueError(f"expected a window of 1 or more, given {window!r}")
    if type(module) is nn.Sequential:
        _check_flattened(module)
    return _convert(module, "", gate, window)


def _convert(module: nn.Module, path: str, gate: str | None, window: int | None) -> Continual:
    where = f"{type(module).__name__} at {path or 'the root'}"
    if module._forward_hooks or module._forward_pre_hooks:
        raise _Refused(f"expected plain layers, given {where} with forward hooks")
    try:
        return _convert_plain(module, path, gate, window)
    except _Refused:
        raise
    except ValueError as error:
        raise _Refused(f"{where}: {error}") from None


def _convert_plain(module: nn.Module, path: str, gate: str | None, window: int | None) -> Continual:
    kind = type(module)
    if kind in (nn.AdaptiveAvgPool3d, pool.AdaptiveAvgPool3d):
        return _convert_pool(module, window)
    if kind is pool.RunningWindow and window is not None:
        return pool.RunningWindow(window)
    if kind in _LEAVES or kind in _OWN_LEAVES:
        return _twin(module, _LEAVES.get(kind, kind))
    if kind is blocks.SqueezeExcite:
        if module.gate == "clip" and gate is None:
            raise ValueError("its gate needs the whole clip: say continual(module, gate='frame')")
        twin = _twin(module, kind)
        twin.gate = gate or module.gate
        return twin
    parts = OrderedDict(
        (name, _convert(part, f"{path}.{name}".lstrip("."), gate, window))
        for name, part in module._modules.items()
        if part is not None and kind in _TREES
    )
    if kind not in _TREES:
        raise TypeError(
            f"expected layers with a continual form, given {kind.__name__} at "
            f"{path or 'the root'}: its forward is its own, so it is not converted"
        )
    twin = _twin(module, _TREES[kind])
    twin._modules = {name: parts.get(name) for name in module._modules}
    return twin


_TREES = {
    nn.Sequential: blocks.Sequential,
    blocks.Sequential: blocks.Sequential,
    blocks.Parallel: blocks.Parallel,
    blocks.Residual: blocks.Residual,
    net.ClipNet: net.StreamNet,
    net.StreamNet: net.StreamNet,
}


def _twin(module: nn.Module, kind: type) -> Continual:
    """A module of another class around the same parameters and buffers."""
    twin = kind.__new__(kind)
    twin.__dict__.update(module.__dict__)
    twin.__dict__.pop("_signature_cache", None)
    if hasattr(twin, "_prepare"):
        twin._prepare()
    return twin


def _convert_pool(module: nn.AdaptiveAvgPool3d, window: int | None) -> Continual:
    size = module.output_size
    size = (size,) * 3 if isinstance(size, int) else tuple(size)
    if size[0] is None:
        return _twin(module, pool.AdaptiveAvgPool3d)
    if size != (1, 1, 1):
        raise ValueError(f"expected output size (1, 1, 1) or (None, h, w), given {size}")
    if window is None:
        raise ValueError("it pools over whole clips: say continual(module, window=frames)")
    return pool.RunningWindow(window)


def _check_flattened(module: nn.Sequential) -> None:
    """A `torch.nn.Linear` acts on the last axis, which is the channels only of flat vectors."""
    flat = False
    for name, part in module.named_modules():  # in the order in which they run
        flat = flat or isinstance(part, nn.Flatten)
        if type(part) is nn.Linear and not flat:
            raise ValueError(f"expected Flatten before the Linear at {name}, given none")

"""From a tree of `torch.nn` layers to its continual twin, which shares the parameters."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from . import blocks, conv, net, pointwise, pool, temporal, twopath
from .core import Continual, Timing

_COUNTERPARTS = (
    *(conv.Conv3d, pool.MaxPool3d, pool.AvgPool3d, pool.AdaptiveAvgPool3d),
    *(pointwise.BatchNorm3d, pointwise.Linear, pointwise.Flatten, pointwise.Dropout),
    *(pointwise.Identity, *pointwise.ACTIVATIONS.values()),
)
LAYERS = {getattr(nn, layer.__name__): layer for layer in _COUNTERPARTS}
LAYERS |= {leaf: leaf for leaf in (*_COUNTERPARTS, temporal.Delay, temporal.Subsample)}
LAYERS |= {leaf: leaf for leaf in (pool.RunningWindow, blocks.SqueezeExcite)}
_TREES = {tree: tree for tree in (blocks.Sequential, blocks.Parallel, blocks.Residual)}
_TREES |= {twopath.TwoPath: twopath.TwoPath, nn.Sequential: blocks.Sequential}
_TREES |= {kind: net.StreamNet for kind in (net.ClipNet, net.StreamNet)}

START = Timing()


def continual(
    module: nn.Module,
    *,
    gate: str | None = None,
    window: int | None = None,
    dense: bool = False,
) -> Continual:
    """The continual twin of a tree of known layers; both share parameters and running statistics.

    Args:
        module: a layer of `torch.nn` or of this package, or a tree of them (`nn.Sequential`,
            `Residual`, `Parallel`, `TwoPath`, `SqueezeExcite`, `ClipNet`). The twin of
            `torch.nn.Flatten` flattens each frame.
        gate: gates over whole clips have no step; "frame" replaces them, as in CoX3D.
        window: global pools over time have no step; a running window of so many input frames, a
            multiple of the temporal strides before it, replaces them.
        dense: whether temporal strides are taken out, and what is behind them dilated instead:
            every stride-th output is that of the strided net, and the others lie between.

    Raises:
        TypeError: for a module of another class, named with its path.
        ValueError: for a layer that cannot be stepped, named with its path and the reason.
    """
    if window is not None and (not isinstance(window, int) or window < 1):
        raise ValueError(f"expected a window of 1 or more frames, given {window!r}")
    twin, _ = Conversion(gate, window)(module)
    if dense:
        twin, _ = _dense(twin)
    return twin


class Conversion:
    """Makes twins, as `continual`: of a module, its path, and the timing of what is before it.

    Without a window, global pools see all that they see in a clip of so many `frames`.
    """

    def __init__(self, gate: str | None, window: int | None, frames: int = 0) -> None:
        if gate not in (None, "frame"):
            raise ValueError(f"expected gate None or 'frame', given {gate!r}")
        self.gate, self.window, self.frames = gate, window, 0 if window else frames

    def __call__(
        self, module: nn.Module, path: str = "", before: Timing = START
    ) -> tuple[nn.Module, Timing]:
        """The twin, and the timing of all up to its end."""
        _check_known(module, path)
        if type(module) in LAYERS:
            with _named(module, path):
                twin = self._layer(module, before)
            return twin, before.then(twin.timing)
        if not path and type(module) is nn.Sequential:
            _check_flattened(module)
        # A stream cannot know where its end will be.
        changed = {"sampling": "stride"} if isinstance(module, twopath.TwoPath) else {}
        return rebuilt(module, _TREES[type(module)], self, path, before, **changed)

    def _layer(self, layer: nn.Module, before: Timing) -> nn.Module:
        if isinstance(layer, nn.AdaptiveAvgPool3d):
            return self._pool(layer, before)
        if isinstance(layer, pool.RunningWindow) and self.window is not None:
            return pool.RunningWindow(self._positions(before, layer.dilation), layer.dilation)
        if isinstance(layer, blocks.SqueezeExcite):
            gate = self.gate or layer.gate
            if gate == "clip":
                raise ValueError(
                    "its gate needs the whole clip: say continual(module, gate='frame')"
                )
            return twin_of(layer, type(layer), gate=gate)
        if type(layer) is nn.Flatten and self.frames and self._maps(before) > 1:
            raise ValueError("it would flatten time as well: pool over time before it")
        return twin_of(layer, LAYERS[type(layer)])

    def _pool(self, layer: nn.AdaptiveAvgPool3d, before: Timing) -> nn.Module:
        size = layer.output_size
        size = (size,) * 3 if isinstance(size, int) else tuple(size)
        if size[0] is None:
            return twin_of(layer, pool.AdaptiveAvgPool3d)
        if size != (1, 1, 1):
            raise ValueError(f"expected output size (1, 1, 1) or (None, h, w), given {size}")
        if self.window is None and not self.frames:
            raise ValueError("it pools over whole clips: say continual(module, window=frames)")
        return pool.RunningWindow(self._positions(before))

    def _maps(self, before: Timing) -> int:
        """How many maps a clip of `frames` frames has at a layer."""
        return (self.frames + before.surplus) // before.stride + 1

    def _positions(self, before: Timing, dilation: int = 1) -> int:
        """The window in maps of a layer, or all maps that a clip has there."""
        if self.window is None:
            return self._maps(before)
        stride = before.stride * dilation
        if self.window % stride:
            raise ValueError(
                f"expected a window of 1 or more frames, a multiple of {stride}, given "
                f"{self.window}"
            )
        return self.window // stride


def _dense(module: nn.Module, path: str = "", before: Timing = START) -> tuple[nn.Module, Timing]:
    """Takes temporal strides out of a continual tree and dilates what is behind them."""
    if type(module) in _TREES:
        return rebuilt(module, type(module), _dense, path, before)
    with _named(module, path):
        return _dense_layer(module, before.stride), before.then(module.timing)


def _dense_layer(layer: nn.Module, stride: int) -> nn.Module:
    if isinstance(layer, pool.AvgPool3d) and stride > 1:
        raise ValueError(
            f"expected no average pool behind a stride of {stride}: it has no dilation"
        )
    if isinstance(layer, temporal.Delay):
        return temporal.Delay(layer.frames * stride)
    if isinstance(layer, temporal.Subsample):
        return temporal.Subsample(1)
    if isinstance(layer, pool.RunningWindow):
        return pool.RunningWindow(layer.window, layer.dilation * stride)
    if not isinstance(layer, temporal.Windowed):
        return twin_of(layer, type(layer))
    changed = {
        "padding": _first(layer.padding, lambda padding: padding * stride),
        "stride": _first(layer.stride, lambda _: 1),
    }
    if stride > 1:
        changed["dilation"] = _first(layer.dilation, lambda dilation: dilation * stride)
    return twin_of(layer, type(layer), **changed)


def _first(value: int | tuple[int, ...], change: Callable[[int], int]) -> tuple[int, ...]:
    """A hyper-parameter of three axes with the first one, time, changed."""
    first, *rest = (value,) * 3 if isinstance(value, int) else value
    return (change(first), *rest)


def rebuilt(
    tree: nn.Module,
    kind: type,
    part: Callable,
    path: str = "",
    before: Timing = START,
    **changed: Any,
) -> tuple[nn.Module, Timing]:
    """A tree of another class around the twins of the parts, and the timing of all up to its end.

    Args:
        part: part(module, path, timing before it) gives a twin and the timing of all up to its end.
        changed: attributes that the twin has otherwise.

    Raises:
        ValueError: if the twins do not fit together.
    """
    twin = _copied(tree, kind, **changed)

    def place(node: blocks.Node, *before: Timing) -> Timing:
        if node.part is None:
            return node.timing(*before)
        placed, after = part(node.part, f"{path}.{node.name}".lstrip("."), before[0])
        *containers, name = node.name.split(".")
        twin.get_submodule(".".join(containers))._modules[name] = placed
        return after

    for name in {node.name.partition(".")[0] for node in twin.nodes if "." in node.name}:
        twin._modules[name] = _copied(twin._modules[name])
    after = blocks.run(twin.nodes, before, place)
    with _named(tree, path):
        return _prepared(twin), after


def twin_of(layer: nn.Module, kind: type | None = None, **changed: Any) -> nn.Module:
    """A layer of another class around the same parameters and buffers, with changed attributes."""
    return _prepared(_copied(layer, kind, **changed))


def _copied(module: nn.Module, kind: type | None = None, **changed: Any) -> Any:
    kind = kind or type(module)
    twin = kind.__new__(kind)
    twin.__dict__.update(module.__dict__)
    twin.__dict__.pop("_signature_cache", None)
    twin.__dict__.update(changed)
    twin._modules = dict(module._modules)
    return twin


def _prepared(module: nn.Module) -> nn.Module:
    if hasattr(module, "_prepare"):
        module._prepare()
    return module


@contextmanager
def _named(module: nn.Module, path: str) -> Iterator[None]:
    """Puts the path of a layer before the reason why it is refused."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{named_at(module, path)}: {error}") from None


def named_at(module: nn.Module, path: str) -> str:
    """The class of a module and its place in a tree, for messages."""
    return f"{type(module).__name__} at {path or 'the root'}"


def _check_known(module: nn.Module, path: str) -> None:
    where, is_layer = named_at(module, path), type(module) in LAYERS
    for part in module.modules() if is_layer else (module,):
        if part._forward_hooks or part._forward_pre_hooks:
            raise ValueError(f"expected plain layers, given {where} with forward hooks")
    if "forward" in module.__dict__ or not (is_layer or type(module) in _TREES):
        why = "its forward is its own, so it is not converted"
        if "forward" not in module.__dict__ and type(module).__module__.startswith("torch.nn."):
            why = "it has no continual form"
        raise TypeError(f"expected layers with a continual form, given {where}: {why}")


def _check_flattened(module: nn.Sequential) -> None:
    """A `torch.nn.Linear` acts on the last axis, which is the channels only of flat vectors."""
    flat = False
    for name, part in module.named_modules():  # in the order in which they run
        flat = flat or isinstance(part, nn.Flatten)
        if type(part) is nn.Linear and not flat:
            raise ValueError(f"expected Flatten before the Linear at {name}, given none")

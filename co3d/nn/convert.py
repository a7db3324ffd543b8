"""From a tree of `torch.nn` layers to its continual twin, which shares the parameters."""

from collections.abc import Callable
from typing import Any

from torch import nn

from .blocks import Node, Parallel, Residual, Sequential, SqueezeExcite, run
from .conv import Conv3d
from .core import Continual, Timing
from .net import ClipNet, StreamNet
from .pointwise import ACTIVATIONS, BatchNorm3d, Dropout, Flatten, Identity, Linear
from .pool import AdaptiveAvgPool3d, AvgPool3d, MaxPool3d, RunningWindow
from .temporal import Delay, Subsample, Windowed
from .twopath import TwoPath

_OF_TORCH = (
    *(Conv3d, MaxPool3d, AvgPool3d, AdaptiveAvgPool3d, BatchNorm3d, Linear, Flatten, Dropout),
    *(Identity, *ACTIVATIONS.values()),
)
LAYERS = {kind: kind for kind in (*_OF_TORCH, Delay, Subsample, RunningWindow, SqueezeExcite)}
LAYERS |= {getattr(nn, kind.__name__): kind for kind in _OF_TORCH}
_TREES = {kind: kind for kind in (Sequential, Parallel, Residual, TwoPath, StreamNet)}
_TREES |= {nn.Sequential: Sequential, ClipNet: StreamNet}

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
    twin, _ = Conversion(gate, window, dense)(module)
    return twin


class Conversion:
    """Makes twins as `continual`, with its options.

    Without a window, global pools see all that they see in a clip of so many `frames`.
    """

    def __init__(
        self, gate: str | None, window: int | None, dense: bool = False, frames: int = 0
    ) -> None:
        if gate not in (None, "frame"):
            raise ValueError(f"expected gate None or 'frame', given {gate!r}")
        if window is not None and (not isinstance(window, int) or window < 1):
            raise ValueError(f"expected a window of 1 or more frames, given {window!r}")
        self.gate, self.window, self.dense = gate, window, dense
        self.frames = 0 if window else frames

    def __call__(
        self, module: nn.Module, path: str = "", before: Timing = START
    ) -> tuple[nn.Module, Timing]:
        """The twin of a module at a path, behind layers with a timing, and the timing behind it.

        Both timings are those without `dense`.
        """
        _check_known(module, path)
        is_layer = type(module) in LAYERS
        if not is_layer:
            # A stream cannot know where its end will be.
            changed = {"sampling": "stride"} if isinstance(module, TwoPath) else {}
            twin, after = rebuilt(module, _TREES[type(module)], self, path, before, **changed)
        try:
            if is_layer:
                return self._layer(module, before)
            twin._prepare()
        except ValueError as error:
            raise ValueError(f"{named_at(module, path)}: {error}") from None
        return twin, after

    def _layer(self, layer: nn.Module, before: Timing) -> tuple[nn.Module, Timing]:
        twin = self._twin(layer, before)
        twin._prepare()
        return _dense(twin, before.stride) if self.dense else twin, before.then(twin.timing)

    def _twin(self, layer: nn.Module, before: Timing) -> nn.Module:
        if isinstance(layer, nn.AdaptiveAvgPool3d):
            size = layer.output_size
            size = (size,) * 3 if isinstance(size, int) else tuple(size)
            if size[0] is None:
                return twin_of(layer, AdaptiveAvgPool3d)
            if size != (1, 1, 1):
                raise ValueError(f"expected output size (1, 1, 1) or (None, h, w), given {size}")
            return RunningWindow(self._positions(before))
        if isinstance(layer, RunningWindow) and self.window is not None:
            return RunningWindow(self._positions(before, layer.dilation), layer.dilation)
        if isinstance(layer, SqueezeExcite):
            if not self.gate and layer.gate == "clip":
                raise ValueError(
                    "its gate needs the whole clip: say continual(module, gate='frame')"
                )
            return twin_of(layer, gate="frame")
        if type(layer) is nn.Flatten and self.frames and self._maps(before) > 1:
            raise ValueError("it would flatten time as well: pool over time before it")
        return twin_of(layer, LAYERS[type(layer)])

    def _maps(self, before: Timing) -> int:
        """How many maps a clip of `frames` frames has at a layer."""
        return (self.frames + before.surplus) // before.stride + 1

    def _positions(self, before: Timing, dilation: int = 1) -> int:
        """The window in maps of a layer, or all maps that a clip has there."""
        if self.frames:
            return self._maps(before)
        if self.window is None:
            raise ValueError("it pools over whole clips: say continual(module, window=frames)")
        stride = before.stride * dilation
        if self.window % stride:
            raise ValueError(
                f"expected a window of 1 or more frames, a multiple of {stride}, given "
                f"{self.window}"
            )
        return self.window // stride


def _dense(layer: nn.Module, stride: int) -> nn.Module:
    """A layer behind strides, without its own and dilated by those before it."""
    if isinstance(layer, AvgPool3d) and stride > 1:
        raise ValueError(
            f"expected no average pool behind a stride of {stride}: it has no dilation"
        )
    if isinstance(layer, Delay):
        return Delay(layer.frames * stride)
    if isinstance(layer, Subsample):
        return Subsample(1)
    if isinstance(layer, RunningWindow):
        return RunningWindow(layer.window, layer.dilation * stride)
    if not isinstance(layer, Windowed):
        return layer
    _, dilation, padding, _ = layer._time
    changed = {"padding": _in_time(layer.padding, padding * stride)}
    changed["stride"] = _in_time(layer.stride, 1)
    if stride > 1:
        changed["dilation"] = _in_time(layer.dilation, dilation * stride)
    return twin_of(layer, **changed)


def _in_time(value: int | tuple[int, ...], number: int) -> tuple[int, ...]:
    """A hyper-parameter of three axes with another number for time."""
    return (number, value, value) if isinstance(value, int) else (number, *value[1:])


def rebuilt(
    tree: nn.Module, kind: type, part: Callable, path: str, before: Timing, **changed: Any
) -> tuple[nn.Module, Timing]:
    """A tree of another class around the twins of the parts, and the timing behind it.

    Args:
        part: part(module, path, timing before it) gives a twin and the timing behind it.
        changed: attributes that the tree has otherwise.
    """
    twin = twin_of(tree, kind, **changed)

    def place(node: Node, *before: Timing) -> Timing:
        if node.part is None:
            return node.timing(*before)
        placed, after = part(node.part, f"{path}.{node.name}".lstrip("."), before[0])
        *containers, name = node.name.split(".")
        twin.get_submodule(".".join(containers))._modules[name] = placed
        return after

    for name in {node.name.partition(".")[0] for node in twin.nodes if "." in node.name}:
        twin._modules[name] = twin_of(twin._modules[name])
    return twin, run(twin.nodes, before, place)


def twin_of(module: nn.Module, kind: type | None = None, **changed: Any) -> Any:
    """A module of another class around the same parameters, with some attributes changed."""
    kind = kind or type(module)
    twin = kind.__new__(kind)
    twin.__dict__.update(module.__dict__)
    twin.__dict__.pop("_signature_cache", None)
    twin.__dict__.update(changed)
    twin._modules = dict(module._modules)
    return twin


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
    if not path and type(module) is nn.Sequential:
        _check_flattened(module)


def _check_flattened(module: nn.Sequential) -> None:
    """A `torch.nn.Linear` acts on the last axis, which is the channels only of flat vectors."""
    flat = False
    for name, part in module.named_modules():  # in the order in which they run
        flat = flat or isinstance(part, nn.Flatten)
        if type(part) is nn.Linear and not flat:
            raise ValueError(f"expected Flatten before the Linear at {name}, given none")

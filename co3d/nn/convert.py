"""From a tree of `torch.nn` layers to its continual twin, which shares the parameters."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn

from . import blocks, conv, net, pointwise, pool, temporal, twopath
from .core import Continual, Timing

_COUNTERPARTS = (
    *(conv.Conv3d, pool.MaxPool3d, pool.AvgPool3d, pool.AdaptiveAvgPool3d),
    *(pointwise.BatchNorm3d, pointwise.Linear, pointwise.Flatten, pointwise.Dropout),
    *(pointwise.Identity, *pointwise.ACTIVATIONS.values()),
)
_LEAVES = {getattr(nn, layer.__name__): layer for layer in _COUNTERPARTS}
_LEAVES |= {leaf: leaf for leaf in (*_COUNTERPARTS, temporal.Delay, temporal.Subsample)}
_LEAVES |= {leaf: leaf for leaf in (pool.RunningWindow, blocks.SqueezeExcite)}
_TREES = {
    nn.Sequential: blocks.Sequential,
    blocks.Sequential: blocks.Sequential,
    blocks.Parallel: blocks.Parallel,
    blocks.Residual: blocks.Residual,
    twopath.TwoPath: twopath.TwoPath,
    net.ClipNet: net.StreamNet,
    net.StreamNet: net.StreamNet,
}

_START = Timing()


class _Refused(ValueError):
    """A refusal that names the path of the layer."""


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
    twin = _Conversion(gate, window)(module)
    return _Dense()(twin) if dense else twin


class Outcome(NamedTuple):
    """What becomes of one layer: the class of its twin, or the reason why it has none."""

    path: str
    kind: str
    becomes: str | None
    reason: str | None


def survey(
    module: nn.Module, *, gate: str | None = None, window: int | None = None, frames: int = 0
) -> tuple[tuple[Outcome, ...], Continual | None]:
    """The outcome of a conversion for each layer of a network, and its twin if all convert.

    Takes the arguments of `continual`, or in the place of a window the frames of the clips that
    global pools now see whole. Of a module with a forward of its own, the parts follow.
    """
    conversion = _Survey(gate, window, frames)
    twin = conversion(module)
    return tuple(conversion.outcomes), twin


class _Walk:
    """Rebuilds a tree from its leaves; refusals name the path.

    `before` is the timing of all layers that a module's input went through.
    """

    def __call__(self, module: nn.Module, path: str = "", before: Timing = _START) -> Any:
        try:
            if type(module) in _LEAVES:
                return self.leaf(module, before)
            return self._tree(module, path, before)
        except _Refused:
            raise
        except ValueError as error:
            raise _Refused(f"{named_at(module, path)}: {error}") from None

    def leaf(self, layer: nn.Module, before: Timing) -> nn.Module:
        raise NotImplementedError

    def timing_of(self, part: nn.Module, twin: nn.Module) -> Timing:
        return twin.timing

    def _tree(self, module: nn.Module, path: str, before: Timing) -> nn.Module:
        return _twin(module, _TREES[type(module)], self._parts(module, path, before))

    def _parts(self, module: nn.Module, path: str, before: Timing) -> dict[str, Any]:
        parts = {}
        for name, part in module._modules.items():
            where, start = f"{path}.{name}".lstrip("."), before
            if part is None:
                parts[name] = None
            elif isinstance(module, twopath.TwoPath) and name == "lateral":
                parts[name] = self._laterals(module, where, before)
            else:
                if isinstance(module, twopath.TwoPath) and name == "slow":
                    start = before.then(module.sample.timing)
                parts[name] = self(part, where, start)
            if isinstance(module, nn.Sequential):
                before = before.then(self.timing_of(part, parts[name]))
        return parts

    def _laterals(self, paths: twopath.TwoPath, path: str, before: Timing) -> nn.ModuleDict:
        """Each one is behind its stage of the fast path."""
        fast = {name: before.then(timing) for name, timing in paths.fast_timings().items()}
        parts = {n: self(part, f"{path}.{n}", fast[n]) for n, part in paths.lateral.items()}
        return _twin(paths.lateral, nn.ModuleDict, parts)


class _Conversion(_Walk):
    def __init__(self, gate: str | None, window: int | None, frames: int = 0) -> None:
        if gate not in (None, "frame"):
            raise ValueError(f"expected gate None or 'frame', given {gate!r}")
        if window is not None and (not isinstance(window, int) or window < 1):
            raise ValueError(f"expected a window of 1 or more frames, given {window!r}")
        self.gate, self.window, self.frames = gate, window, 0 if window else frames

    def __call__(self, module: nn.Module, path: str = "", before: Timing = _START) -> Any:
        where, leaf = named_at(module, path), type(module) in _LEAVES
        for part in module.modules() if leaf else (module,):
            if part._forward_hooks or part._forward_pre_hooks:
                raise _Refused(f"expected plain layers, given {where} with forward hooks")
        if "forward" in module.__dict__ or not (leaf or type(module) in _TREES):
            why = "its forward is its own, so it is not converted"
            if "forward" not in module.__dict__ and type(module).__module__.startswith("torch.nn."):
                why = "it has no continual form"
            raise TypeError(f"expected layers with a continual form, given {where}: {why}")
        if not path and type(module) is nn.Sequential:
            _check_flattened(module)
        twin = super().__call__(module, path, before)
        if isinstance(twin, twopath.TwoPath):
            twin.sampling = "stride"  # a stream cannot know where its end will be
        return twin

    def leaf(self, layer: nn.Module, before: Timing) -> Continual:
        if isinstance(layer, nn.AdaptiveAvgPool3d):
            return self._pool(layer, before)
        if isinstance(layer, pool.RunningWindow) and self.window is not None:
            return pool.RunningWindow(self._positions(before, layer.dilation), layer.dilation)
        if isinstance(layer, blocks.SqueezeExcite):
            return self._gate(layer)
        if type(layer) is nn.Flatten and self.frames and self._maps(before) > 1:
            raise ValueError("it would flatten time as well: pool over time before it")
        return _twin(layer, _LEAVES[type(layer)])

    def _gate(self, layer: blocks.SqueezeExcite) -> blocks.SqueezeExcite:
        gate = self.gate or layer.gate
        if gate == "clip":
            raise ValueError("its gate needs the whole clip: say continual(module, gate='frame')")
        return _twin(layer, type(layer), gate=gate)

    def _pool(self, layer: nn.AdaptiveAvgPool3d, before: Timing) -> Continual:
        size = layer.output_size
        size = (size,) * 3 if isinstance(size, int) else tuple(size)
        if size[0] is None:
            return _twin(layer, pool.AdaptiveAvgPool3d)
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


class _Survey(_Conversion):
    """A conversion that writes down refusals, with None in the place of a twin, and goes on."""

    def __init__(self, *options: Any) -> None:
        super().__init__(*options)
        self.outcomes: list[Outcome] = []

    def __call__(self, module: nn.Module, path: str = "", before: Timing = _START) -> Any:
        known, kind = len(self.outcomes), type(module).__name__
        try:
            twin = super().__call__(module, path, before)
        except (TypeError, ValueError) as error:
            if not any(outcome.reason for outcome in self.outcomes[known:]):
                reason = str(error).rpartition(f"{named_at(module, path)}: ")[2]
                self.outcomes.append(Outcome(path or "the root", kind, None, reason))
                if type(module) not in _LEAVES and len(self.outcomes) == known + 1:
                    self._parts(module, path, before)
            return None
        if type(module) in _LEAVES:
            self.outcomes.append(Outcome(path or "the root", kind, type(twin).__name__, None))
        return twin

    def timing_of(self, part: nn.Module, twin: nn.Module | None) -> Timing:
        return Timing() if twin is None else twin.timing

    def _tree(self, module: nn.Module, path: str, before: Timing) -> nn.Module:
        known = len(self.outcomes)
        parts = self._parts(module, path, before)
        if any(outcome.reason for outcome in self.outcomes[known:]):
            raise _Refused("a part of it does not convert")
        return _twin(module, _TREES[type(module)], parts)


class _Dense(_Walk):
    """Takes temporal strides out of a continual tree and dilates what is behind them."""

    def leaf(self, layer: nn.Module, before: Timing) -> nn.Module:
        stride = before.stride
        if isinstance(layer, pool.AvgPool3d) and stride > 1:
            raise ValueError(f"expected no average pool behind a stride of {stride}: it has no "
                             "dilation")  # fmt: skip
        if isinstance(layer, temporal.Delay):
            return temporal.Delay(layer.frames * stride)
        if isinstance(layer, temporal.Subsample):
            return temporal.Subsample(1)
        if not isinstance(layer, temporal.Windowed):
            return _twin(layer, type(layer))
        if isinstance(layer, pool.RunningWindow):
            return pool.RunningWindow(layer.window, layer.dilation * stride)
        dense = {"padding": lambda p: p * stride, "stride": lambda _: 1}
        if stride > 1:
            dense["dilation"] = lambda d: d * stride
        return _twin(
            layer,
            type(layer),
            **{name: _first(getattr(layer, name), change) for name, change in dense.items()},
        )

    def timing_of(self, part: nn.Module, twin: nn.Module) -> Timing:
        return part.timing


def _first(value: int | tuple[int, ...], change: Callable[[int], int]) -> tuple[int, ...]:
    """A hyper-parameter of three axes with the first one, time, changed."""
    first, *rest = (value,) * 3 if isinstance(value, int) else value
    return (change(first), *rest)


def _twin(
    module: nn.Module, kind: type, parts: dict[str, nn.Module | None] | None = None, **changed: Any
) -> Any:
    """A module of another class around the same parameters and buffers, or around `parts`."""
    twin = kind.__new__(kind)
    twin.__dict__.update(module.__dict__)
    twin.__dict__.pop("_signature_cache", None)
    twin.__dict__.update(changed)
    if parts is not None:
        twin._modules = parts
    if hasattr(twin, "_prepare"):
        twin._prepare()
    return twin


def named_at(module: nn.Module, path: str) -> str:
    """The class of a module and its place in a tree, for messages."""
    return f"{type(module).__name__} at {path or 'the root'}"


def _check_flattened(module: nn.Sequential) -> None:
    """A `torch.nn.Linear` acts on the last axis, which is the channels only of flat vectors."""
    flat = False
    for name, part in module.named_modules():  # in the order in which they run
        flat = flat or isinstance(part, nn.Flatten)
        if type(part) is nn.Linear and not flat:
            raise ValueError(f"expected Flatten before the Linear at {name}, given none")

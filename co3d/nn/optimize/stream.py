"""The step of a continual net for one shape of frames: frame by frame, state written in place.

A chain of parts takes a frame as the matrix (B H W, C). What lasts no longer than a
step (buffers for outputs) belongs to the parts; what lasts longer is in the state, dicts that a
step changes.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..blocks import Residual, SqueezeExcite
from ..blocks import Sequential as Tree
from ..conv import Conv3d
from ..convert import _twin
from ..core import Continual, Timing
from ..fold import flat
from ..pointwise import Identity, ReLU, SiLU
from ..pool import MaxPool3d, RunningWindow
from ..twopath import TwoPath
from .kernels import Frames
from .parts import Activation, Gate, Part, Pool, Spatial
from .recorded import Recorded
from .timed import Ring, Sums, TimePool, Window

RING = 1 << 19  # bytes of a frame up to which a depthwise convolution takes a ring of frames


class Chain(Continual, nn.Module):
    """The fast form of a `Sequential`, as a continual module of the same timing.

    Args:
        modules: the parts of a folded tree.
        frames: what the inputs are like.
        shared: whether somebody else needs the input.
        held: whether the outputs are needed after the step.
    """

    def __init__(
        self,
        modules: Sequence[nn.Module],
        frames: Frames,
        shared: bool = True,
        held: bool = True,
    ) -> None:
        super().__init__()
        self.timings = [module.timing for module in modules]
        self.first = next(iter(modules), Identity())
        self.parts: list[Part] = []
        self.frames = self.out = frames
        for n, module in enumerate(modules):
            if self.parts and self.parts[-1].take(module):
                continue
            kept = _kept(modules[n + 1 :], held)
            part = _part(module, self.out, shared and n == 0, kept)
            last = self.parts[-1] if self.parts else None
            if isinstance(part, Ring) and type(last) is Spatial and self.out.size[0] == 1:
                part.feed = self.parts.pop()
            self.parts.append(part)
            self.out = part.out
        kinds = [type(part) for part in self.parts]
        # The place in a long window would have to come round, too.
        self.count = kinds.index(Window) if Window in kinds else len(kinds)
        inner = [*_inner(self.parts[: self.count])]
        self.begun = self._begun
        if not any(isinstance(part, Other) for part in inner):
            scratch = [part.scratch for part in inner if isinstance(part, Sums)]
            self.begun = Recorded(self._begun, self.count, scratch)

    @property
    def timing(self) -> Timing:
        timing = Timing()
        for part in self.timings:
            timing = timing.then(part)
        return timing

    @property
    def expected_channels(self) -> int | None:
        return self.first.expected_channels

    def _begin(self, start: int, fill: str, emit: str) -> tuple[Any, int]:
        states = []
        for part in self.parts:
            state, start = part.begin(start, fill, emit)
            states.append(state)
        return tuple(states), start

    def _steps(self, x: Tensor | None, state: Any, end: bool) -> tuple[Tensor | None, Any]:
        with torch.inference_mode():
            frames = () if x is None else x.unbind(2)
            outputs = [self._fed(self.frames.rows(frame), state) for frame in frames]
            outputs += self.finish(state) if end else ()
        outputs = [self.out.image(y) for y in outputs if y is not None]
        return (torch.stack(outputs, 2) if outputs else None), state

    def push(self, x: Tensor, state: Any, first: int = 0, end: int | None = None) -> Tensor | None:
        """One frame through all parts from the `first` on, to the `end`."""
        for part, held in zip(self.parts[first:end], state[first:end], strict=True):
            x = part.push(x, held)
            if x is None:
                return None
        return x

    def _begun(self, x: Tensor, state: Any) -> Tensor | None:
        return self.push(x, state, 0, self.count)

    def _fed(self, x: Tensor, state: Any) -> Tensor | None:
        x = self.begun(x, state)
        return None if x is None else self.push(x, state, self.count)

    def finish(self, state: Any) -> Iterator[Tensor]:
        """The outputs that the padding behind the last frame completes, one at a time."""
        for n, (part, held) in enumerate(zip(self.parts, state, strict=True), start=1):
            for x in part.finish(held):
                if (y := self.push(x, state, n)) is not None:
                    yield y


def _part(module: nn.Module, frames: Frames, shared: bool, held: bool) -> Part:
    """The part that stands for a module."""
    if isinstance(module, Conv3d):
        return _convolution(module, frames, held)
    if type(module) in (ReLU, SiLU):
        return Activation(module, frames, shared)
    if isinstance(module, SqueezeExcite) and module.gate == "frame":
        return Gate(module, frames, shared)
    if isinstance(module, MaxPool3d):
        return (Pool if module.timing == Timing() else TimePool)(module, frames)
    # The mean over the window and the head behind it are never of bfloat16.
    wide = frames._replace(dtype=torch.promote_types(frames.dtype, torch.float32))
    if isinstance(module, RunningWindow):
        return Window(module, wide)
    if type(module) is Residual and isinstance(module.activation, ReLU | None):
        return Block(module, frames, shared)
    if isinstance(module, TwoPath):
        twin = _paths(module, frames)
        channels = sum(path[-1].out.size[1] for path in (twin.slow, twin.fast))
        return Other(twin, frames, wide.resized(frames.size[0], channels, 1, 1))
    return _other(module, frames)


def _other(module: Continual, frames: Frames) -> "Other":
    twin = copy.deepcopy(module).to(frames.dtype)
    clip = torch.empty(frames.size, dtype=frames.dtype, device="meta").unsqueeze(2)
    clip = clip.expand(-1, -1, module.receptive_field, -1, -1)
    size = copy.deepcopy(twin).to("meta")(clip, pad=False).shape
    return Other(twin, frames, frames.resized(*size[:2], *size[3:]))


def _convolution(conv: Conv3d, frames: Frames, held: bool) -> Part:
    if conv.timing == Timing():
        return Spatial(conv, frames, held)
    same = conv.stride == (1, 1, 1) and conv.dilation == (1, 1, 1)
    sides = zip(conv.kernel_size[1:], conv.padding[1:], strict=True)
    same = same and all(kernel == 2 * padding + 1 > 1 for kernel, padding in sides)
    depthwise = conv.groups == conv.in_channels == conv.out_channels
    if same and depthwise and frames.nbytes <= RING:
        return Ring(conv, frames)
    return Sums(conv, frames, held)


class Block(Part):
    """A residual block whose sum is made in the memory of the shortcut's frame.

    The last convolution of the main branch adds to it, where it is one of single frames.
    """

    def __init__(self, block: Residual, frames: Frames, shared: bool) -> None:
        self.strided = block.timing.stride > 1
        self.owns = not (shared and isinstance(block.shortcut, Identity))
        self.holds = isinstance(block.shortcut, Identity)
        main = _chain_parts(block.main)
        tail = main.pop() if isinstance(main[-1], Conv3d) and main[-1].timing == Timing() else None
        self.main = Chain(main, frames, held=False)
        self.tail = None if tail is None else Spatial(tail, self.main.out, held=True)
        self.shortcut = None
        if not self.holds:
            self.shortcut = _chain(block.shortcut, frames)
        self.relu = isinstance(block.activation, ReLU)
        self.out = (self.tail or self.main).out

    def begin(self, start: int, fill: str, emit: str) -> tuple[dict[str, Any], int]:
        main, late = self.main._begin(start, fill, emit)
        side, early = ((), start) if self.holds else self.shortcut._begin(start, fill, emit)
        first = min(late, early)
        if early > late and self.strided:
            raise ValueError("expected emit='valid' for an optimised net with temporal strides in "
                             "its blocks, given 'always': step the net itself")  # fmt: skip
        return {"main": main, "side": side, "zeros": early - first, "queue": ()}, first

    def push(self, x: Tensor, state: dict[str, Any]) -> Tensor | None:
        if self.holds:
            side = x if self.owns else x.clone()  # somebody else may write to theirs
        else:
            side = self.shortcut.push(x, state["side"])
        if side is not None:
            state["queue"] = (*state["queue"], side)
        y = self.main.push(x, state["main"])
        return None if y is None else self._join(y, state)

    def finish(self, state: dict[str, Any]) -> Iterator[Tensor]:
        if not self.holds:
            state["queue"] = (*state["queue"], *self.shortcut.finish(state["side"]))
        for y in self.main.finish(state["main"]):
            yield self._join(y, state)

    def _join(self, y: Tensor, state: dict[str, Any]) -> Tensor:
        if state["zeros"]:
            state["zeros"] -= 1
            total = self.out.full(0.0)
        else:
            total, *rest = state["queue"]
            state["queue"] = tuple(rest)
        if self.tail is not None:
            return self.tail.kernel.add_(y, total, self.relu)
        total.add_(y)
        return total.clamp_min_(0) if self.relu else total


class Other(Part):
    """Any other module by its own step."""

    def __init__(self, module: Continual, frames: Frames, out: Frames) -> None:
        self.module, self.frames, self.out = module, frames, out

    def begin(self, start: int, fill: str, emit: str) -> tuple[dict[str, Any], int]:
        state, first = self.module._begin(start, fill, emit)
        return {"held": state}, first

    def push(self, x: Tensor, state: dict[str, Any]) -> Tensor | None:
        y, state["held"] = self.module._steps(
            self.frames.image(x).unsqueeze(2), state["held"], False
        )
        return None if y is None else self.out.rows(y.squeeze(2))

    def finish(self, state: dict[str, Any]) -> Iterator[Tensor]:
        y, state["held"] = self.module._steps(None, state["held"], True)
        yield from () if y is None else map(self.out.rows, y.unbind(2))


def _kept(following: Sequence[nn.Module], held: bool) -> bool:
    """Whether the memory of an output is needed after the step, by what follows it in a chain."""
    for module in following:
        if isinstance(module, Residual):
            return isinstance(module.shortcut, Identity)
        if not isinstance(module, ReLU | SiLU | SqueezeExcite):  # these work in place
            return not isinstance(module, Conv3d | RunningWindow)
    return held


def _paths(paths: TwoPath, frames: Frames) -> TwoPath:
    """The twin of two paths with a fast chain for each of their stages."""

    def stages(path: Tree, joined: dict[str, Chain]) -> dict[str, Chain]:
        made, now = {}, frames
        for name, stage in path._modules.items():
            made[name] = _chain(stage, now)
            now = made[name].out
            batch, channels, *size = now.size
            if name in joined:
                now = now.resized(batch, channels + joined[name].out.size[1], *size)
        return made

    fast = stages(paths.fast, {})
    lateral = {n: _chain(side, fast[n].out) for n, side in paths.lateral._modules.items()}
    parts = {
        **paths._modules,
        "slow": _twin(paths.slow, Tree, stages(paths.slow, lateral)),
        "fast": _twin(paths.fast, Tree, fast),
        "lateral": _twin(paths.lateral, nn.ModuleDict, lateral),
    }
    return _twin(paths, TwoPath, parts)


def _inner(parts: Sequence[Part]) -> Iterator[Part]:
    """The parts and those inside them."""
    for part in parts:
        yield part
        if isinstance(part, Block):
            sides = [part.main] if part.shortcut is None else [part.main, part.shortcut]
            for chain in sides:
                yield from _inner(chain.parts)


def _chain(module: nn.Module, frames: Frames) -> Chain:
    return Chain(_chain_parts(module), frames)


def _chain_parts(module: nn.Module) -> list[nn.Module]:
    return [part for _, part in flat(module)] if type(module) is Tree else [module]

"""The fast twin of a regular net, for clips of one shape."""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ..blocks import Residual, SqueezeExcite
from ..blocks import Sequential as Tree
from ..conv import Conv3d
from ..core import Continual
from ..fold import flat, fold
from ..net import ClipNet
from ..pointwise import Identity, ReLU, SiLU
from ..pool import AdaptiveAvgPool3d, _triple
from ..twopath import TwoPath
from .maps import Activation, Convolution, Gate, Maps, Mean, Part, Pool
from .net import check_dtype, keep_facts


class OptimizedClip(ClipNet):
    """A regular net for inference on clips of one shape, called as the net.

    Normalisation is part of the convolutions, activations and sums are made in place, and each
    convolution has a form that is fast on the machine at hand. Clips and logits have the type of
    the original's weights, whatever the type inside.

    Args:
        net: in evaluation mode; it stays as it is.
        clip: (B, C, T, H, W); only shape and device matter.
        dtype: float32, bfloat16 or, on a GPU, float16 (the mean over the clip and the head stay
            float32), or float64 for checks.

    Raises:
        TypeError: for another dtype, or something else than a net for clips.
        ValueError: for a net in training mode, or a clip that does not fit.
    """

    def __init__(self, net: ClipNet, clip: Tensor, dtype: torch.dtype = torch.float32) -> None:
        nn.Module.__init__(self)
        check_dtype(dtype, clip.device)
        net.body._check_input(clip)
        self.shape, self.dtype, self.given = tuple(clip.shape), dtype, clip.dtype
        self.device = clip.device
        with torch.no_grad():
            self.body = Chain([part for _, part in flat(fold(net).body)], Maps.of(clip, dtype))
        self.classifier = copy.deepcopy(net.classifier).to(self.body.out.dtype)
        keep_facts(net, self)
        self.requires_grad_(False).eval()

    def extra_repr(self) -> str:
        return f"shape={self.shape}, dtype={self.dtype}"

    @torch.no_grad()
    def features(self, clip: Tensor, pad: bool = True) -> Tensor:
        """The vector before the classifier, (B, D).

        Raises:
            ValueError: for a clip of another shape, type or device, or pad=False.
        """
        if not pad:
            raise ValueError("expected pad=True, given pad=False: ask the original net for that")
        self._check(clip)
        with torch.inference_mode():
            rows = self.body.maps.rows(clip)
            if rows.data_ptr() == clip.data_ptr() and not self.body.reads:
                rows = rows.clone()
            vector = self.body(rows)
        return vector.clone()  # an ordinary tensor

    @torch.no_grad()
    def forward(self, clip: Tensor, pad: bool = True) -> Tensor:
        """Logits (B, classes) of a clip (B, C, T, H, W); raises as `features`."""
        return self.classifier(self.features(clip, pad)).to(self.given)

    def _check(self, clip: Tensor) -> None:
        if not isinstance(clip, Tensor):
            raise TypeError(f"expected a clip as a tensor, given {type(clip).__name__}")
        if (tuple(clip.shape), clip.dtype, clip.device) != (self.shape, self.given, self.device):
            raise ValueError(
                f"expected a clip {self.shape} of {self.given} on {self.device}, for which the net "
                f"was optimised, given {tuple(clip.shape)} of {clip.dtype} on {clip.device}"
            )


class Chain(Part):
    """Parts one after the other."""

    def __init__(self, modules: Iterable[nn.Module], maps: Maps) -> None:
        self.maps = self.out = maps
        self.parts: list[Part] = []
        for module in modules:
            if self.parts and self.parts[-1].take(module):
                continue
            self.parts.append(_part(module, self.out))
            self.out = self.parts[-1].out

    @property
    def reads(self) -> bool:
        """Whether it leaves its input as it is."""
        first = next(iter(self.parts), None)
        if isinstance(first, Paths):  # the slow one has frames of its own
            return first.stages[0][1].reads
        return isinstance(first, Convolution)

    def __call__(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x)
        return x


class Block(Part):
    """A residual block: the last convolution of its main branch adds to the shortcut."""

    def __init__(self, block: Residual, maps: Maps) -> None:
        *main, last = _modules(block.main)
        self.maps, self.main = maps, Chain(main, maps)
        self.shortcut = Chain(_modules(block.shortcut), maps)
        self.last, self.relu = Convolution(last, self.main.out), block.activation is not None
        self.out = self.last.out

    @classmethod
    def fits(cls, module: nn.Module) -> bool:
        """Whether the branches leave their input as it is, and the sum can be that of a layer."""
        if type(module) is not Residual or type(module.activation) not in (ReLU, type(None)):
            return False
        main, shortcut = _modules(module.main), _modules(module.shortcut)
        ends = *main[:1], *main[-1:], *shortcut[:1]
        return len(main) > 1 and all(type(part) is Conv3d for part in ends)

    def __call__(self, x: Tensor) -> Tensor:
        total, x = self.shortcut(x), self.main(x)
        return self.last.kernel.add_(x, total, self.relu)


class Paths(Part):
    """The two paths of SlowFast, of as many columns at every join."""

    def __init__(self, paths: TwoPath, maps: Maps) -> None:
        batch, channels, frames, *size = maps.size
        clip = torch.arange(frames).view(1, 1, -1, 1, 1)
        self.picked = paths._slow_frames(clip).flatten().to(maps.device)
        slow, fast = maps.resized(batch, channels, len(self.picked), *size), maps
        self.maps, self.stages = maps, []
        for slow_part, fast_part, lateral in paths._stages:
            slow, fast = Chain(_modules(slow_part), slow), Chain(_modules(fast_part), fast)
            side = None if lateral is None else Chain(_modules(lateral), fast.out)
            self.stages.append((slow, fast, side))
            slow, fast = slow.out, fast.out
            if side is not None:
                slow = _joined(slow, side.out)
        self.out = _joined(slow, fast)

    def __call__(self, x: Tensor) -> Tensor:
        batch, channels, frames, *_ = self.maps.size
        slow = x.view(batch, frames, -1)[:, self.picked].view(-1, channels)
        for slow_part, fast_part, lateral in self.stages:
            slow, x = slow_part(slow), fast_part(x)
            if lateral is not None:
                slow = torch.cat((slow, lateral(x)), 1)
        return torch.cat((slow, x), 1)


class Other(Part):
    """A module as it is."""

    def __init__(self, module: Continual, maps: Maps) -> None:
        self.module, self.maps = copy.deepcopy(module).to(maps.dtype), maps
        clip = torch.empty(maps.size, dtype=maps.dtype, device="meta")
        self.out = maps.resized(*copy.deepcopy(self.module).to("meta")(clip).shape)

    def __call__(self, x: Tensor) -> Tensor:
        return self.out.rows(self.module(self.maps.clip(x)))


def _part(module: nn.Module, maps: Maps) -> Part:
    """The part that stands for a module."""
    if isinstance(module, Conv3d):
        return Convolution(module, maps)
    if type(module) in (ReLU, SiLU):
        return Activation(module, maps)
    if isinstance(module, SqueezeExcite) and module.gate != "window":
        return Gate(module, maps)
    if Pool.fits(module):
        return Pool(module, maps)
    if isinstance(module, AdaptiveAvgPool3d) and _triple(module.output_size) == (1, 1, 1):
        return Mean(maps)
    if Block.fits(module):
        return Block(module, maps)
    if isinstance(module, TwoPath):
        return Paths(module, maps)
    return Other(module, maps)


def _modules(module: nn.Module) -> list[nn.Module]:
    """The links of a chain, those that do nothing left out."""
    links = [part for _, part in flat(module)] if type(module) is Tree else [module]
    return [part for part in links if not isinstance(part, Identity)]


def _joined(slow: Maps, fast: Maps) -> Maps:
    """The maps of two paths behind one another."""
    (_, first, *size), (_, second, *other) = slow.size, fast.size
    if size != other:
        raise ValueError(
            f"expected two paths of one length, given {size[0]} and {other[0]} columns to join"
        )
    return slow.resized(slow.size[0], first + second, *size)

"""The two paths of SlowFast, on a clip and frame by frame."""

from typing import Any

import torch
from torch import Tensor, nn

from .blocks import Sequential, require_continual
from .core import Timing, Tree
from .pool import AdaptiveAvgPool3d
from .temporal import Subsample, join

SAMPLINGS = ("stride", "linspace")


class TwoPath(Tree, nn.Module):
    """A slow path over every alpha-th frame beside a fast path over all of them
    (SlowFast, https://arxiv.org/abs/1812.03982, section 3).

    Behind a stage that has a lateral convolution the maps of the fast path, at the slow path's
    rate, are concatenated to those of the slow path. At the end both outputs are concatenated,
    slow first. Columns are joined by index, so what comes early waits in a queue, and columns that
    one side lacks at the end of a clip are left out; nothing of the slow path runs between its
    frames.

    Args:
        slow, fast: the stages of the paths, of the same names and strides; the last one is the
            head's pool.
        lateral: convolutions of temporal stride `alpha`, by the name of the stage before them.
        alpha: frames of the fast path for each one of the slow path.
        sampling: which frames of a clip the slow path sees: "stride" takes every alpha-th, as a
            stream does; "linspace" spreads as many from the first to the last, as published.

    Raises:
        ValueError: for stages that do not match, lateral convolutions of another stride, or an
            unknown sampling.
        TypeError: for modules that are not continual.
    """

    keeps_channels = False

    def __init__(
        self,
        slow: Sequential,
        fast: Sequential,
        lateral: nn.ModuleDict,
        alpha: int,
        sampling: str = "stride",
    ) -> None:
        super().__init__()
        self.slow, self.fast, self.lateral = slow, fast, lateral
        self.sample, self.sampling = Subsample(alpha), sampling
        for name, part in (("slow", slow), ("fast", fast), *lateral.items()):
            require_continual(part, name)
        self._prepare()

    def _prepare(self) -> None:
        names = list(self.slow._modules)
        if names != list(self.fast._modules) or not set(self.lateral) <= set(names[:-1]):
            raise ValueError(
                f"expected slow and fast stages of the same names, and lateral convolutions behind "
                f"all but the last, given {names}, {list(self.fast._modules)}, {list(self.lateral)}"
            )
        if self.sampling not in SAMPLINGS:
            raise ValueError(f"expected sampling in {SAMPLINGS}, given {self.sampling!r}")
        for name, slow, fast in zip(names, self.slow, self.fast, strict=True):
            strides = _timing(slow).stride, _timing(fast).stride
            if len(set(strides)) > 1:
                raise ValueError(
                    f"expected stages of one temporal stride in both paths, given {strides[0]} and "
                    f"{strides[1]} in {name}"
                )
        for name, part in self.lateral.items():
            if part.timing.stride != self.alpha:
                raise ValueError(
                    f"expected lateral convolutions of stride {self.alpha}, given "
                    f"{part.timing.stride} behind {name}"
                )

    def extra_repr(self) -> str:
        return f"sampling={self.sampling!r}"

    @property
    def alpha(self) -> int:
        """Frames of the fast path for each one of the slow path."""
        return self.sample.stride

    @property
    def expected_channels(self) -> int | None:
        return self.fast.expected_channels

    @property
    def _stages(self) -> list[tuple[nn.Module, nn.Module, nn.Module | None]]:
        lateral = [self.lateral._modules.get(name) for name in self.slow._modules]
        return list(zip(self.slow, self.fast, lateral, strict=True))

    @property
    def timing(self) -> Timing:
        slow, fast = self._timings()[-1]
        slow_pool, fast_pool, _ = self._stages[-1]
        fast = fast.then(fast_pool.timing).then(self.sample.timing)
        return Timing.joined((slow.then(slow_pool.timing), fast))

    def _timings(self) -> list[tuple[Timing, Timing]]:
        """Of the slow and of the fast path behind each stage, its join included; not the pool."""
        slow, fast, timings = self.sample.timing, Timing(), []
        for slow_part, fast_part, lateral in self._stages[:-1]:
            slow, fast = slow.then(slow_part.timing), fast.then(fast_part.timing)
            if lateral is not None:
                slow = Timing.joined((slow, fast.then(lateral.timing)))
            timings.append((slow, fast))
        return timings

    def fast_timings(self) -> dict[str, Timing]:
        """Of the fast path behind each stage but the last."""
        fast = (fast for _, fast in self._timings())
        return dict(zip(self.fast._modules, fast, strict=False))

    def forward(self, x: Tensor, pad: bool = True) -> Tensor:
        if not pad:
            return self._forward_unpadded(x)
        fast, slow = x, self._slow_frames(x)
        for slow_part, fast_part, lateral in self._stages:
            slow, fast = slow_part(slow), fast_part(fast)
            if lateral is not None:
                slow = _concatenate(slow, lateral(fast))
        return _concatenate(slow, self.sample(fast))

    def _slow_frames(self, x: Tensor) -> Tensor:
        frames = self.sample(x)
        if self.sampling == "linspace":
            n = frames.shape[2]
            frames = x[:, :, torch.linspace(0, x.shape[2] - 1, n, device=x.device).long()]
        return frames

    def _forward_unpadded(self, x: Tensor) -> Tensor:
        """Every tensor keeps the columns that only real frames reach, aligned with the output.

        Column 0 of the output sees frame 0 first. So other tensors have columns before their column
        0, which their paddings reach in a padded clip; `fast_before` and `slow_before` count them.
        """
        *stages, (slow_pool, fast_pool, _) = self._stages
        slow_end, fast_end = _timing(slow_pool), _timing(fast_pool)
        slow_timing, fast_timing = self._timings()[-1]
        fast_before = max(slow_timing.then(slow_end).padding, fast_timing.then(fast_end).padding)
        slow_before, skip = divmod(fast_before, self.alpha)
        fast, slow = x, self._slow_frames(x[:, :, skip:])
        for slow_part, fast_part, lateral in stages:
            slow, slow_before = _unpadded(slow_part, slow, slow_before)
            fast, fast_before = _unpadded(fast_part, fast, fast_before)
            if lateral is not None:
                side, before = _unpadded(lateral, fast, fast_before)
                least = min(slow_before, before)
                slow = _concatenate(slow[:, :, slow_before - least :], side[:, :, before - least :])
                slow_before = least
        slow = slow_pool(slow[:, :, slow_before - slow_end.padding :], pad=False)
        fast = fast_pool(fast[:, :, fast_before - fast_end.padding :], pad=False)
        return _concatenate(slow, self.sample(fast))

    def _begin(self, start: int, fill: str, emit: str) -> tuple[Any, int]:
        sample, slow = self.sample._begin(start, fill, emit)
        fast, stages = start, []
        for slow_part, fast_part, lateral in self._stages:
            slow_state, slow = slow_part._begin(slow, fill, emit)
            fast_state, fast = fast_part._begin(fast, fill, emit)
            side, queues = (), ()
            if lateral is not None:
                side, late = lateral._begin(fast, fill, emit)
                first = min(slow, late)
                slow, queues = first, (slow - first, late - first)
            stages.append((slow_state, fast_state, side, queues))
        thin, fast = self.sample._begin(fast, fill, emit)
        first = min(slow, fast)
        return (sample, tuple(stages), thin, (slow - first, fast - first)), first

    def _steps(self, x: Tensor | None, state: Any, end: bool) -> tuple[Tensor | None, Any]:
        sample, states, thin, final = state
        slow, sample = self.sample._steps(x, sample, end)
        fast, held = x, []
        for (slow_part, fast_part, lateral), (s, f, side, queues) in zip(
            self._stages, states, strict=True
        ):
            slow, s = _advance(slow_part, slow, s, end)
            fast, f = _advance(fast_part, fast, f, end)
            if lateral is not None:
                late, side = _advance(lateral, fast, side, end)
                columns, queues = join((slow, late), queues)
                slow = None if columns is None else torch.cat(columns, 1)
            held.append((s, f, side, queues))
        fast, thin = _advance(self.sample, fast, thin, end)
        columns, final = join((slow, fast), final)
        y = None if columns is None else torch.cat(columns, 1)
        return y, (sample, tuple(held), thin, final)


def _advance(part: nn.Module, x: Tensor | None, state: Any, end: bool) -> tuple[Tensor | None, Any]:
    return (None, state) if x is None and not end else part._steps(x, state, end)


def _timing(part: nn.Module) -> Timing:
    """Pools over whole clips, which end a ClipNet, have none of their own."""
    return Timing() if isinstance(part, AdaptiveAvgPool3d) else part.timing


def _unpadded(part: nn.Module, x: Tensor, before: int) -> tuple[Tensor, int]:
    """The output for a tensor with `before` columns before its column 0, and how many it has."""
    _, padding, stride, _ = part.timing
    before, skip = divmod(before - padding, stride)
    return part(x[:, :, skip:], pad=False), before


def _concatenate(*columns: Tensor) -> Tensor:
    shortest = min(column.shape[2] for column in columns)
    return torch.cat([column[:, :, :shortest] for column in columns], 1)

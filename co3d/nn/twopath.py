"""The two paths of SlowFast, on a clip and frame by frame."""

from typing import Any

import torch
from torch import Tensor, nn

from .blocks import Node, Sequential, Tree, require_continual
from .temporal import Subsample

SAMPLINGS = ("stride", "linspace")


class TwoPath(Tree):
    """A slow path over every alpha-th frame beside a fast path over all of them
    (SlowFast, https://arxiv.org/abs/1812.03982, section 3).

    Behind a stage that has a lateral convolution its maps are concatenated to those of the slow
    path, and at the end the outputs of both paths, slow first. Nothing of the slow path runs
    between its frames.

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
        for name, *stages in zip(names, self.slow, self.fast, strict=True):
            slow, fast = (stage.timing.stride for stage in stages)
            if slow != fast:
                raise ValueError(
                    "expected stages of one temporal stride in both paths, given "
                    f"{slow} and {fast} in {name}"
                )
        for name, part in self.lateral.items():
            stride = part.timing.stride
            if stride != self.alpha:
                raise ValueError(
                    f"expected lateral convolutions of stride {self.alpha}, given {stride} "
                    f"behind {name}"
                )

    def extra_repr(self) -> str:
        return f"sampling={self.sampling!r}"

    @property
    def alpha(self) -> int:
        """Frames of the fast path for each one of the slow path."""
        return self.sample.stride

    @property
    def nodes(self) -> tuple[Node, ...]:
        nodes: list[Node] = []

        def add(name: str, part: nn.Module | None, *sources: int, **options: Any) -> int:
            nodes.append(Node(name, sources, part, "cat", **options))
            return len(nodes)

        clip = self._spread if self.sampling == "linspace" else None
        slow, fast = add("sample", self.sample, 0, clip=clip), 0
        for name in self.slow._modules:
            slow = add(f"slow.{name}", self.slow._modules[name], slow)
            fast = add(f"fast.{name}", self.fast._modules[name], fast)
            if name in self.lateral:
                side = add(f"lateral.{name}", self.lateral[name], fast)
                slow = add(f"lateral.{name}.join", None, slow, side)
        fast = add("sample", self.sample, fast)
        add("join", None, slow, fast)
        return tuple(nodes)

    def _spread(self, x: Tensor, pad: bool = True) -> Tensor:
        """As many frames as `sample` takes, spread from the first to the last."""
        frames = self.sample(x).shape[2]
        return x[:, :, torch.linspace(0, x.shape[2] - 1, frames, device=x.device).long()]

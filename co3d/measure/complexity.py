"""Multiply-accumulates of a clip and of a step, counted by fvcore on the executed graph."""

from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn

from ..nn import ClipNet, Continual, State
from ..nn.core import iter_tensors, map_tensors

# fvcore counts a multiply-accumulate as one. The paper's FLOPs are these, plus terms for
# normalisation, activation and pooling (results/paper/README.md).
COUNTED = ("conv", "linear", "addmm", "matmul")


def macs_clip(model: ClipNet, clip: Tensor) -> int:
    """MACs of the convolutions and linear layers for one clip (1, C, T, H, W)."""
    return _count(model, (clip,))


def macs_step(model: Continual, frame: Tensor) -> int:
    """MACs of one step on a frame (1, C, H, W): the largest within a period of the strides.

    The state-dependent work is counted as in a stream past its warm-up.
    """
    return max(_macs_of_period(model, frame))


def macs_frame(model: Continual, frame: Tensor) -> float:
    """Mean MACs per frame over a period of the strides."""
    counts = _macs_of_period(model, frame)
    return sum(counts) / len(counts)


def _macs_of_period(model: Continual, frame: Tensor) -> list[int]:
    # With emit="always" every layer works from the first frame on, as in a stream long under way.
    _, state = model.step(frame, model.begin(emit="always"))
    counts = []
    for _ in range(model.timing.stride):
        counts.append(_count(_Step(model, state), (frame, *iter_tensors(state))))
        _, state = model.step(frame, state)
    return counts


class _Step(nn.Module):
    """A step as a function of tensors alone, which is what a trace can take."""

    def __init__(self, model: Continual, state: State) -> None:
        super().__init__()
        self.model, self.form = model, state

    def forward(self, frame: Tensor, *held: Tensor) -> tuple[Tensor, ...]:
        tensors = iter(held)
        y, state = self.model.step(frame, map_tensors(lambda _: next(tensors), self.form))
        return (*([] if y is None else [y]), *iter_tensors(state))


@torch.no_grad()
def _count(module: nn.Module, inputs: tuple[Any, ...]) -> int:
    analysis = FlopCountAnalysis(module, inputs)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analysis.tracer_warnings("none")
    counted = analysis.by_operator()
    return int(sum(counted[name] for name in COUNTED))

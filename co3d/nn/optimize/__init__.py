"""Networks for inference alone, as fast as they can be on the machine at hand."""

import torch
from torch import Tensor

from ..net import ClipNet, StreamNet
from .captured import CapturedStream
from .clip import OptimizedClip
from .net import OptimizedStream


def optimize(
    model: ClipNet, example: Tensor, dtype: torch.dtype = torch.float32, graph: bool = False
) -> OptimizedStream | OptimizedClip | CapturedStream:
    """The fast twin of a net; see `OptimizedStream`, `OptimizedClip` and `CapturedStream`.

    Args:
        model: in evaluation mode.
        example: of the size to come: a frame (B, C, H, W) for a continual net, a clip
            (B, C, T, H, W) for a regular one.
        dtype: of weights, maps and state: float32, bfloat16, float16 (on a GPU alone), or float64
            for checks.
        graph: whether the steps of a continual net become CUDA graphs, on a CUDA device; its
            `step` is all that such a twin has.

    Raises:
        TypeError, ValueError: as those classes, or for a graph of a net that has no step.
    """
    if graph:
        if not isinstance(model, StreamNet):
            raise TypeError(f"expected a continual net to capture, given {type(model).__name__}")
        return CapturedStream(model, example, dtype)
    kind = OptimizedStream if isinstance(model, StreamNet) else OptimizedClip
    return kind(model, example, dtype)

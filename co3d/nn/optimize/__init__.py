"""Networks for inference alone, as fast as they can be on the machine at hand."""

import torch
from torch import Tensor

from ..net import ClipNet, StreamNet
from .clip import OptimizedClip
from .net import OptimizedStream


def optimize(
    model: ClipNet, example: Tensor, dtype: torch.dtype = torch.float32
) -> OptimizedStream | OptimizedClip:
    """The fast twin of a net; see `OptimizedStream` and `OptimizedClip`.

    Args:
        model: in evaluation mode.
        example: of the size to come: a frame (B, C, H, W) for a continual net, a clip
            (B, C, T, H, W) for a regular one.
        dtype: of weights, maps and state: float32, bfloat16, or float64 for checks.

    Raises:
        TypeError, ValueError: as `OptimizedStream` and `OptimizedClip`.
    """
    kind = OptimizedStream if isinstance(model, StreamNet) else OptimizedClip
    return kind(model, example, dtype)

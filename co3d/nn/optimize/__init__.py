"""Networks for inference alone, as fast as they can be on the machine at hand."""

import torch
from torch import Tensor

from ..net import StreamNet
from .net import OptimizedStream


def optimize(
    model: StreamNet, example: Tensor, dtype: torch.dtype = torch.float32
) -> OptimizedStream:
    """The fast twin of a continual net; see `OptimizedStream`.

    Args:
        model: in evaluation mode.
        example: a frame (B, C, H, W) of the size to come.
        dtype: of weights, maps and state: float32, bfloat16, or float64 for checks.

    Raises:
        TypeError, ValueError: as `OptimizedStream`.
    """
    return OptimizedStream(model, example, dtype)

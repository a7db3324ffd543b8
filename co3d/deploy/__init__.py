"""Networks for inference: the explicit step, and the engines and files that run it."""

from .optimize import OptimizedClip, OptimizedStream, optimize
from .step import Explicit

__all__ = ["Explicit", "OptimizedClip", "OptimizedStream", "optimize"]

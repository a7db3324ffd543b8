"""Networks for inference: the explicit step, and the engines and files that run it."""

from .export import FORMATS, export
from .optimize import OptimizedClip, OptimizedStream, optimize
from .runner import TOLERANCES, Runner, difference
from .step import Explicit

__all__ = [
    "FORMATS",
    "TOLERANCES",
    "Explicit",
    "OptimizedClip",
    "OptimizedStream",
    "Runner",
    "difference",
    "export",
    "optimize",
]

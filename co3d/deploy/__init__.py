"""Networks for inference: the explicit step, and the engines and files that run it."""

from .export import FORMATS, export
from .optimize import OptimizedClip, OptimizedStream, optimize
from .runner import Runner
from .step import Explicit

__all__ = [
    "FORMATS",
    "Explicit",
    "OptimizedClip",
    "OptimizedStream",
    "Runner",
    "export",
    "optimize",
]

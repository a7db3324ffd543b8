"""Networks as files of ONNX or OpenVINO, and a runner of such files."""

from .checking import TOLERANCES, difference
from .files import FORMATS, PRECISIONS, STATES, export
from .record import Record
from .runner import Runner

__all__ = [
    "FORMATS",
    "PRECISIONS",
    "STATES",
    "TOLERANCES",
    "Record",
    "Runner",
    "difference",
    "export",
]

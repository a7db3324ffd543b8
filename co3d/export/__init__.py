"""Networks as files of ONNX or OpenVINO, and a runner of such files."""

from .files import FORMATS, PRECISIONS, STATES, export
from .record import Record
from .runner import Runner

__all__ = ["FORMATS", "PRECISIONS", "STATES", "Record", "Runner", "export"]

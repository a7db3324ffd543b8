"""Writes a net as files of ONNX or OpenVINO."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ..data.transforms import Transform
from ..nn import ClipNet, StreamNet
from . import onnx_files, openvino_files
from .graphs import clip_graphs, step_graphs
from .lowering import Graph
from .record import Record

FORMATS = {"onnx": ".onnx", "openvino": ".xml"}
STATES = ("explicit", "internal")
PRECISIONS = ("float32", "bfloat16")


@torch.no_grad()
def export(
    model: ClipNet,
    path: str | Path,
    example: Tensor,
    *,
    format: str | None = None,
    state: str = "explicit",
    precision: str = "float32",
    transform: Transform | None = None,
    labels: Sequence[str] = (),
) -> list[Path]:
    """Writes a net for inference on a CPU by another runtime; `Runner` opens what it wrote.

    A continual net with temporal strides becomes one graph per phase, which share a file of
    weights (or give one with `dense=True`). Normalisation is folded into the weights, and the shape
    of the input is fixed.

    Args:
        model: a net in evaluation mode, on the CPU in float32.
        path: the file to write, with the suffix of the format; others go beside it, by its name.
        example: a frame (B, C, H, W) for a continual net, a clip (B, C, T, H, W) for another one.
        format: "onnx" or "openvino" (default: as the suffix, .onnx or .xml, says).
        state: of a continual net: "explicit", tensors that go in and out, or "internal", kept by
            the runtime (OpenVINO alone, and nets of one phase alone).
        precision: of the arithmetic: "float32", or "bfloat16" (OpenVINO alone).
        transform: of the input (default: that of the model's spec).
        labels: names of the classes (default: those of the weights).

    Returns:
        The files, `path` first.

    Raises:
        ValueError, TypeError: for options that do not fit the format, a net in training mode, or
            an example that does not fit the net.
        OSError: if a file cannot be written.
    """
    path = Path(path)
    writer = _writer(path, format, state, precision)
    weight = next(model.parameters())
    if weight.dtype != torch.float32 or weight.device.type != "cpu":
        raise ValueError(
            f"expected a net in float32 on the CPU, given {weight.dtype} on {weight.device}"
        )
    if isinstance(model, StreamNet):
        graphs, facts = step_graphs(model, example, writer.form(precision), state)
    elif state == STATES[0]:
        graphs, facts = clip_graphs(model, example)
    else:
        raise ValueError(f"expected state 'explicit' of a clip net, which has none, given {state}")
    facts |= _origin(model, transform, labels) | {"state": state, "precision": precision}
    record = Record(**facts, shape=tuple(example.shape), files=(), digest="")
    return _written(path, record, graphs, writer)


def _writer(path: Path, format: str | None, state: str, precision: str):
    """The module that writes the format, for options that it can do."""
    if format is None:
        format = next((name for name, end in FORMATS.items() if path.suffix == end), None)
    if format not in FORMATS or path.suffix != FORMATS[format]:
        raise ValueError(
            f"expected a file .onnx of format onnx or .xml of format openvino, given {path.name} "
            f"and {format}"
        )
    if state not in STATES or precision not in PRECISIONS:
        raise ValueError(
            f"expected state in {STATES} and precision in {PRECISIONS}, given {state!r} and "
            f"{precision!r}"
        )
    if format == "onnx" and state == "internal":
        raise ValueError("expected state 'explicit' for onnx, which has no other, given 'internal'")
    if format == "onnx" and precision == "bfloat16":
        raise ValueError(
            "expected precision 'float32' for onnx, as the CPU provider of ONNX Runtime has no "
            "convolution in bfloat16, given 'bfloat16': take format openvino"
        )
    if path.is_dir() or not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: name a file in an existing folder")
    return onnx_files if format == "onnx" else openvino_files


def _origin(model: nn.Module, transform: Transform | None, labels: Sequence[str]) -> dict:
    """What the record says of the net itself."""
    from .. import __version__

    spec, weights = getattr(model, "spec", None), getattr(model, "weights", None)
    of_weights = ("source", "sha256", "training_data", "licence")
    classes = model.classifier.out_features
    labels = tuple(labels or getattr(weights, "labels", ()))
    if labels and len(labels) != classes:
        raise ValueError(f"expected {classes} labels, one of each class, given {len(labels)}")
    if transform is None and spec is not None:
        order = weights.channel_order if weights else spec.channel_order
        transform = Transform(spec.image_size, spec.mean, spec.std, order)
    told = ("image_size", "mean", "std", "channel_order")
    pipeline = {name: getattr(transform, name) for name in told} if transform else {}
    return {
        "version": __version__,
        "model": spec.name if spec else type(model).__name__,
        "classes": classes,
        "labels": labels,
        "scores": weights.scores if weights else "softmax",
        "transform": pipeline | ({"fps": spec.native_fps} if spec else {}),
        "weights": {name: getattr(weights, name) for name in of_weights} if weights else {},
    }


def _written(path: Path, record: Record, graphs: list[Graph], writer) -> list[Path]:
    """All files under a temporary folder first, then in their places, the named one last."""
    names = [path.name, *(f"{path.stem}.phase{n}{path.suffix}" for n in range(1, len(graphs)))]
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        names += writer.write(graphs, replace(record, files=tuple(names)), Path(folder))
        for name in reversed(names):
            (Path(folder) / name).replace(path.with_name(name))
    return [path.with_name(name) for name in names]

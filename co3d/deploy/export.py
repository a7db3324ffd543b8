"""Writes a net as files of ONNX or OpenVINO, through the exporter of torch."""

import io
import json
import logging
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..data.transforms import Transform
from ..nn.fold import fold
from ..nn.net import ClipNet, StreamNet
from .record import DIGEST, KEY, PRECISIONS, Record
from .runtimes import digest_of, prefixes
from .step import Explicit

TIMING = ("receptive_field", "padding", "warmup", "stride", "window")
FORMATS = {"onnx": ".onnx", "openvino": ".xml"}


@torch.no_grad()
def export(
    model: ClipNet,
    path: str | Path,
    example: Tensor,
    *,
    precision: str = "float32",
    transform: Transform | None = None,
    labels: Sequence[str] = (),
) -> list[Path]:
    """Writes a net for inference on a CPU by another runtime; `Runner` opens what it wrote.

    A continual net becomes its step: the phases of its temporal strides are parts of one graph and
    share their weights. `Record` has the names of inputs and outputs; `onnx.utils.extract_model`
    cuts out a phase. Normalisation is folded into the weights, and the shape of the input is fixed.

    Args:
        model: a net in evaluation mode, on the CPU in float32.
        path: the file to write, .onnx, or .xml of OpenVINO, which has its weights in .bin beside.
        example: a frame (B, C, H, W) for a continual net, a clip (B, C, T, H, W) for another one.
        precision: of the arithmetic: "float32", or "bfloat16" (OpenVINO alone).
        transform: of the input (default: that of the model's spec).
        labels: names of the classes (default: those of the weights).

    Returns:
        The files, `path` first.

    Raises:
        ValueError: for options that do not fit the format, a net in training mode, or an example
            that does not fit the net.
        TypeError: for a layer without a form on frames, or an example of another dtype.
        OSError: if a file cannot be written.
    """
    path = Path(path)
    if path.suffix not in FORMATS.values():
        raise ValueError(f"expected a file .onnx, or .xml of OpenVINO, given {path.name}")
    if precision not in PRECISIONS or (path.suffix == ".onnx" and precision == "bfloat16"):
        raise ValueError(f"expected precision float32, or bfloat16 in OpenVINO (ONNX Runtime has "
                         f"no convolution in it), given {precision!r}")  # fmt: skip
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: there is no folder {path.parent}")
    weight = next(model.parameters())
    if weight.dtype != torch.float32 or weight.device.type != "cpu":
        kind = f"{weight.dtype} on {weight.device}"
        raise ValueError(f"expected a net in float32 on the CPU, given {kind}")
    facts = _facts(model, transform, labels)
    if isinstance(model, StreamNet):
        explicit = Explicit(model, example, channels_last=path.suffix == ".xml")
        steps = _Steps(explicit, PRECISIONS[precision])
        graph = _graph(steps, steps.inputs, steps.outputs)
        facts |= {"kind": "step", "queues": tuple(explicit.queues.values())}
        facts |= {name: getattr(model, name) for name in TIMING}
    else:
        folded = fold(model)
        folded(example)  # refuses what does not fit, in its own words
        graph = _graph(folded, {"clip": example}, ["logits"])
        facts |= {"window": example.shape[2], "receptive_field": example.shape[2]}
    record = Record(**facts, precision=precision, shape=tuple(example.shape))
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        _write(graph, record, Path(folder) / path.name)
        files = sorted(Path(folder).iterdir())  # the named one last
        written = [file.replace(path.with_name(file.name)) for file in files]
    return written[::-1]


def _facts(model: ClipNet, transform: Transform | None, labels: Sequence[str]) -> dict[str, Any]:
    """What a record says of a net itself."""
    from .. import __version__

    spec, weights = getattr(model, "spec", None), getattr(model, "weights", None)
    labels = tuple(labels or getattr(weights, "labels", ()))
    classes = model.classifier.out_features
    if labels and len(labels) != classes:
        raise ValueError(f"expected {classes} labels, one of each class, given {len(labels)}")
    if transform is None and spec is not None:
        order = weights.channel_order if weights else spec.channel_order
        transform = Transform(spec.image_size, spec.mean, spec.std, order)
    pipeline = {**asdict(transform), "fps": spec.native_fps if spec else None} if transform else {}
    origin = ("source", "sha256", "training_data", "licence")
    return {
        "version": __version__,
        "model": spec.name if spec else type(model).__name__,
        "classes": classes,
        "labels": labels,
        "scores": weights.scores if weights else "softmax",
        "transform": pipeline,
        "weights": {name: getattr(weights, name) for name in origin} if weights else {},
    }


class _Steps(nn.Module):
    """The steps of all phases as one function, which has their weights once."""

    def __init__(self, explicit: Explicit, dtype: torch.dtype) -> None:
        super().__init__()
        self.phases, self.dtype = nn.ModuleList(explicit.phases), dtype
        self.inputs, self.outputs = {}, []  # examples by name, and names
        for phase, prefix in zip(explicit.phases, prefixes(len(explicit.phases)), strict=True):
            self.inputs[f"{prefix}frame"] = torch.zeros(explicit.frame_shape)
            self.inputs[f"{prefix}counter"] = torch.tensor(0)
            for name, depth in phase.reads:
                x = torch.zeros(explicit.queues[name].shape, dtype=dtype)
                self.inputs[f"{prefix}state.{name}@{depth}"] = x
            self.outputs += [f"{prefix}logits"] if phase.emits else []
            self.outputs += [f"{prefix}state.{name}" for name in phase.writes]

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        given, results = iter(inputs), []
        for phase in self.phases:
            frame, counter = next(given), next(given)
            outputs = list(phase(frame, counter, *(next(given).float() for _ in phase.reads)))
            results += [outputs.pop(0)] if phase.emits else []
            results += [x.to(self.dtype) for x in outputs]
        return results


def _graph(module: nn.Module, inputs: dict[str, Tensor], outputs: list[str]) -> Any:
    """A module as a model of ONNX, with no word of where it was made."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # else it misses torchvision
    names = {"input_names": list(inputs), "output_names": outputs}
    with warnings.catch_warnings():  # torch 2.13 warns of its own code
        warnings.simplefilter("ignore")
        model = torch.onnx.export(
            module.eval(), tuple(inputs.values()), dynamo=True, verbose=False, **names
        ).model_proto
    graph = model.graph
    graph.ClearField("value_info")
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
    return model


def _write(model: Any, record: Record, path: Path) -> None:
    """Writes a model of ONNX with its record, as the suffix says."""
    import onnx

    onnx.helper.set_model_props(model, {KEY: json.dumps(asdict(record))})
    if path.suffix == ".onnx":
        path.write_bytes(model.SerializeToString())
        return
    import openvino

    graph = openvino.Core().read_model(io.BytesIO(model.SerializeToString()))
    _keep_apart(graph)
    openvino.save_model(graph, path, compress_to_fp16=False)
    graph.set_rt_info(digest_of(path.with_suffix(".bin")), DIGEST)
    openvino.save_model(graph, path, compress_to_fp16=False)  # now with the digest


def _keep_apart(graph: Any) -> None:
    """Puts min(x, |x|), which is x, behind a sum with a convolution on its way to an output.

    OpenVINO adds to the result of a convolution in place, and what was made in place it copies
    twice to an output; behind this it does neither. Without it a step takes up to 1.4 times as
    long.
    """
    from openvino import opset13

    passed = {"Transpose": 0, "Relu": 0, "Select": 1}  # and which of their inputs is followed
    for result in graph.get_results():
        node = result.input_value(0).get_node()
        while node.get_type_name() in passed:
            node = node.input_value(passed[node.get_type_name()]).get_node()
        terms = [value.get_node().get_type_name() for value in node.input_values()]
        if node.get_type_name() == "Add" and any("Convolution" in term for term in terms):
            targets = node.output(0).get_target_inputs()
            same = opset13.minimum(node, opset13.abs(node))
            for target in targets:
                target.replace_source_output(same.output(0))

"""Writes a net as files of ONNX or OpenVINO, through the exporter of torch."""

import io
import logging
import tempfile
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..data.transforms import Transform
from ..nn.fold import fold
from ..nn.net import ClipNet, StreamNet
from .record import KEY, PRECISIONS, Ports, Record, companions, digest_of
from .step import Explicit, Phase

TIMING = ("receptive_field", "padding", "warmup", "stride", "window")
FORMATS = {"onnx": ".onnx", "openvino": ".xml"}
ALIGNMENT = 4096  # bytes, so that weights can be mapped to memory
SMALL = 256  # bytes of a tensor that stays in its graph: shapes and axes


@torch.no_grad()
def export(
    model: ClipNet,
    path: str | Path,
    example: Tensor,
    *,
    format: str | None = None,
    precision: str = "float32",
    transform: Transform | None = None,
    labels: Sequence[str] = (),
) -> list[Path]:
    """Writes a net for inference on a CPU by another runtime; `Runner` opens what it wrote.

    A continual net becomes its step, one graph for each phase of its temporal strides, which share
    a file of weights (`dense=True` makes a net of one phase). In ONNX each phase has a file. In
    OpenVINO all are parts of one model, whose inputs and outputs have names such as phase0.frame.
    Normalisation is folded into the weights, and the shape of the input is fixed.

    Args:
        model: a net in evaluation mode, on the CPU in float32.
        path: the file to write, with the suffix of the format; others go beside it, by its name.
        example: a frame (B, C, H, W) for a continual net, a clip (B, C, T, H, W) for another one.
        format: "onnx" or "openvino" (default: as the suffix, .onnx or .xml, says).
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
    format = format or {end: name for name, end in FORMATS.items()}.get(path.suffix)
    if format not in FORMATS or path.suffix != FORMATS[format]:
        raise ValueError(
            f"expected a file .onnx of format onnx or .xml of format openvino, given {path.name} "
            f"and {format}"
        )
    if precision not in PRECISIONS or (format == "onnx" and precision == "bfloat16"):
        raise ValueError(
            f"expected precision 'float32', or 'bfloat16' of openvino (the CPU provider of ONNX "
            f"Runtime has no convolution in bfloat16), given {precision!r}"
        )
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: there is no folder {path.parent}")
    weight = next(model.parameters())
    if weight.dtype != torch.float32 or weight.device.type != "cpu":
        raise ValueError(
            f"expected a net in float32 on the CPU, given {weight.dtype} on {weight.device}"
        )
    facts = _facts(model, transform, labels)
    if isinstance(model, StreamNet):
        explicit = Explicit(model, example, channels_last=format == "openvino")
        graphs = [_graph_of_step(phase, explicit, example) for phase in explicit.phases]
        facts |= {"kind": "step", "queues": tuple(explicit.queues.values())}
        facts |= {name: getattr(model, name) for name in TIMING}
    else:
        folded = fold(model)
        folded(example)  # refuses what does not fit, in its own words
        graphs = [_graph(folded, {"clip": example}, ["logits"])]
        facts |= {"window": example.shape[2], "receptive_field": example.shape[2]}
    phases = tuple(Ports(_names(graph.graph.input), _names(graph.graph.output)) for graph in graphs)
    record = Record(**facts, precision=precision, shape=tuple(example.shape), phases=phases)
    write = _write_onnx if format == "onnx" else _write_openvino
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        files = write(graphs, record, Path(folder) / path.name)
        for file in reversed(files):  # the named one last
            file.replace(path.with_name(file.name))
    return [path.with_name(file.name) for file in files]


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


def _graph_of_step(phase: Phase, explicit: Explicit, frame: Tensor) -> Any:
    inputs = {"frame": frame, "counter": torch.tensor(0)}
    for name, depth in phase.reads:
        inputs[f"state.{name}@{depth}"] = torch.zeros(explicit.queues[name].shape)
    logits = ["logits"] if phase.emits else []
    return _graph(phase, inputs, logits + [f"state.{name}" for name in phase.writes])


def _graph(module: nn.Module, inputs: dict[str, Tensor], outputs: list[str]) -> Any:
    """A module as a model of ONNX, with no word of where it was made."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # else it misses torchvision
    with warnings.catch_warnings():  # torch 2.13 warns of its own code
        warnings.simplefilter("ignore")
        model = torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=outputs,
            dynamo=True,
            verbose=False,
        ).model_proto
    graph = model.graph
    used = {name for node in graph.node for name in node.input}
    for port in [port for port in graph.input if port.name not in used]:
        graph.input.remove(port)
    graph.ClearField("value_info")
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
    return model


def _names(ports: Iterable[Any]) -> tuple[str, ...]:
    return tuple(port.name for port in ports)


def _write_onnx(models: list[Any], record: Record, path: Path) -> list[Path]:
    """A file for each phase and, if there are several, one for the weights of all."""
    import onnx

    others = companions(path, len(models))
    if others:
        _move_weights(models, others[-1])
    for model, file in zip(models[1:], others, strict=False):
        file.write_bytes(model.SerializeToString())
    record = replace(record, digest=digest_of(others))
    onnx.helper.set_model_props(models[0], {KEY: record.to_json()})
    path.write_bytes(models[0].SerializeToString())
    return [path, *others]


def _move_weights(models: list[Any], path: Path) -> None:
    """Moves the large tensors of all graphs into a file, each once."""
    from onnx.external_data_helper import set_external_data

    offsets: dict[bytes, int] = {}
    with path.open("wb") as file:
        for tensor in [tensor for model in models for tensor in model.graph.initializer]:
            data = tensor.raw_data
            if len(data) > SMALL and data not in offsets:
                file.write(bytes(-file.tell() % ALIGNMENT))
                offsets[data] = file.tell()
                file.write(data)
            if len(data) > SMALL:
                set_external_data(tensor, path.name, offsets[data], len(data))
                tensor.ClearField("raw_data")


def _write_openvino(models: list[Any], record: Record, path: Path) -> list[Path]:
    """A file for the graphs of all phases, and one for their weights, each once."""
    import openvino

    parameters, results = [], []
    for phase, model in enumerate(models):
        graph = openvino.Core().read_model(io.BytesIO(model.SerializeToString()))
        _keep_apart(graph)
        if record.precision == "bfloat16":
            _use_bfloat16(graph, record.phases[phase])
        if len(models) > 1:
            for port in (*graph.inputs, *graph.outputs):
                port.get_tensor().set_names({f"phase{phase}.{port.any_name}"})
        parameters += graph.get_parameters()
        results += graph.get_results()
    whole = openvino.Model(results, parameters, record.model)
    openvino.save_model(whole, path, compress_to_fp16=False)
    files = [path, *companions(path, len(models))]
    record = replace(record, digest=digest_of(files[1:]))
    whole.set_rt_info(record.to_json(), KEY)
    openvino.save_model(whole, path, compress_to_fp16=False)
    return files


def _keep_apart(graph: Any) -> None:
    """Puts min(x, |x|), which is x, behind a sum with a convolution on its way to an output.

    OpenVINO adds to the result of a convolution in place, and what was made in place it copies
    twice to an output; behind this it does neither. Without it a step takes up to 1.4 times as
    long.
    """
    from openvino import opset13

    passed = {"Transpose": 0, "Relu": 0, "Select": 1}  # and which of their inputs is followed
    sums = {}
    for result in graph.get_results():
        node = result.input_value(0).get_node()
        while node.get_type_name() in passed:
            node = node.input_value(passed[node.get_type_name()]).get_node()
        terms = [value.get_node().get_type_name() for value in node.input_values()]
        if node.get_type_name() == "Add" and any("Convolution" in term for term in terms):
            sums[node.get_friendly_name()] = node
    for node in sums.values():
        targets = node.output(0).get_target_inputs()
        same = opset13.minimum(node, opset13.abs(node))
        for target in targets:
            target.replace_source_output(same.output(0))


def _use_bfloat16(graph: Any, ports: Ports) -> None:
    """State goes in and out as the runtime computes it, and has half the size."""
    import openvino

    processor = openvino.preprocess.PrePostProcessor(graph)
    for names, port in ((ports.inputs, processor.input), (ports.outputs, processor.output)):
        for n, name in enumerate(names):
            if name.startswith("state."):
                port(n).tensor().set_element_type(openvino.Type.bf16)
    processor.build()

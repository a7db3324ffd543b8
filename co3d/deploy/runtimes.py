"""ONNX Runtime and OpenVINO behind one face: the phases of an exported file, ready to run."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .record import DIGEST, KEY, Record


class Graph(NamedTuple):
    """The graph of a phase in a runtime."""

    ports: list[str]  # names of its inputs and then of its outputs, see `Record`
    bind: Callable[[list[Tensor]], Callable[[], Any]]  # gives a call that runs it on tensors


IDLE = Graph([], lambda tensors: lambda: None)


def read(path: Path, runtime: str, threads: int) -> tuple[Record, list[Graph]]:
    """The record of an export, and its phases; the libraries raise errors of many kinds."""
    if path.suffix == ".onnx":
        import onnx

        model = onnx.load_model(path, load_external_data=False)
        # No file lies in this "folder", so that weights from elsewhere are refused.
        onnx.external_data_helper.load_external_data_for_model(model, str(path))
        text = {entry.key: entry.value for entry in model.metadata_props}.get(KEY, "none")
    if runtime == "openvino":
        import openvino

        model = openvino.Core().read_model(path)
        text = model.get_rt_info(["framework", KEY]).astype(str)
    if path.suffix == ".xml":
        digest = model.get_rt_info(DIGEST).astype(str)
        if digest_of(path.with_suffix(".bin")) != digest:
            raise ValueError("its file of weights is damaged or belongs to another export")
    record = Record.from_json(text)
    start = _in_openvino if runtime == "openvino" else _in_onnxruntime
    phases = [start(model, prefix, record, threads) for prefix in prefixes(record.stride)]
    if not any("logits" in phase.ports for phase in phases):
        raise ValueError("it predicts nothing")
    return record, phases


def _in_onnxruntime(model: Any, prefix: str, record: Record, threads: int) -> Graph:
    """A phase as a graph of its own, as this runtime runs the whole of a graph."""
    import onnx.utils
    import onnxruntime as ort

    inputs = [port.name for port in model.graph.input if port.name.startswith(prefix)]
    outputs = [port.name for port in model.graph.output if port.name.startswith(prefix)]
    if not outputs:
        return IDLE
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4
    graph = onnx.utils.Extractor(model).extract_model(inputs, outputs).SerializeToString()
    session = ort.InferenceSession(graph, options, ["CPUExecutionProvider"])

    def bind(tensors: list[Tensor]) -> Callable[[], Any]:
        binding = session.io_binding()
        for name, x in zip(inputs + outputs, tensors, strict=True):
            value = ort.OrtValue.ortvalue_from_numpy(x.numpy())
            if name in inputs:
                binding.bind_ortvalue_input(name, value)
            else:
                binding.bind_ortvalue_output(name, value)
        return lambda kept=tensors: session.run_with_iobinding(binding)

    return Graph([name.removeprefix(prefix) for name in inputs + outputs], bind)


def _in_openvino(model: Any, prefix: str, record: Record, threads: int) -> Graph:
    """A phase as a model of its own, which shares the weights of all."""
    import openvino as ov

    inputs = [port for port in model.inputs if port.any_name.startswith(prefix)]
    outputs = [port for port in model.outputs if port.any_name.startswith(prefix)]
    if not outputs:
        return IDLE
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "bf16" if record.precision == "bfloat16" else "f32",
    }
    nodes = [port.get_node() for port in outputs], [port.get_node() for port in inputs]
    graph = ov.Core().compile_model(ov.Model(*nodes, prefix), "CPU", options)

    def bind(tensors: list[Tensor]) -> Callable[[], Any]:
        request = graph.create_infer_request()
        for port, x in zip((*graph.inputs, *graph.outputs), tensors, strict=True):
            if x.dtype == torch.bfloat16:  # which numpy lacks
                data = x.view(torch.uint8).numpy()
                request.set_tensor(port, ov.Tensor(data, ov.Shape(x.shape), ov.Type.bf16))
            else:
                request.set_tensor(port, ov.Tensor(x.numpy(), shared_memory=True))
        return lambda kept=tensors: (request.start_async(), request.wait())

    return Graph([port.any_name.removeprefix(prefix) for port in inputs + outputs], bind)


def prefixes(phases: int) -> list[str]:
    """What the names of the inputs and outputs of each phase begin with."""
    return [f"phase{n}." for n in range(phases)] if phases > 1 else [""]


def digest_of(path: Path) -> str:
    """The sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()

"""ONNX Runtime and OpenVINO behind one face: graphs, and calls that are bound to tensors."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .record import Record


class OnnxRuntime:
    """The graphs of an export in ONNX Runtime; a phase without outputs has none."""

    name = "onnxruntime"

    def __init__(self, graphs: list[Path], record: Record, threads: int) -> None:
        self.ort, self.phases = installed(self.name), record.phases
        options = self.ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 4
        providers = ["CPUExecutionProvider"]
        self.sessions = [
            self.ort.InferenceSession(graph, options, providers) if ports.outputs else None
            for graph, ports in zip(graphs, record.phases, strict=True)
        ]

    def bind(self, phase: int, inputs: list[Tensor], outputs: list[Tensor]) -> Callable[[], Any]:
        """What computes the outputs of a phase from its inputs, all in their own memory."""
        session, value = self.sessions[phase], self.ort.OrtValue.ortvalue_from_numpy
        binding = session.io_binding()
        for name, x in zip(self.phases[phase].inputs, inputs, strict=True):
            binding.bind_ortvalue_input(name, value(x.numpy()))
        for name, x in zip(self.phases[phase].outputs, outputs, strict=True):
            binding.bind_ortvalue_output(name, value(x.numpy()))
        return lambda kept=(inputs, outputs): session.run_with_iobinding(binding)


class OpenVino:
    """The graphs of an export in OpenVINO; a phase without outputs has none."""

    name = "openvino"

    def __init__(self, graphs: list[Path], record: Record, threads: int) -> None:
        self.ov = installed(self.name)
        core = self.ov.Core()
        models = [core.read_model(graph) for graph in graphs]
        if len(models) < len(record.phases):  # all phases are parts of one model
            parameters, results = iter(models[0].get_parameters()), iter(models[0].get_results())
            models = []
            for ports in record.phases:
                inputs = [next(parameters) for _ in ports.inputs]
                outputs = [next(results) for _ in ports.outputs]
                models.append(self.ov.Model(outputs, inputs, record.model))
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "bf16" if record.precision == "bfloat16" else "f32",
        }
        self.models = [
            core.compile_model(model, "CPU", options) if model.outputs else None for model in models
        ]

    def bind(self, phase: int, inputs: list[Tensor], outputs: list[Tensor]) -> Callable[[], Any]:
        """What computes the outputs of a phase from its inputs, all in their own memory."""
        model = self.models[phase]
        request = model.create_infer_request()
        for ports, tensors in ((model.inputs, inputs), (model.outputs, outputs)):
            for port, x in zip(ports, tensors, strict=True):
                request.set_tensor(port, self._shared(x))
        return lambda kept=(inputs, outputs): (request.start_async(), request.wait())

    def _shared(self, x: Tensor) -> Any:
        """Over the same memory; numpy has no bfloat16."""
        if x.dtype != torch.bfloat16:
            return self.ov.Tensor(x.numpy(), shared_memory=True)
        data = x.view(torch.uint8).numpy()
        return self.ov.Tensor(data, self.ov.Shape(x.shape), self.ov.Type.bf16)


RUNTIMES = {"onnxruntime": OnnxRuntime, "openvino": OpenVino}


def installed(name: str) -> Any:
    """A package, which is an optional one."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ValueError(f"expected {name} to be installed: pip install 'co3d[deploy]'") from None

"""ONNX Runtime and OpenVINO behind one face: a graph bound to tensors is a function to call."""

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import torch
from torch import Tensor

Bound = Callable[[], Any]
Kind = tuple[str, tuple[int, ...]]  # precision and shape of a tensor
RUNTIMES = ("onnxruntime", "openvino")


class Runtime(Protocol):
    """The graphs of a file, compiled."""

    def tensors(self, phase: int) -> tuple[dict[str, Kind], dict[str, Kind]]:
        """The inputs and the outputs of a graph, by name."""

    def bind(self, phase: int, inputs: Mapping[str, Tensor], outputs: Mapping) -> Bound:
        """A function that computes the outputs from the inputs, in their own memory."""


class OnnxRuntime:
    """The graphs in sessions of ONNX Runtime on the CPU."""

    def __init__(self, graphs: list[Path], weights: Path | None, threads: int, _: str) -> None:
        self.ort = _installed("onnxruntime")
        options = self.ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        self.sessions = [
            self.ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
            for graph in graphs
        ]

    def tensors(self, phase: int) -> tuple[dict[str, Kind], dict[str, Kind]]:
        """As of `Runtime`."""
        session = self.sessions[phase]
        types = {"tensor(float)": "float32", "tensor(int64)": "int64"}
        return tuple(
            {one.name: (types.get(one.type, one.type), tuple(one.shape)) for one in side}
            for side in (session.get_inputs(), session.get_outputs())
        )

    def bind(self, phase: int, inputs: Mapping[str, Tensor], outputs: Mapping) -> Bound:
        """As of `Runtime`."""
        session = self.sessions[phase]
        binding = session.io_binding()
        values = []  # over the memory of the tensors, which they do not keep alive
        for tensors, put in (
            (inputs, binding.bind_ortvalue_input),
            (outputs, binding.bind_ortvalue_output),
        ):
            for name, tensor in tensors.items():
                values.append((tensor, self.ort.OrtValue.ortvalue_from_numpy(tensor.numpy())))
                put(name, values[-1][1])
        run = session.run_with_iobinding

        def bound(kept=values) -> None:
            run(binding)

        return bound


class OpenVino:
    """The graphs as models that OpenVINO compiled for the CPU."""

    def __init__(
        self, graphs: list[Path], weights: Path | None, threads: int, precision: str
    ) -> None:
        self.ov = _installed("openvino")
        core = self.ov.Core()
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": {"bfloat16": "bf16"}.get(precision, "f32"),
        }
        self.graphs = [
            core.read_model(g, weights) if weights else core.read_model(g) for g in graphs
        ]
        self.models = [core.compile_model(graph, "CPU", options) for graph in self.graphs]

    def tensors(self, phase: int) -> tuple[dict[str, Kind], dict[str, Kind]]:
        """As of `Runtime`."""
        graph = self.graphs[phase]  # compiled ones have more names
        of = self.ov.Type
        types = {of.f32: "float32", of.bf16: "bfloat16", of.i64: "int64"}
        return tuple(
            {one.any_name: (types.get(one.element_type, ""), tuple(one.shape)) for one in side}
            for side in (graph.inputs, graph.outputs)
        )

    def bind(self, phase: int, inputs: Mapping[str, Tensor], outputs: Mapping) -> Bound:
        """As of `Runtime`."""
        request = self.models[phase].create_infer_request()
        for name, tensor in (*inputs.items(), *outputs.items()):
            request.set_tensor(name, self._shared(tensor))
        start, wait = request.start_async, request.wait

        def bound(kept=(inputs, outputs)) -> None:
            start()
            wait()

        return bound

    def _shared(self, tensor: Tensor):
        """Over the same memory."""
        if tensor.dtype != torch.bfloat16:
            return self.ov.Tensor(tensor.numpy(), shared_memory=True)
        raw = tensor.view(torch.uint8).numpy()  # numpy has no bfloat16
        return self.ov.Tensor(raw, self.ov.Shape(tensor.shape), self.ov.Type.bf16)


def _installed(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ValueError(f"expected {name} to be installed: pip install 'co3d[deploy]'") from None

"""ONNX Runtime and OpenVINO behind one face: a graph bound to tensors is a function to call."""

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np

Bound = Callable[[], Any]
RUNTIMES = ("onnxruntime", "openvino")


class Runtime(Protocol):
    """The graphs of a file, compiled."""

    def shapes(self, phase: int) -> tuple[dict[str, tuple], dict[str, tuple]]:
        """Of the inputs and of the outputs of a graph, by name; all must be float32."""

    def bind(self, phase: int, inputs: Mapping[str, np.ndarray], outputs: Mapping) -> Bound:
        """A function that computes the outputs from the inputs, in their own memory."""


class OnnxRuntime:
    def __init__(self, graphs: list[Path], weights: Path | None, threads: int, _: str) -> None:
        self.ort = _installed("onnxruntime")
        options = self.ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        self.sessions = [
            self.ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
            for graph in graphs
        ]

    def shapes(self, phase: int) -> tuple[dict[str, tuple], dict[str, tuple]]:
        session = self.sessions[phase]
        return tuple(
            {one.name: tuple(one.shape) if one.type == "tensor(float)" else () for one in side}
            for side in (session.get_inputs(), session.get_outputs())
        )

    def bind(self, phase: int, inputs: Mapping[str, np.ndarray], outputs: Mapping) -> Bound:
        session = self.sessions[phase]
        binding = session.io_binding()
        values = []  # over the memory of the arrays, which they do not keep alive
        for tensors, put in (
            (inputs, binding.bind_ortvalue_input),
            (outputs, binding.bind_ortvalue_output),
        ):
            for name, array in tensors.items():
                values.append((array, self.ort.OrtValue.ortvalue_from_numpy(array)))
                put(name, values[-1][1])
        run = session.run_with_iobinding

        def bound(kept=values) -> None:
            run(binding)

        return bound


class OpenVino:
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

    def shapes(self, phase: int) -> tuple[dict[str, tuple], dict[str, tuple]]:
        graph = self.graphs[phase]  # compiled ones have more names
        return tuple(
            {
                one.any_name: tuple(one.shape) if one.element_type == self.ov.Type.f32 else ()
                for one in side
            }
            for side in (graph.inputs, graph.outputs)
        )

    def bind(self, phase: int, inputs: Mapping[str, np.ndarray], outputs: Mapping) -> Bound:
        request = self.models[phase].create_infer_request()
        for name, array in (*inputs.items(), *outputs.items()):
            request.set_tensor(name, self.ov.Tensor(array, shared_memory=True))
        start, wait = request.start_async, request.wait

        def bound(kept=(inputs, outputs)) -> None:
            start()
            wait()

        bound.request = request
        return bound


def _installed(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ValueError(f"expected {name} to be installed: pip install 'co3d[deploy]'") from None

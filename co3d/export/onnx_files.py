"""ONNX files: one per phase; if there are several, they share one file of weights."""

import hashlib
from dataclasses import replace
from pathlib import Path

import onnx
from onnx import helper, numpy_helper
from torch import Tensor

from ..nn.explicit import PLAIN, Form
from .lowering import Graph
from .record import KEY, Record

OPSET, IR_VERSION = 20, 10
SMALL = 64  # numbers that stay in the graph: shapes and axes, which must be known without weights
ALIGNMENT = 4096  # bytes, so that files can be mapped to memory


def form(precision: str) -> Form:
    """What suits ONNX Runtime."""
    return PLAIN


def write(graphs: list[Graph], record: Record, folder: Path) -> list[str]:
    """Writes the graphs under the names in the record; returns the names of further files."""
    constants = {
        name: x for graph in graphs for name, x in graph.constants.items() if x.numel() > SMALL
    }
    more = [f"{Path(record.files[0]).stem}.weights"] if len(graphs) > 1 else []
    places, digest = _laid_out(constants, folder / more[0] if more else None)
    record = replace(record, files=(*record.files, *more), digest=digest)
    for phase, graph in enumerate(graphs):
        external = places if more else {}
        model = to_model(graph, record.model, external, more[0] if more else "")
        helper.set_model_props(model, {KEY: record.to_json(phase)})
        (folder / record.files[phase]).write_bytes(model.SerializeToString())
    return more


def to_model(
    graph: Graph, name: str, external: dict[str, tuple[int, int]] | None = None, where: str = ""
) -> onnx.ModelProto:
    """A model whose constants are its own, or lie in a file by (offset, bytes)."""
    tensors = []
    for key, value in graph.constants.items():
        if external and key in external:
            tensor = onnx.TensorProto(name=key, dims=value.shape)
            tensor.data_type = helper.np_dtype_to_tensor_dtype(value.numpy().dtype)
            tensor.data_location = onnx.TensorProto.EXTERNAL
            facts = {"location": where, "offset": external[key][0], "length": external[key][1]}
            tensor.external_data.extend(
                onnx.StringStringEntryProto(key=k, value=str(v)) for k, v in facts.items()
            )
        else:
            tensor = numpy_helper.from_array(value.detach().numpy(), key)
        tensors.append(tensor)
    body = helper.make_graph(graph.nodes, name, graph.inputs, graph.outputs, tensors)
    opset = [helper.make_opsetid("", OPSET)]
    return helper.make_model(body, opset_imports=opset, ir_version=IR_VERSION, producer_name="co3d")


def _laid_out(constants: dict[str, Tensor], path: Path | None) -> tuple[dict, str]:
    """Where each tensor lies in the file, which is written, and the digest of what is in it."""
    places, digest, at = {}, hashlib.sha256(), 0
    chunks = []
    for name, value in constants.items():
        data = value.detach().numpy().tobytes()
        gap = bytes(-at % ALIGNMENT)
        places[name] = (at + len(gap), len(data))
        at += len(gap) + len(data)
        for chunk in (gap, data):
            digest.update(chunk)
            chunks.append(chunk)
    if path:
        with path.open("wb") as file:
            file.writelines(chunks)
    return places, digest.hexdigest()

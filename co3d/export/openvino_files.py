"""OpenVINO files: a graph (.xml) for each phase, and one file of weights (.bin) for all."""

import hashlib
import io
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

from ..nn.explicit import Form
from .lowering import Graph
from .record import KEY, Record

ALIGNMENT = 64  # bytes


def form(precision: str) -> Form:
    """What suits OpenVINO, which computes with channels last."""
    return Form(channels_last=True, apart=True, winograd=precision == "float32")


def write(graphs: list[Graph], record: Record, folder: Path) -> list[str]:
    """Writes the graphs under the names in the record; returns the names of further files."""
    name = f"{Path(record.files[0]).stem}.bin"
    weights = _Weights()
    roots = [_tree(graph, folder, record, weights) for graph in graphs]
    (folder / name).write_bytes(weights.data)
    digest = hashlib.sha256(weights.data).hexdigest()
    record = replace(record, files=(*record.files, name), digest=digest)
    for phase, root in enumerate(roots):
        facts = root.find("rt_info")
        facts = ElementTree.SubElement(root, "rt_info") if facts is None else facts
        ElementTree.SubElement(facts, KEY, value=record.to_json(phase))
        ElementTree.ElementTree(root).write(folder / record.files[phase], "utf-8", True)
    return [name]


class _Weights:
    """Constants, each once."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.places: dict[bytes, int] = {}

    def place(self, constant: bytes) -> int:
        key = hashlib.sha256(constant).digest()
        if key not in self.places:
            self.data += bytes(-len(self.data) % ALIGNMENT)
            self.places[key] = len(self.data)
            self.data += constant
        return self.places[key]


def _tree(graph: Graph, folder: Path, record: Record, weights: _Weights) -> ElementTree.Element:
    """A graph as OpenVINO writes it, with its constants among those of the other phases."""
    import openvino

    from .onnx_files import to_model

    data = io.BytesIO(to_model(graph, record.model).SerializeToString())
    model = openvino.Core().read_model(data)
    if record.state == "internal":
        _keep_state(model, [one.name for one in graph.inputs[1:]])
    elif record.precision == "bfloat16":
        model = _in_bfloat16(model)
    path = folder / "part.xml"
    openvino.save_model(model, path, compress_to_fp16=False)
    root, constants = ElementTree.parse(path).getroot(), path.with_suffix(".bin").read_bytes()
    for layer in root.iter("layer"):
        place = layer.find("data")
        if layer.get("type") == "Const":
            at, size = int(place.get("offset")), int(place.get("size"))
            place.set("offset", str(weights.place(constants[at : at + size])))
    path.unlink()
    path.with_suffix(".bin").unlink()
    return root


def _keep_state(model, names: list[str]) -> None:
    """Makes variables, which begin as zeros, of inputs and the outputs that follow them."""
    from openvino._offline_transformations import apply_make_stateful_transformation

    apply_make_stateful_transformation(model, {name: f"next.{name}" for name in names})


def _in_bfloat16(model):
    """State that goes in and out as the runtime computes it, and at half its size."""
    import openvino

    processor = openvino.preprocess.PrePostProcessor(model)
    for ports, door in ((model.inputs, processor.input), (model.outputs, processor.output)):
        for n, port in enumerate(ports):
            if port.any_name.startswith("state."):
                door(n).tensor().set_element_type(openvino.Type.bf16)
    return processor.build()

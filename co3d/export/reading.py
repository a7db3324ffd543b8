"""Opens exported files, which may come from anywhere: what they say is checked before it is used.

Nothing in them is executed but the graph, by a runtime; names in them lead to no other folder.
"""

import hashlib
from pathlib import Path
from xml.etree import ElementTree

from .record import COUNTER, KEY, Record, input_names, output_names
from .runtimes import Kind, Runtime


def read(path: Path, kind: type[Runtime], threads: int) -> tuple[Record, Runtime]:
    """The record of an exported net, and its graphs in a runtime.

    Raises:
        FileNotFoundError: if the file, or one that belongs to it, is not there.
        ValueError: if a file is damaged or none of `export`, or they do not belong together.
    """
    record = _record(path, 0)
    graphs, weights = _companions(path, record)
    for phase, graph in enumerate(graphs[1:], 1):
        if _record(graph, phase) != record:
            raise ValueError(f"{graph} belongs to another export than {path}: export both again")
    if weights and digest_of(weights.read_bytes()) != record.digest:
        raise ValueError(f"{weights} is damaged or belongs to another export than {path}")
    if path.suffix != ".xml":
        for graph in graphs:
            _check_external(graph, weights)
    try:
        runtime = kind(graphs, weights, threads, record.precision)
        tensors = [runtime.tensors(phase) for phase in range(len(graphs))]
    except Exception as error:  # each runtime has its own kinds
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise ValueError(f"{path} cannot be opened: {reason}") from None
    for phase, given in enumerate(tensors):
        if given != _expected(record, phase):
            raise ValueError(f"{graphs[phase]} is damaged: its tensors are not those it tells of")
    return record, runtime


def digest_of(data: bytes) -> str:
    """The sha256 of the bytes, in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def _expected(record: Record, phase: int) -> tuple[dict[str, Kind], dict[str, Kind]]:
    """The inputs and outputs of a graph, by name."""
    kinds = {queue.name: (record.precision, queue.shape) for queue in record.queues}
    one = record.phases[phase]
    names = input_names(record, phase)
    counter = [("int64", ())] if COUNTER in names else []
    inputs = [("float32", record.shape), *counter, *(kinds[name] for name, _ in one.reads)]
    logits = [("float32", (record.shape[0], record.classes))] if one.emits else []
    outputs = [*logits, *(kinds[name] for name in one.writes)]
    return (
        dict(zip(names, inputs, strict=True)),
        dict(zip(output_names(record, phase), outputs, strict=True)),
    )


def _record(path: Path, phase: int) -> Record:
    """The record in a graph's file, which must be the graph of this phase."""
    if not path.is_file():
        raise FileNotFoundError(f"expected an exported model, but there is no file {path}")
    text = _xml_record(path) if path.suffix == ".xml" else _onnx_record(path)
    if text is None:
        raise ValueError(f"expected a file that co3d export wrote, given {path}: it has no record")
    try:
        record, given = Record.from_json(text)
    except ValueError as error:
        raise ValueError(f"expected a file that co3d export wrote, given {path}: {error}") from None
    if given != phase:
        raise ValueError(f"expected the graph of phase {phase}, given that of {given} in {path}")
    return record


def _xml_record(path: Path) -> str | None:
    data = path.read_bytes()
    try:
        if b"<!" in data:  # no entities, which can grow without end
            raise ElementTree.ParseError("it has a document type")
        root = ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(f"{path} is no whole OpenVINO model: {error}") from None
    found = root.find(f"rt_info/{KEY}")
    return None if found is None else found.get("value")


def _onnx_record(path: Path) -> str | None:
    return {one.key: one.value for one in _onnx(path).metadata_props}.get(KEY)


def _onnx(path: Path):
    import onnx

    try:
        return onnx.load_model(path, load_external_data=False)
    except Exception as error:  # of protobuf, by whichever implementation
        raise ValueError(f"{path} is no whole ONNX model: {error}") from None


def _companions(path: Path, record: Record) -> tuple[list[Path], Path | None]:
    """The graphs of all phases and the file of the weights."""
    names = [path.name, *record.files[1:]]
    if len(names) > 1 and path.name != record.files[0]:
        raise ValueError(f"{path} was exported as {record.files[0]}: its files need their names")
    paths = [path.with_name(name) for name in names]
    for one in paths:
        if not one.is_file():
            raise FileNotFoundError(f"expected {one.name} beside {path}, but it is not there")
    graphs, rest = paths[: len(record.phases)], paths[len(record.phases) :]
    return graphs, (rest[0] if rest else None)


def _check_external(path: Path, weights: Path | None) -> None:
    """Tensors that lie in another file must lie in that of the weights."""
    for tensor in _onnx(path).graph.initializer:
        facts = {one.key: one.value for one in tensor.external_data}
        if facts and (weights is None or facts.get("location") != weights.name):
            raise ValueError(f"{path} refers to a file that is not its own")

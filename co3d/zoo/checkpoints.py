"""Weights in files: loaded from any dialect, saved as safetensors with their origin."""

import functools
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save as serialised
from torch import Tensor, nn

from ..files import write
from . import dialects, files
from .build import create
from .specs import Checkpoint, Spec, list_models, spec

SHIPPED = Path(__file__).parent / "weights"
HALF = "float16"  # the precision, in the metadata of files with rounded weights


@dataclass(frozen=True)
class Weights:
    """Where the weights of a model come from: part of every result row.

    Attributes:
        source: an address or a name.
        sha256: of the file.
        dialect: of the original file, one of `dialects.DIALECTS`.
        notes: what was added or left out, a sentence each.
        source_sha256: of the original file, if this one was converted from it.
        classes: of the file, None if it has no classifier.
        scores: what turns logits into scores: "softmax", or "sigmoid" where a video has several
            labels. A new head always has softmax.
        channel_order: of the input, "rgb" or "bgr".
        labels: names of the classes, if the file has them.
    """

    source: str
    sha256: str
    training_data: str
    licence: str
    dialect: str = "ours"
    notes: tuple[str, ...] = ()
    source_sha256: str = ""
    classes: int | None = None
    scores: str = "softmax"
    channel_order: str = "rgb"
    labels: tuple[str, ...] = ()


def scores(model: nn.Module, logits: Tensor) -> Tensor:
    """Scores of the classes, each between 0 and 1, from a model's logits (N, classes, ...).

    A softmax over the classes, or a sigmoid for each if videos have several labels, as in Charades
    (`model.weights.scores`).
    """
    weights = getattr(model, "weights", None)
    return logits.sigmoid() if weights and weights.scores == "sigmoid" else logits.softmax(1)


def shipped(name: str) -> dict[str, Path]:
    """Weights that come with the package; a continual net has its twin's.

    They are named after their training data, with a seed other than 0 behind a colon:
    "synthetic-kinetics", "synthetic-kinetics:1". Those with one class per video come first.
    """
    paths = {}
    for path in SHIPPED.glob(f"{spec(name).weights}.*.safetensors"):
        data = path.name.split(".", 1)[1].removesuffix(".safetensors").replace(".seed", ":")
        paths[data] = path
    return dict(sorted(paths.items(), key=lambda item: ("charades" in item[0], item[0])))


def sha256(path: Path) -> str:
    """The hash of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save(
    model: nn.Module,
    path: Path,
    *,
    training_data: str,
    source: str,
    licence: str,
    notes: tuple[str, ...] = (),
    labels: tuple[str, ...] = (),
    half: bool = False,
    **more: str,
) -> None:
    """Writes the weights of a zoo model as safetensors. The same weights give the same bytes.

    Args:
        half: whether to round kernels and matrices to float16; norms and biases stay as they are.
        more: `dialect`, `source_sha256`, `scores`, `channel_order`, as in `Weights`.
    """
    more |= {"notes": "; ".join(notes), "labels": json.dumps(labels) if labels else ""}
    more["precision"] = HALF if half else ""
    metadata = {"model": model.spec.weights, "training_data": training_data, "source": source}
    metadata |= {"licence": licence, **{key: text for key, text in more.items() if text}}
    tensors = {key: x.detach().cpu().contiguous() for key, x in model.state_dict().items()}
    if half:
        tensors = {key: x.half() if x.ndim > 1 else x for key, x in tensors.items()}
    write(path, _sorted(serialised(tensors, metadata=metadata)))


def _sorted(data: bytes) -> bytes:
    """A safetensors file with a sorted header: the library's own order changes."""
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:start]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[start:]


def load_into(
    model: nn.Module,
    path: Path,
    *,
    new_head: bool = False,
    source: str | None = None,
    training_data: str | None = None,
    licence: str | None = None,
) -> Weights:
    """Copies a weights file of any dialect into a zoo model, strictly; sets `model.weights`.

    Files of X3D-XS, S and M have the same keys and shapes: only ours say which one they are. A
    file without training data is taken for the published weights of the model that have as many
    classes, if that is not the model's usual number.

    Args:
        new_head: whether to keep the model's classifier, whatever classes the file has.
        source, training_data, licence: for `model.weights`; default: as in the file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a file that is damaged, belongs to another model, lacks or adds keys, has
            other shapes, dtypes or classes, or holds numbers that are not finite.
    """
    path = Path(path)
    tensors, metadata = files.read(path)
    record = {key: files.printable(text, 500) for key, text in metadata.items()}
    name, classes = model.spec.weights, model.classifier.out_features
    if (other := record.get("model", name)) != name:
        raise ValueError(f"expected weights of {name}, given those of {other} in {path.name}")
    if record.get("precision") == HALF:
        tensors = {k: x.float() if x.dtype == torch.float16 else x for k, x in tensors.items()}
    fit = _fit(model, tensors, path.name, new_head)
    if fit.classes != classes and not new_head:
        raise ValueError(
            f"expected {classes} classes, given {fit.classes} in {path.name}: create the model "
            f"with num_classes={fit.classes}, or ask for a new head"
        )
    record["training_data"] = training_data or record.get("training_data", "")
    weights = Weights(
        source=source or record.get("source", path.name),
        sha256=sha256(path),
        licence=licence or record.get("licence", ""),
        dialect=record.get("dialect", fit.dialect),
        source_sha256=record.get("source_sha256", ""),
        classes=fit.classes,
        labels=() if new_head else _labels(metadata, fit.classes, path.name),
        **_reading(model, record, fit, path.name, new_head),
    )
    model.load_state_dict(_state(model, tensors, fit, path.name))
    model.weights = weights
    return weights


def _reading(
    model: nn.Module, record: dict[str, str], fit: dialects.Fit, file: str, new_head: bool
) -> dict[str, object]:
    """How to read inputs and outputs: as the file says, else as for weights that are alike."""
    data, notes = record["training_data"], list(filter(None, record.get("notes", "").split("; ")))
    if new_head:
        given = "none" if fit.classes is None else fit.classes
        classes = model.classifier.out_features
        notes.append(f"new head of {classes} classes in place of the file's {given}")
    if dialects.ABSENT_NORM + "weight" in fit.absent:
        notes.append(f"{dialects.ABSENT_NORM[:-1]} is not in the file: filled with the identity")
    known = model.spec.checkpoint(data) if data else _alike(model.spec, fit.classes)
    scores = record.get("scores", known.scores if known else "softmax")
    order = record.get("channel_order", (known or model.spec).channel_order)
    if scores not in ("softmax", "sigmoid") or order not in ("rgb", "bgr"):
        raise ValueError(
            f"expected scores softmax or sigmoid and channel_order rgb or bgr in {file}, given "
            f"{scores} and {order}"
        )
    if known and not data:
        data, classes = known.training_data, f"{fit.classes} classes"
        notes.append(f"taken for {data}, which has {classes}: frames are fed as {order.upper()}")
    scores = "softmax" if new_head else scores
    return {"training_data": data, "notes": tuple(notes), "scores": scores, "channel_order": order}


def _alike(record: Spec, classes: int | None) -> Checkpoint | None:
    """The one published checkpoint with so many classes, unless the model usually has them."""
    alike = [known for known in record.checkpoints if known.num_classes == classes]
    return alike[0] if len(alike) == 1 and classes != record.num_classes else None


def _labels(metadata: dict[str, str], classes: int | None, file: str) -> tuple[str, ...]:
    """The names of the classes in the metadata of a file."""
    text = metadata.get("labels", "[]")
    try:
        labels = json.loads(text)
    except (ValueError, RecursionError):
        labels = None
    valid = isinstance(labels, list) and all(isinstance(label, str) for label in labels)
    if not valid or len(labels) not in (0, classes):
        raise ValueError(f"expected names for {classes} classes in {file}, given {text[:80]!r}")
    return tuple(files.printable(label, 100) for label in labels)


def _fit(model: nn.Module, tensors: dict[str, Tensor], file: str, new_head: bool) -> dialects.Fit:
    """How a file fits the model, or a ValueError that says what the file is."""
    shapes, name = _shapes(tensors), model.spec.weights
    if unknown := dialects.stranger(shapes):
        raise ValueError(
            f"expected weights of {name}, but {file} is {unknown}, which has no model here"
        )
    fit = dialects.fit(shapes, _shapes(model.state_dict()), new_head)
    if not fit.misfits:
        return fit
    regular = [other for other in list_models() if not spec(other).continual]
    others = [o for o in regular if not dialects.fit(shapes, _zoo(o), new_head).misfits]
    if others:
        fitting = " or ".join(others)
        raise ValueError(f"expected weights of {name}, given a file that fits {fitting}: {file}")
    raise ValueError(f"{file} does not fit {name}: {'; '.join(fit.misfits)}")


def _shapes(tensors: dict[str, Tensor]) -> dialects.Shapes:
    return {key: tuple(x.shape) for key, x in tensors.items()}


@functools.cache
def _zoo(name: str) -> dialects.Shapes:
    """The shapes of a model, without its memory."""
    with torch.device("meta"):
        return _shapes(create(name).state_dict())


def _state(
    model: nn.Module, tensors: dict[str, Tensor], fit: dialects.Fit, file: str
) -> dict[str, Tensor]:
    """The model's state dict with the tensors of a file: checks their dtypes."""
    state, misfits = model.state_dict(), []
    for name, key in fit.names.items():
        if tensors[key].dtype != state[name].dtype:
            misfits.append(f"{key} is {tensors[key].dtype}")
        state[name] = tensors[key].reshape(state[name].shape)
    if misfits:
        raise ValueError(
            f"{file} holds numbers of other types than expected: {files.some(misfits, 300)}"
        )
    # A norm that is not in the file changes nothing, and has seen no batch
    for name in fit.absent:
        norm = model.get_submodule(name.rpartition(".")[0])
        identity = {"weight": (1 + norm.eps) ** 0.5, "running_var": 1}
        state[name] = torch.full_like(state[name], identity.get(name.rpartition(".")[2], 0))
    return state

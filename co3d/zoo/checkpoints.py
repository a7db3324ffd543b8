"""Weights in files: read in any dialect, written as safetensors with where they come from."""

import functools
import hashlib
import json
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save as serialised
from torch import Tensor, nn

from . import dialects, files
from .build import create
from .specs import Checkpoint, Spec, list_models, spec

SHIPPED = Path(__file__).parent / "weights"
HALF = "float16"  # how metadata call the precision of files that hold rounded weights


@dataclass(frozen=True)
class Weights:
    """Where the weights of a model come from: part of every result row.

    Attributes:
        source: an address or a name.
        sha256: of the file that was read.
        dialect: of the file that they come from, one of `dialects.DIALECTS`.
        notes: what was added or left out on the way, a sentence each.
        source_sha256: of the file that they come from, if it was converted.
        classes: of the file that was read, None if it has no classifier.
        scores: what makes scores of the logits: "softmax", or "sigmoid" where a video has several
            labels; of a new head always "softmax".
        channel_order: of the input that they expect, "rgb" or "bgr".
        labels: names of the classes, where the file tells them.
    """

    source: str
    sha256: str
    training_data: str
    licence: str
    dialect: str = dialects.OURS.name
    notes: tuple[str, ...] = ()
    source_sha256: str = ""
    classes: int | None = None
    scores: str = "softmax"
    channel_order: str = "rgb"
    labels: tuple[str, ...] = ()


def scores(model: nn.Module, logits: Tensor) -> Tensor:
    """Scores of the classes from a model's logits (N, classes, ...), each between 0 and 1.

    They are softmax scores, whose sum is 1, unless the model's weights are of several labels per
    video (`model.weights.scores`, as of Charades): then every class has its own sigmoid.
    """
    weights = getattr(model, "weights", None)
    return logits.sigmoid() if weights and weights.scores == "sigmoid" else logits.softmax(1)


def shipped(name: str) -> dict[str, Path]:
    """Weights that come with the package; a continual net has its twin's.

    They are called by their training data, those of another seed than 0 with it behind a colon:
    "synthetic-kinetics", "synthetic-kinetics:1". Those of one class per video come first.
    """
    found = {}
    for path in SHIPPED.glob(f"{spec(name).weights}.*.safetensors"):
        _, data, *seed = path.name.removesuffix(".safetensors").split(".")
        found[":".join([data, *(text.removeprefix("seed") for text in seed)])] = path
    return dict(sorted(found.items(), key=lambda item: ("charades" in item[0], item[0])))


def save(
    model: nn.Module,
    path: Path,
    *,
    training_data: str,
    source: str,
    licence: str,
    dialect: str = "",
    notes: tuple[str, ...] = (),
    source_sha256: str = "",
    scores: str = "",
    channel_order: str = "",
    labels: tuple[str, ...] = (),
    half: bool = False,
) -> None:
    """Writes the state dict of a zoo model as safetensors, under a temporary name first.

    With `half` kernels and matrices, but not what norms and biases hold, are rounded to float16.
    """
    record = {"model": model.spec.weights, "training_data": training_data}
    record |= {"source": source, "licence": licence}
    origin = {"dialect": dialect, "notes": "; ".join(notes), "source_sha256": source_sha256}
    origin |= {"scores": scores, "channel_order": channel_order}
    origin |= {"labels": json.dumps(labels) if labels else "", "precision": HALF if half else ""}
    record |= {key: value for key, value in origin.items() if value}
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    if half:
        tensors = {key: value.half() if value.ndim > 1 else value for key, value in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".co3d-") as folder:
        (Path(folder) / path.name).write_bytes(_in_order(serialised(tensors, metadata=record)))
        os.replace(Path(folder) / path.name, path)


def _in_order(file: bytes) -> bytes:
    """A safetensors file with a sorted header, so that the same weights are the same bytes."""
    start = 8 + int.from_bytes(file[:8], "little")
    header = json.dumps(json.loads(file[8:start]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + file[start:]


def load_into(
    model: nn.Module,
    path: Path,
    *,
    new_head: bool = False,
    expected_sha256: str | None = None,
    source: str | None = None,
    training_data: str | None = None,
    licence: str | None = None,
) -> Weights:
    """Copies a weights file of any dialect into a zoo model, strictly; sets `model.weights`.

    Files of X3D-XS, S and M hold the same keys and shapes and cannot be told apart, unless they
    are ours. A file that does not say what it was trained on is taken for published weights of
    the model with as many classes, if that is not the model's own number.

    Args:
        new_head: whether the classifier stays as it is, for any number of classes or none.
        expected_sha256: of the file, or its first 8 or more digits.
        source, training_data, licence: for `model.weights`; default: what the file says.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a file that is not whole, is not the expected one, is of another model or
            of one that has no model here, lacks or adds keys, has other shapes, dtypes or classes,
            or holds numbers that are not finite.
    """
    path = Path(path)
    if expected_sha256 is not None and not re.fullmatch("[0-9a-fA-F]{8,64}", expected_sha256):
        raise ValueError(f"expected a sha256 of 8 to 64 digits, given {expected_sha256!r}")
    contents = files.read(path)
    digest = sha256(path)
    if expected_sha256 is not None and not digest.startswith(expected_sha256.lower()):
        raise ValueError(f"expected sha256 {expected_sha256} of {path.name}, given {digest}")
    record, name = contents.metadata, model.spec.weights
    if (said := record.get("model", name)) != name:
        said = f"{files.quoted(said)} in {path.name}"
        raise ValueError(f"expected weights of {name}, given those of {said}")
    tensors = contents.tensors
    if record.get("precision") == HALF:
        tensors = {k: t.float() if t.dtype == torch.float16 else t for k, t in tensors.items()}
    dialect, fit = _fit(model, tensors, path.name, new_head)
    notes = tuple(filter(None, record.get("notes", "").split("; ")))
    notes += _notes(model, fit, path.name, new_head)
    trained_on = training_data or record.get("training_data", "")
    known = model.spec.checkpoint(trained_on) if trained_on else _alike(model.spec, fit.classes)
    if known and not trained_on:
        trained_on = known.training_data
        notes += (_taken_for(known),)
    reading = _reading(record, known or model.spec, fit.classes, path.name, new_head)
    model.load_state_dict(_translated(model, tensors, fit, path.name, new_head))
    model.weights = Weights(
        source or record.get("source", path.name),
        digest,
        trained_on,
        licence or record.get("licence", ""),
        record.get("dialect", dialect.name),
        notes,
        record.get("source_sha256", ""),
        fit.classes,
        **reading,
    )
    return model.weights


def _alike(record: Spec, classes: int | None) -> Checkpoint | None:
    """The published weights of a model that alone have so many classes, not the model's own."""
    found = [w for w in record.checkpoints if w.num_classes == classes != record.num_classes]
    return found[0] if len(found) == 1 else None


def _taken_for(known: Checkpoint) -> str:
    order = known.channel_order.upper()
    data, classes = known.training_data, known.num_classes
    return f"taken for {data}, which has {classes} classes: frames are fed as {order}"


def _reading(
    record: dict[str, str], known: Checkpoint | Spec, classes: int | None, file: str, new: bool
) -> dict[str, object]:
    """How inputs and outputs are to be read: as the file says, else as is known of its like."""
    usual = getattr(known, "scores", "softmax"), known.channel_order
    expected = ("scores", ("softmax", "sigmoid")), ("channel_order", ("rgb", "bgr"))
    scores, order = (
        _one_of(words, record.get(key, default), f"{key} in {file}")
        for (key, words), default in zip(expected, usual, strict=True)
    )
    labels = _labels(record.get("labels", ""), classes, file)
    head = {"scores": "softmax", "labels": ()} if new else {"scores": scores, "labels": labels}
    return {**head, "channel_order": order}


def _one_of(expected: tuple[str, ...], given: str, what: str) -> str:
    if given not in expected:
        raise ValueError(f"expected {' or '.join(expected)} for {what}, given {given[:80]!r}")
    return given


def _labels(text: str, classes: int | None, file: str) -> tuple[str, ...]:
    """The names of the classes in a file's metadata, none where it tells none."""
    try:
        names = json.loads(text or "[]")
    except (ValueError, RecursionError):
        names = None
    right = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not right or len(names) not in (0, classes):
        raise ValueError(f"expected names for {classes} classes in {file}, given {text[:80]!r}")
    # As they are, less what a terminal would obey
    return tuple("".join(c for c in name if c.isprintable())[:100] for name in names)


def sha256(path: Path) -> str:
    """Of a file, which is read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _shapes(tensors: dict[str, Tensor]) -> dialects.Shapes:
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}


def _fit(
    model: nn.Module, tensors: dict[str, Tensor], file: str, new_head: bool
) -> tuple[dialects.Dialect, dialects.Fit]:
    """The file's dialect and names, or a ValueError that says what the file is."""
    shapes, name = _shapes(tensors), model.spec.weights
    unknown = dialects.stranger(shapes)
    if unknown:
        raise ValueError(f"expected weights of {name}, but {file} is {unknown}, which has no "
                         "model here")  # fmt: skip
    try:
        dialect = dialects.detect(shapes)
    except ValueError as error:
        raise ValueError(f"{file} does not fit {name}: {error}") from None
    fit = dialects.fit(shapes, _shapes(model.state_dict()), dialect, new_head)
    if not fit.misfits:
        return dialect, fit
    others = [
        other
        for other in list_models()
        if not spec(other).continual
        and len(shapes) <= 2 * len(_zoo(other))  # else it takes long, and does not fit
        and not dialects.fit(shapes, _zoo(other), dialect, new_head).misfits
    ]
    if others:
        raise ValueError(
            f"expected weights of {name}, given a file that fits {' or '.join(others)}: {file}"
        )
    raise ValueError(f"{file} does not fit {name}: {'; '.join(fit.misfits)}")


@functools.cache
def _zoo(name: str) -> dialects.Shapes:
    """The shapes of a model, without its memory."""
    with torch.device("meta"):
        return _shapes(create(name).state_dict())


def _notes(model: nn.Module, fit: dialects.Fit, file: str, new_head: bool) -> tuple[str, ...]:
    """What will not be as in the file; refuses another number of classes."""
    classes, notes = model.classifier.out_features, ()
    if new_head:
        theirs = "none" if fit.classes is None else fit.classes
        notes += (f"new head of {classes} classes in place of the file's {theirs}",)
    elif fit.classes != classes:
        raise ValueError(
            f"expected {classes} classes, given {fit.classes} in {file}: create the model with "
            f"num_classes={fit.classes}, or ask for a new head"
        )
    if any(key.startswith(dialects.ABSENT_NORM + "weight") for key in fit.absent):
        notes += (f"{dialects.ABSENT_NORM[:-1]} is not in the file: filled with the identity",)
    return notes


def _translated(
    model: nn.Module,
    tensors: dict[str, Tensor],
    fit: dialects.Fit,
    file: str,
    new_head: bool,
) -> dict[str, Tensor]:
    """A state dict for the model, checked for dtypes."""
    state, other = {}, []
    for key, wanted in model.state_dict().items():
        if new_head and key.startswith("classifier."):
            state[key] = wanted
        elif key in fit.absent:
            state[key] = _identity(model, key, wanted)
        else:
            given = tensors[fit.names[key]]
            if given.dtype != wanted.dtype:
                other.append(f"{fit.names[key]} is {given.dtype}")
            state[key] = given.reshape(wanted.shape)
    if other:
        raise ValueError(
            f"{file} holds numbers of other types than expected: {files.some(other, 300)}"
        )
    return state


def _identity(model: nn.Module, key: str, like: Tensor) -> Tensor:
    """A tensor of a BatchNorm that changes nothing, and has seen no batch."""
    path, _, leaf = key.rpartition(".")
    values = {"weight": (1 + model.get_submodule(path).eps) ** 0.5, "running_var": 1}
    return torch.full_like(like, values.get(leaf, 0))

"""Weights in files: safetensors with the name of the model and where the weights come from."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from .specs import spec

SHIPPED = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class Weights:
    """Where the weights of a model come from: part of every result row."""

    source: str
    sha256: str
    training_data: str
    licence: str


def shipped(name: str) -> dict[str, Path]:
    """Weights that come with the package, by training data; a continual net has its twin's."""
    files = SHIPPED.glob(f"{spec(name).weights}.*.safetensors")
    return {path.name.split(".")[1]: path for path in sorted(files)}


def save(model: nn.Module, path: Path, *, training_data: str, source: str, licence: str) -> None:
    """Writes the state dict of a zoo model as safetensors, under a temporary name first."""
    record = {"model": model.spec.weights, "training_data": training_data}
    record |= {"source": source, "licence": licence}
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    save_file(tensors, part, metadata=record)
    os.replace(part, path)


def load_into(model: nn.Module, path: Path) -> Weights:
    """Copies a safetensors file into a zoo model, strictly, and sets `model.weights`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a file that is no safetensors, is cut short, is of another model, lacks or
            adds keys, has other shapes or dtypes, or holds numbers that are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no weights file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            record = file.metadata() or {}
            _check(model, path, record, file)
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path.name} is not a whole safetensors file: {error}") from None
    wanted = model.state_dict()
    other = [f"{k} is {v.dtype}" for k, v in tensors.items() if v.dtype != wanted[k].dtype]
    if other:
        raise ValueError(f"{path.name} holds numbers of other types than expected: {_some(other)}")
    bad = [k for k, v in tensors.items() if v.is_floating_point() and not v.isfinite().all()]
    if bad:
        raise ValueError(f"{path.name} holds numbers that are not finite, in {_some(bad)}")
    model.load_state_dict(tensors)
    model.weights = Weights(
        record.get("source", path.name),
        hashlib.sha256(path.read_bytes()).hexdigest(),
        record.get("training_data", ""),
        record.get("licence", ""),
    )
    return model.weights


def _check(model: nn.Module, path: Path, record: dict[str, str], file) -> None:
    """Model name, keys and shapes from the header alone, before any tensor is read."""
    name = model.spec.weights
    if record.get("model", name) != name:
        raise ValueError(
            f"expected weights of {name}, given those of {record['model']} in {path.name}"
        )
    wanted, given = model.state_dict(), set(file.keys())
    missing, added = sorted(set(wanted) - given), sorted(given - set(wanted))
    if missing or added:
        raise ValueError(
            f"{path.name} does not fit {name}: missing {_some(missing)}; unexpected {_some(added)}"
        )
    for key, tensor in wanted.items():
        shape = tuple(file.get_slice(key).get_shape())
        if shape != tuple(tensor.shape):
            raise ValueError(
                f"{path.name} does not fit {name}: expected {tuple(tensor.shape)} for {key}, "
                f"given {shape}"
            )


def _some(keys: list[str]) -> str:
    shown = ", ".join(keys[:5]) or "none"
    return shown + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")

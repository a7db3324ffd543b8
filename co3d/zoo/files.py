"""What is in a weights file, whoever wrote it: safetensors, torch or Caffe2, and nothing is run."""

from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open


class Contents(NamedTuple):
    """The tensors of a file under the names that they have there."""

    format: str  # "safetensors", "torch" or "caffe2"
    tensors: dict[str, torch.Tensor]
    metadata: dict[str, str]


def read(path: Path) -> Contents:
    """Reads a weights file of any format, told by its content and not by its name.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: one sentence, for what is not whole, plain, finite weights.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no weights file {path}")
    with path.open("rb") as file:
        head = file.read(16)
    if head[8:9] == b"{":
        return _safetensors(path)
    return _torch(path, mmap=head.startswith(b"PK"))


def _safetensors(path: Path) -> Contents:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return Contents("safetensors", tensors, file.metadata() or {})
    except SafetensorError as error:
        raise ValueError(f"{path.name} is not a whole safetensors file: {error}") from None


def _torch(path: Path, mmap: bool) -> Contents:
    held = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    for key in ("model_state", "state_dict"):
        held = held.get(key, held)
    for prefix in ("module.", "model."):
        if all(key.startswith(prefix) for key in held):
            held = {key.removeprefix(prefix): value for key, value in held.items()}
    return Contents("torch", dict(held), {})

"""Weight files as their authors write them, made from their published keys and shapes."""

import hashlib
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

_FIXTURE = json.loads((Path(__file__).parent / "fixtures/checkpoint_keys.json").read_text())
_NORM = {
    ".": ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"),
    "_": ("s", "b", "rm", "riv"),
}
Shapes = dict[str, tuple[int, ...]]


class Published(NamedTuple):
    """A published list: the model that it is of, None if there is none here, keys and shapes."""

    name: str
    model: str | None
    dialect: str
    shapes: Shapes
    sha256: str  # of the list, taken where it was made


def published(name: str) -> Published:
    """One of `NAMES`, with its keys in the order of their network."""
    held = _FIXTURE["lists"][name]
    separator = "_" if held["dialect"] == "caffe2" else "."
    shapes: Shapes = {}
    for prefix, tree in held["keys"]:
        shapes |= _keys(tree, prefix, separator)
    return Published(name, held["model"], held["dialect"], shapes, held["sha256"])


def _keys(tree: dict | list | int | str, prefix: str, separator: str) -> Iterator[tuple]:
    if isinstance(tree, str):
        tree = _FIXTURE["shared"][int(tree.removeprefix("$"))]
    if isinstance(tree, int):
        leaves = _NORM[separator]
        tree = {leaf: [] if leaf == "num_batches_tracked" else [tree] for leaf in leaves}
    if isinstance(tree, list):
        yield prefix, tuple(tree)
        return
    for name, part in tree.items():
        yield from _keys(part, prefix + separator + name, separator)


NAMES = {name: held["model"] for name, held in _FIXTURE["lists"].items()}


def digest(shapes: Shapes) -> str:
    """As `Published.sha256`."""
    lines = "\n".join(f"{key} {shape}" for key, shape in shapes.items())
    return hashlib.sha256(lines.encode()).hexdigest()


def values(shapes: Shapes) -> dict[str, Tensor]:
    """Random numbers of a usual size, which depend on key and shape alone."""
    return {key: _value(key, shape) for key, shape in shapes.items()}


def _value(key: str, shape: tuple[int, ...]) -> Tensor:
    if key.endswith("num_batches_tracked"):
        return torch.tensor(zlib.crc32(key.encode()) % 1000)
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(key.encode())))
    if len(shape) > 1:
        return drawn * (2 / drawn[0].numel()) ** 0.5
    spread = 0.1 * drawn
    return (spread + 0.7).clamp_min(0.2) if re.search("weight$|var$|_riv$|_s$", key) else spread


def write(path: Path, tensors: dict[str, Tensor], dialect: str) -> Path:
    """In the container that the dialect comes in."""
    if dialect == "caffe2":
        path.write_bytes(python2_pickle(tensors))
    elif dialect == "torchvision":
        torch.save(tensors, path)
    else:
        torch.save({"model_state": tensors, "epoch": 3}, path)
    return path


def python2_pickle(tensors: dict[str, Tensor], momentum: str = "_s") -> bytes:
    """{"blobs": {name: array}} in the opcodes of Python 2's cPickle, protocol 2.

    A learning rate, a counter and momentum are added, as training leaves them there: here only for
    names that end with `momentum`, which keeps the file small.
    """
    parts = [b"\x80\x02}U\x05blobs}("]
    for name, tensor in tensors.items():
        parts += [_text(name), *_array(tensor)]
        if name.endswith(momentum):
            parts += [_text(f"{name}_momentum"), *_array(torch.zeros_like(tensor))]
    parts += [_text("lr"), *_array(torch.tensor([0.1])), _text("model_iter"), b"K\x07"]
    return b"".join([*parts, b"us."])


def _text(name: str) -> bytes:
    return b"U" + bytes([len(name)]) + name.encode()


def _array(tensor: Tensor) -> list[bytes]:
    """numpy.core.multiarray._reconstruct(numpy.ndarray, (0,), "b") and its state."""
    shape = b"".join(b"J" + size.to_bytes(4, "little") for size in tensor.shape)
    data = tensor.numpy().tobytes()
    minus_one = b"J\xff\xff\xff\xff"
    return [
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R",
        b"(K\x01(" + shape + b"tcnumpy\ndtype\nU\x02f4K\x00K\x01\x87R",
        b"(K\x03U\x01<NNN" + 2 * minus_one + b"K\x00tb",
        b"\x89T" + len(data).to_bytes(4, "little") + data + b"tb",
    ]

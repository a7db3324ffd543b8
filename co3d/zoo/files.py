"""Reads the tensors in a weights file of any format: safetensors, torch or Caffe2."""

import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

LARGEST = 1 << 30  # bytes of a file; the largest published one has 264 MB
DAMAGED = "is cut short or damaged: download it again"

_TORCH_BEFORE_1_6 = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_MISTAKES = (  # the first bytes of a file, and what it is instead of weights
    (rb"version https://git-lfs", "is a git-lfs pointer, not weights: run git lfs pull"),
    # Behind a byte order mark, if there is one
    (
        rb"(\xef\xbb\xbf|\xff\xfe|\xfe\xff\0)?\s*<",
        "is an HTML page, not weights: download it again",
    ),
    (rb'\s*(\{\s*["}]|\[)', "is a JSON message, not weights: download it again"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd|7z\xbc\xaf|Rar!", "is a packed file: unpack it"),
    (rb"(?s).{257}ustar", "is a tar archive: unpack it"),
    (rb"[\t\r\n -~]+\Z", "is text, not weights: download it again"),
)


class Refused(ValueError):
    """Why a file is not taken: the part of the sentence that follows its name."""


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by their names in the file, and the metadata of safetensors. Runs nothing.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a file that is not whole, plain, finite weights.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no weights file {path}")
    try:
        tensors, metadata = _READERS[sniff(path)](path)
        _check(tensors)
    except Refused as error:
        raise ValueError(f"{path.name} {error}") from None
    except OSError as error:
        raise ValueError(f"{path.name} cannot be read: {error.strerror}") from None
    # Parsers raise all kinds of errors for damaged files
    except Exception as error:
        raise ValueError(f"{path.name} {DAMAGED}") from error
    return tensors, metadata


def sniff(path: Path) -> str:
    """The format of a file by its first bytes: "safetensors", "torch" or "caffe2".

    Raises:
        ValueError: for what is no weights file, saying what it is.
    """
    if not path.is_file():
        raise Refused("is a folder or a device, not a weights file")
    if path.stat().st_size > LARGEST:
        raise Refused(f"has {path.stat().st_size} bytes, more than any published weights: refused")
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise Refused("is empty: download it again")
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= LARGEST:
        return "safetensors"
    if head.startswith(b"PK") or head[2:].startswith(_TORCH_BEFORE_1_6):
        return "torch"
    if head[:1] == b"\x80":
        return "caffe2"
    for pattern, mistake in _MISTAKES:
        if re.match(pattern, head):
            raise Refused(mistake)
    raise Refused("is no weights file of a known format (safetensors, torch, Caffe2)")


def some(texts: Iterable[object], limit: int = 80) -> str:
    """The first five, cut to `limit` characters, and how many more there are."""
    texts = list(texts)
    shown = ", ".join(printable(str(text), limit) for text in texts[:5]) or "none"
    return shown + (f" and {len(texts) - 5} more" if len(texts) > 5 else "")


def printable(text: str, limit: int) -> str:
    """The text without what a terminal would obey, cut to `limit` characters."""
    return "".join(character for character in text if character.isprintable())[:limit]


def _check(tensors: dict[str, Tensor]) -> None:
    if not tensors:
        raise Refused("holds no tensors")
    odd = [key for key, x in tensors.items() if x.layout != torch.strided or x.is_meta]
    if odd:
        raise Refused(f"holds other than dense tensors, in {some(odd)}")
    bad = [key for key, x in tensors.items() if not x.isfinite().all()]
    if bad:
        raise Refused(f"holds numbers that are not finite, in {some(bad)}")


def _safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            keys = list(file.keys())
            return {key: file.get_tensor(key) for key in keys}, file.metadata() or {}
    except SafetensorError as error:
        raise Refused(f"is not a whole safetensors file: {printable(str(error), 200)}") from None


def _torch(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The weights in what torch.save wrote, without a prefix that all keys share."""
    with path.open("rb") as file:
        zipped = file.read(2) == b"PK"
    if zipped:
        names = zipfile.ZipFile(path).namelist()
        program = any("/code/" in name for name in names)
        if program or not any(name.endswith("/data.pkl") for name in names):
            raise Refused("is a zip file, but not of weights that torch.save wrote")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if name := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise Refused(_forbidden(name[1])) from None
        raise
    for name in ("model_state", "state_dict"):
        if isinstance(content, dict) and name in content:
            content = content[name]
    if not isinstance(content, dict):
        raise Refused(f"holds a {type(content).__name__} in the place of weights by name")
    odd = [k for k, x in content.items() if not (isinstance(k, str) and isinstance(x, Tensor))]
    if odd:
        raise Refused(f"holds other things than tensors among its weights, in {some(odd)}")
    for prefix in ("module.", "model."):
        if all(key.startswith(prefix) for key in content):
            content = {key.removeprefix(prefix): x for key, x in content.items()}
    return {key: x.detach() for key, x in content.items()}, {}


def _caffe2(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The blobs of a pickle, without those that only training needs."""
    with path.open("rb") as file:
        content = _Unpickler(file, encoding="latin1").load()
    blobs = content.get("blobs", content) if isinstance(content, dict) else content
    if not isinstance(blobs, dict):
        raise Refused(f"holds a {type(blobs).__name__} in the place of weights by name")
    tensors = {}
    for key, blob in blobs.items():
        if key in ("lr", "model_iter") or str(key).endswith("_momentum"):
            continue
        if not isinstance(key, str) or not isinstance(blob, np.ndarray) or blob.dtype.kind != "f":
            raise Refused(f"holds other than an array of real numbers, in {some([key])}")
        tensors[key] = torch.from_numpy(blob.astype(np.float32, order="C"))
    return tensors, {}


class _Unpickler(pickle.Unpickler):
    """Knows the names that arrays of numbers need, and no others. Refuses persistent ids."""

    def find_class(self, module: str, name: str) -> object:
        full = f"{module}.{name}"
        if full not in _NAMES:
            raise Refused(_forbidden(printable(full, 80)))
        return _NAMES[full]


def _forbidden(name: str) -> str:
    return f"asks for {name}, which is not for weights: refused, nothing was run"


def _array(*_: object) -> np.ndarray:
    """Empty, as its state follows."""
    return np.empty(0, np.float32)


def _dtype(code: str, *_: object) -> np.dtype:
    """A type of numbers of its own, as its byte order may follow."""
    dtype = np.dtype(code, copy=True)
    if dtype.kind not in "fiu":
        raise Refused(f"holds {dtype.str!r} in the place of numbers: refused")
    return dtype


def _encode(text: str, _: str) -> bytes:
    """How Python 3 writes bytes for Python 2."""
    return text.encode("latin1")


_NAMES = {
    "collections.OrderedDict": OrderedDict,
    "_codecs.encode": _encode,
    "numpy.dtype": _dtype,
    "numpy.ndarray": None,  # an argument of the next two, never called
    "numpy.core.multiarray._reconstruct": _array,
    "numpy._core.multiarray._reconstruct": _array,
}
_READERS = {"safetensors": _safetensors, "torch": _torch, "caffe2": _caffe2}

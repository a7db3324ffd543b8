"""What is in a weights file, whoever wrote it: safetensors, torch or Caffe2, and nothing is run."""

import errno
import mmap
import re
import zipfile
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from .pickles import Named, Reader, Refused, quoted, text

LARGEST = 1 << 30  # bytes of a file; the largest published has 264 MB
TENSORS = 10_000  # in a file; the largest published has a thousand
HEADER = 4 << 20  # bytes of a safetensors header; of the models here it has 0.1 MB
LABELS = 1 << 20  # characters of the names of the classes in it
DIMENSIONS = 8
DAMAGED = "is cut short or damaged: download it again"

_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # of torch files before 1.6
_TEXT_PICKLE = re.compile(rb"\([dlitcS(]|c[\w.]+\n[\w.]+\n|[\]}][qr(.]")
_MARKUP = rb"(?:\xef\xbb\xbf|\xff\xfe|\xfe\xff\0)?\s*<"  # after a byte order mark, if there is one
_MISTAKES = (  # a file's first bytes, and what it is instead of weights
    (rb"version https://git-lfs", "is a git-lfs pointer, not weights: run git lfs pull"),
    (rb"(?is)" + _MARKUP + rb".{0,400}html", "is an HTML page, not weights: download it again"),
    (_MARKUP, "is an XML message, not weights: download it again"),
    (rb'(?s)\s*(\{\s*["}]|\[)', "is a JSON message, not weights: download it again"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd|7z\xbc\xaf|Rar!", "is a packed file: unpack it"),
    (rb"(?s).{257}ustar", "is a tar archive: unpack it"),
    (rb"(?s)\x89PNG|\xff\xd8\xff|GIF8|RIFF|.{4}ftyp|\x1aE\xdf\xa3", "is a picture or a video"),
    (rb"[\t\r\n -~]+\Z", "is text, not weights: download it again"),
)
_WIDTHS = {"Double": 8, "Float": 4, "Half": 2, "BFloat16": 2, "Long": 8, "Int": 4, "Short": 2}
_WIDTHS = {f"torch.{n}Storage": b for n, b in (_WIDTHS | dict(Char=1, Byte=1, Bool=1)).items()}
_FLOATS = {torch.float64, torch.float32, torch.float16, torch.bfloat16}
_DTYPES = _FLOATS | {torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool}


class Contents(NamedTuple):
    """The tensors of a file under the names that they have there."""

    format: str  # "safetensors", "torch" or "caffe2"
    tensors: dict[str, torch.Tensor]
    metadata: dict[str, str]  # of safetensors


def read(path: Path) -> Contents:
    """Reads a weights file of any format, told by its content and not by its name.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: one sentence, for a file that is not whole, plain, finite weights.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no weights file {path}")
    try:
        contents = _READERS[sniff(path)](path)
        _check(contents.tensors, path.stat().st_size)
    except Refused as refused:
        raise ValueError(f"{path.name} {refused}") from None
    # Damaged files make the parsers of zip files and torch raise whatever they stumble upon
    except Exception as error:
        raise ValueError(f"{path.name} {_fault(error)}") from error
    return contents


def some(texts: list, limit: int = 80) -> str:
    """The first few for a sentence, each `quoted`, and how many more there are."""
    shown = ", ".join(quoted(text, limit) for text in texts[:5]) or "none"
    return shown + (f" and {len(texts) - 5} more" if len(texts) > 5 else "")


def _fault(error: Exception) -> str:
    """What is wrong, the file unless it is the machine."""
    if isinstance(error, MemoryError) or "allocate memory" in str(error):
        return "needs more memory than is free"
    # A damaged zip file leads to places that no file has
    if isinstance(error, OSError) and error.strerror and error.errno != errno.EINVAL:
        return f"cannot be read: {error.strerror}"
    return DAMAGED


def sniff(path: Path) -> str:
    """The format of a file by its first bytes: "safetensors", "torch zip", "torch" or "caffe2".

    Raises:
        Refused: for what is no weights file, saying what it is.
    """
    if not path.is_file():
        raise Refused("is a folder or a device, not a weights file")
    try:
        with path.open("rb") as file:
            head, size = file.read(512), path.stat().st_size
    except OSError as error:
        raise Refused(f"cannot be read: {error.strerror}") from None
    if not head:
        raise Refused("is empty: download it again")
    if size > LARGEST:
        raise Refused(f"has {size} bytes, more than any published weights: refused")
    if head[8:9] == b"{" and (length := int.from_bytes(head[:8], "little")) <= LARGEST:
        if length > HEADER:
            raise Refused(f"is not a whole safetensors file: a header of {length} bytes, refused")
        return "safetensors"
    if head.startswith(b"PK"):
        return "torch zip"
    if head[:1] == b"\x80" or _TEXT_PICKLE.match(head):
        return "torch" if head[2:].startswith(_MAGIC) else "caffe2"
    for pattern, mistake in _MISTAKES:
        if re.match(pattern, head):
            raise Refused(mistake)
    raise Refused("is no weights file of a known format (safetensors, torch, Caffe2)")


def _check(tensors: dict[str, torch.Tensor], size: int) -> None:
    """Dense tensors of finite numbers, and no more of them than the file has room for."""
    if not tensors or len(tensors) > TENSORS:
        raise Refused(f"holds {len(tensors)} tensors: refused")
    odd = [k for k, t in tensors.items() if t.dtype not in _DTYPES or t.layout != torch.strided]
    if odd:
        raise Refused(f"holds other than dense tensors of plain numbers, in {some(odd)}")
    # The numbers of a Caffe2 file may have had fewer bytes, and tensors may share a storage
    if sum(t.numel() * t.element_size() for t in tensors.values()) > 4 * size:
        raise Refused("declares larger tensors than it holds: refused")
    bad = [k for k, t in tensors.items() if t.dtype in _FLOATS and not t.isfinite().all()]
    if bad:
        raise Refused(f"holds numbers that are not finite, in {some(bad)}")


def _safetensors(path: Path) -> Contents:
    try:
        with safe_open(path, framework="pt") as file:
            keys = list(file.keys())
            if len(keys) > TENSORS:
                raise Refused(f"holds {len(keys)} tensors: refused")
            tensors = {key: file.get_tensor(key) for key in keys}
            metadata = {
                key: quoted(text, LABELS if key == "labels" else 500)
                for key, text in (file.metadata() or {}).items()
            }
            return Contents("safetensors", tensors, metadata)
    except SafetensorError as error:
        raise Refused(f"is not a whole safetensors file: {quoted(error, 200)}") from None


class _Declared:
    """Holds what a torch pickle declares against what the file has, before torch reads it.

    torch.load(weights_only=True) runs nothing either, but takes declared sizes and keys as given.
    """

    def __init__(self, held: dict[str, int] | None, room: int) -> None:
        self.held, self.room, self.zipped = held or {}, room, held is not None
        rebuild = {"_rebuild_tensor_v2": self._tensor, "_rebuild_parameter": lambda data, *_: data}
        self.stand_ins = {f"torch._utils.{name}": make for name, make in rebuild.items()}
        self.stand_ins |= dict.fromkeys(_WIDTHS)

    def storage(self, identity: tuple) -> int:
        """The number of elements of a storage that is there."""
        kind, storage, key, _, count, *view = identity
        if text(kind) != "storage" or not isinstance(storage, Named) or view not in ([], [None]):
            raise Refused("asks for objects from outside itself (persistent ids): refused")
        wanted, key = _natural(count) * _WIDTHS[storage.name], text(key)
        if not self.zipped and key not in self.held:
            self.held[key] = wanted
            self.room -= wanted
        if self.held.get(key) != wanted or self.room < 0:
            raise Refused(f"declares a storage of {wanted} bytes that it does not hold: refused")
        return count

    def _tensor(self, count: int, offset: int, size: tuple, stride: tuple, *rest: object) -> None:
        if len(size) != len(stride) or len(size) > DIMENSIONS or any(rest[2:]):
            raise Refused("declares a tensor of odd form: refused")
        steps = zip(map(_natural, size), map(_natural, stride), strict=True)
        last = _natural(offset) + sum((n - 1) * step for n, step in steps)
        if prod(size) and last >= count:
            raise Refused(f"declares a tensor of shape {size} that it does not hold: refused")


def _natural(number: object) -> int:
    if type(number) is not int or not 0 <= number <= LARGEST:
        raise Refused("declares a size that no weights have: refused")
    return number


def _torch_zip(path: Path) -> Contents:
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        names = {member.filename.partition("/")[2]: member for member in members}
        if "constants.pkl" in names or any(name.startswith("code/") for name in names):
            raise Refused("is a TorchScript program, not weights: refused")
        if "data.pkl" not in names:
            raise Refused("is a zip file without weights of torch: unpack it")
        packed = any(m.compress_type != zipfile.ZIP_STORED for m in members)
        if packed or sum(m.file_size for m in members) > size or len(names) != len(members):
            raise Refused("is no zip file as torch writes them (packed or overlapping): refused")
        held = {n[5:]: m.file_size for n, m in names.items() if n.startswith("data/")}
        declared = _Declared(held, size)
        Reader(archive.read(names["data.pkl"]), declared.stand_ins, declared.storage).load()
    return _state(torch.load(path, map_location="cpu", weights_only=True, mmap=True))


def _torch(path: Path) -> Contents:
    """A file as torch wrote them before 1.6: five pickles, then the storages."""
    declared = _Declared(None, path.stat().st_size)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        reader = Reader(data, declared.stand_ins, declared.storage)
        for _ in range(5):
            reader.load()
    return _state(torch.load(path, map_location="cpu", weights_only=True))


def _state(held: object) -> Contents:
    """The weights in what torch wrote, less a prefix that all keys share."""
    for name in ("model_state", "state_dict"):
        if isinstance(held, dict) and name in held:
            held = held[name]
    if not isinstance(held, dict):
        raise Refused(f"holds a {type(held).__name__} in the place of weights by name")
    odd = [
        key for key, t in held.items() if not isinstance(t, torch.Tensor) or type(key) is not str
    ]
    if odd:
        what = type(held[odd[0]]).__name__
        raise Refused(f"holds other things than tensors ({what}) among its weights, in {some(odd)}")
    for prefix in ("module.", "model."):
        if held and all(key.startswith(prefix) for key in held):
            held = {key.removeprefix(prefix): value for key, value in held.items()}
    return Contents("torch", {key: value.detach() for key, value in held.items()}, {})


class _Type:
    """Stands in for numpy.dtype."""

    def __init__(self, code: object, *_: object) -> None:
        self.code, self.order = text(code), "="
        if not re.fullmatch("f[248]|[iu][1248]|b1", self.code):
            raise Refused(f"holds '{quoted(self.code, 20)}' in the place of numbers: refused")

    def build(self, state: tuple) -> None:
        _, order, *structure = state
        if text(order) not in tuple("<>|=") or any(part is not None for part in structure[:3]):
            raise Refused("holds structured types in the place of numbers: refused")
        self.order = text(order)


class _Array:
    """Stands in for numpy.ndarray: no memory is taken before its bytes are there."""

    def __init__(self, *_: object) -> None:
        self.state: tuple | None = None

    @classmethod
    def scalar(cls, kind: _Type, raw: bytes) -> "_Array":
        made = cls()
        made.build((1, (), kind, False, raw))
        return made

    def build(self, state: tuple) -> None:
        _, shape, kind, by_columns, raw = state
        if not isinstance(kind, _Type) or not isinstance(raw, bytes):
            raise Refused("holds an array without numbers: refused")
        if len(shape) > DIMENSIONS:
            raise Refused(f"declares an array of {len(shape)} dimensions: refused")
        if prod(map(_natural, shape)) * int(kind.code[1]) != len(raw):
            raise Refused(f"declares an array of shape {shape} but has {len(raw)} bytes for it")
        self.state = shape, kind.order + kind.code, raw, "F" if by_columns else "C"

    def tensor(self) -> torch.Tensor:
        shape, kind, raw, order = self.state
        with np.errstate(over="ignore"):  # what is too large becomes infinite and is refused
            return torch.from_numpy(
                np.ndarray(shape, kind, raw, order=order).astype(np.float32, order="C")
            )


_CORE = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMPY = {"numpy.ndarray": None, "numpy.dtype": _Type}
_NUMPY |= {f"{core}._reconstruct": _Array for core in _CORE}
_NUMPY |= {f"{core}.scalar": _Array.scalar for core in _CORE}


def _caffe2(path: Path) -> Contents:
    """The blobs of a pickle, less what only training needs."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        held, room = Reader(data, _NUMPY).load(), len(data)
    blobs = held.get("blobs", held) if isinstance(held, dict) else held
    if not isinstance(blobs, dict):
        raise Refused(f"holds a {type(blobs).__name__} in the place of weights by name")
    tensors = {}
    for key in list(blobs):
        blob = blobs.pop(key)  # frees the bytes, so that the file is in memory once and a half
        if key in ("lr", "model_iter") or str(key).endswith("_momentum"):
            continue
        if not isinstance(blob, _Array) or blob.state is None or type(key) is not str:
            raise Refused(
                f"holds a {type(blob).__name__} in the place of an array, in {some([key])}"
            )
        if blob.state[1][1] != "f":
            raise Refused(f"holds whole numbers in the place of weights, in {some([key])}")
        room -= len(blob.state[2])
        if room < 0:
            raise Refused("declares larger arrays than it holds: refused")
        tensors[key] = blob.tensor()
    return Contents("caffe2", tensors, {})


_READERS = {"safetensors": _safetensors, "torch zip": _torch_zip}
_READERS |= {"torch": _torch, "caffe2": _caffe2}

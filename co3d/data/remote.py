"""Data sets that lie at an address, such as s3://bucket/kinetics400, read through fsspec.

A folder of the cache stands for the place: annotations are copied there, of each video there is an
empty file, and the loaders of folders read that. A video itself is fetched when it is decoded, into
a part of the cache that is bounded: what was used least recently goes first. Whoever may read the
address is up to fsspec (https://filesystem-spec.readthedocs.io), which takes its credentials from
the environment.
"""

import base64
import fcntl
import hashlib
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath

from .. import paths
from . import files
from .dataset import Address, Dataset

TEXTS = (".csv", ".json", ".txt")  # copied when a set is opened
GIGABYTES = 20.0  # of fetched videos on a machine, unless FETCHED_GB says otherwise
TRIES, PAUSE = 3, 2.0  # seconds before the second try, twice as many before the third
BLOCK = 2**20


def is_address(place: str | Path | None) -> bool:
    """Whether it has the form scheme://... that no path has."""
    return isinstance(place, str) and "://" in place


def opened(address: str, load: Callable[[Path], Dataset]) -> Dataset:
    """The data set at an address, by a function that loads it from a folder.

    Folders of JPEG frames are passed over: a set at an address is one of video files.

    Raises:
        FileNotFoundError: if there is nothing.
        ValueError: if fsspec or what it needs for this scheme is not installed, for names that lead
            elsewhere, and whatever `load` raises.
        OSError: if the store cannot be read.
    """
    _limit()  # refused before any work
    with _told(address):
        fs, root = _store(address)
        found = fs.find(root, detail=True)
    if not found:
        raise FileNotFoundError(f"expected a data set at {address}, where nothing is")
    name = PurePosixPath(root).name or "set"
    digest = hashlib.sha256(address.encode()).hexdigest()[:16]
    place = paths.cache_path() / "addresses" / digest
    place.mkdir(parents=True, exist_ok=True)
    scheme = address.partition("://")[0]
    with tempfile.TemporaryDirectory(prefix=".", dir=place) as fresh:
        folder, addresses = Path(fresh) / name, {}
        folder.mkdir()
        for key, info in found.items():
            part = PurePosixPath(key).relative_to(root)
            if ".." in part.parts or part.is_absolute():
                raise ValueError(f"expected names below {address}, given {files.shown(str(part))}")
            if files.is_video(part):
                url = f"{scheme}://{key.removeprefix(f'{scheme}://')}"
                addresses[str(part)] = Address(url, int(info.get("size") or 0), _md5(info))
                (folder / part).parent.mkdir(parents=True, exist_ok=True)
                (folder / part).touch()
            elif part.suffix in TEXTS and int(info.get("size") or 0) <= files.MAX_BYTES:
                (folder / part).parent.mkdir(parents=True, exist_ok=True)
                with _told(address):
                    fs.get_file(key, str(folder / part))
        data = load(folder)
        videos = tuple(
            v if v.path is None else replace(v, path=addresses[_below(v.path, folder)])
            for v in data.videos
        )
    return replace(data, videos=videos)


def _below(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _md5(info: dict) -> str:
    """Of a file, where its store tells. An ETag is none where files are encrypted or in parts."""
    if encoded := info.get("md5Hash"):  # of Google's stores
        return base64.b64decode(encoded).hex()
    return str(info.get("md5") or "")


@contextmanager
def local(path: Path | Address) -> Iterator[Path]:
    """A file that can be opened, for as long as the context lasts; fetched if it lies elsewhere.

    What was fetched before is taken again if it is whole, which its sha256 says.

    Raises:
        OSError: if it cannot be fetched, or is not what the store said of it.
    """
    if isinstance(path, Path):
        yield path
        return
    folder = paths.cache_path() / "fetched"
    folder.mkdir(parents=True, exist_ok=True)
    facts = f"{path.url}\n{path.size}\n{path.md5}"
    stem = hashlib.sha256(facts.encode()).hexdigest()[:32]
    held = folder / f"{stem}{PurePosixPath(path.url).suffix}"
    with (folder / f"{stem}.lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one process fetches it
        digest = folder / f"{stem}.sha256"
        if not (held.is_file() and digest.is_file() and _digest(held) == digest.read_text()):
            digest.unlink(missing_ok=True)
            _fetch(path, held)
            digest.write_text(_digest(held))
            _evict(folder, keep=held)
        os.utime(held)
        fcntl.flock(lock, fcntl.LOCK_SH)  # several may read it, none may evict it
        yield held


def _fetch(address: Address, held: Path) -> None:
    """Writes the file under a temporary name first."""
    for number in range(TRIES):
        part = held.with_name(f".{held.name}.{os.getpid()}.part")
        try:
            with _told(address.url):
                fs, key = _store(address.url)
                with fs.open(key, "rb") as source, part.open("wb") as target:
                    shutil.copyfileobj(_Bounded(source, address), target, BLOCK)
            _check(address, part)
            part.replace(held)
            return
        except OSError:
            part.unlink(missing_ok=True)
            if number == TRIES - 1:
                raise
            time.sleep(PAUSE * 2**number)


class _Bounded:
    """No more than the store said there is."""

    def __init__(self, source, address: Address) -> None:
        self.source, self.left, self.address = source, address.size, address

    def read(self, count: int) -> bytes:
        data = self.source.read(count)
        self.left -= len(data)
        if self.left < 0:
            raise OSError(f"{self.address.url} has more than the {self.address.size} bytes told")
        return data


def _check(address: Address, part: Path) -> None:
    if part.stat().st_size != address.size:
        size = part.stat().st_size
        raise OSError(f"{address.url} was cut off: {size} of {address.size} bytes came")
    if address.md5 and _digest(part, "md5") != address.md5:
        raise OSError(f"{address.url} came with other bytes than its store has")


def _digest(path: Path, kind: str = "sha256") -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def _evict(folder: Path, keep: Path) -> None:
    """Deletes what was used least recently until the rest fits; nothing that somebody reads."""
    limit, seen = _limit(), []
    for path in folder.iterdir():
        if files.is_video(path) and not path.name.startswith("."):
            try:
                seen.append((path.stat().st_mtime, path.stat().st_size, path))
            except FileNotFoundError:  # another process was here
                continue
    total = sum(size for _, size, _ in seen)
    for _, size, path in sorted(seen):
        if total <= limit:
            return
        if path == keep:
            continue
        with path.with_suffix(".lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            path.with_suffix(".sha256").unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            total -= size


def _limit() -> float:
    """Bytes of fetched videos. Raises ValueError for what is no such number."""
    given = os.environ.get("FETCHED_GB", GIGABYTES)
    try:
        limit = float(given)
    except ValueError:
        limit = math.nan
    if not limit >= 0:
        raise ValueError(f"expected FETCHED_GB, gigabytes of fetched videos, given {given!r}")
    return 1e9 * limit


def _store(address: str):
    """What fsspec opens the address with, and its name there."""
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise ValueError("fsspec is not installed: pip install 'co3d[cluster]'") from None
    return url_to_fs(address)


@contextmanager
def _told(address: str) -> Iterator[None]:
    """Errors of stores, which have many kinds, as ours."""
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(f"there is nothing at {address}") from None
    except (ImportError, ValueError) as error:  # what fsspec says of schemes
        raise ValueError(f"{address} cannot be read: {error}") from None
    except Exception as error:
        raise OSError(f"{address} cannot be read: {type(error).__name__}: {error}") from error

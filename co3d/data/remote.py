"""Data sets that lie at an address, such as s3://bucket/kinetics400, read through fsspec.

Annotations are copied into a temporary folder, where an empty file stands for each video, and the
loaders of folders read that. A video itself is fetched when it is decoded, into fsspec's cache of
whole files, of which the least recently used go first. Whoever may read the address is up to fsspec
(https://filesystem-spec.readthedocs.io), which takes its credentials from the environment.
"""

import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath

from .. import paths
from .dataset import Address, Dataset, is_video

TEXTS = (".csv", ".json", ".txt")  # copied when a set is opened
GIGABYTES = "20"  # of fetched videos on a machine, unless FETCHED_GB says otherwise
TRIES, PAUSE = 3, 2.0  # seconds before the second try, twice as many before the third


def is_address(place: str | Path | None) -> bool:
    """Whether it has the form scheme://... that no path has."""
    return isinstance(place, str) and "://" in place


def opened(address: str, load: Callable[[Path], Dataset]) -> Dataset:
    """The data set at an address, by a function that loads it from a folder.

    Folders of JPEG frames are passed over: a set at an address is one of video files.

    Raises:
        FileNotFoundError: if there is nothing.
        ValueError: if fsspec or what it needs for this scheme is not installed, and whatever
            `load` raises.
        OSError: if the store cannot be read.
    """
    _limit()  # refused before any work
    with tempfile.TemporaryDirectory() as temporary:
        with _errors_of(address):
            folder, addresses = _mirrored(address, Path(temporary))
        data = load(folder)
    videos = tuple(replace(video, path=addresses.get(video.path)) for video in data.videos)
    return replace(data, videos=videos, places=())


def _mirrored(address: str, temporary: Path) -> tuple[Path, dict[Path, Address]]:
    """A folder with the annotations and an empty file for each video, and what these stand for."""
    from fsspec.core import url_to_fs

    fs, root = url_to_fs(address)
    scheme, addresses = address.partition("://")[0], {}
    folder = temporary / (PurePosixPath(root).name or "set")
    for key, info in fs.find(root, detail=True).items():
        path = folder / PurePosixPath(key).relative_to(root)
        if ".." in path.parts:
            raise ValueError(f"expected names below the address, given {key!r}")
        if not is_video(path) and path.suffix not in TEXTS:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if is_video(path):
            path.touch()
            url = f"{scheme}://{key.removeprefix(f'{scheme}://')}"
            addresses[path] = Address(url, int(info["size"]))
        else:
            fs.get_file(key, str(path))
    if not folder.is_dir():
        raise FileNotFoundError("no videos and no annotation")
    return folder, addresses


@contextmanager
def local(path: Path | Address) -> Iterator[Path]:
    """A file that can be opened, for as long as the context lasts; fetched if it lies elsewhere.

    Raises:
        OSError: if it cannot be fetched, or has another size than the store said.
    """
    if isinstance(path, Path):
        yield path
        return
    folder = paths.cache_path() / "fetched"
    for number in range(1, TRIES + 1):
        try:
            with _errors_of(path.url):
                from fsspec.core import url_to_fs

                options = {"cache_storage": str(folder), "check_files": True}
                fs, key = url_to_fs(f"filecache::{path.url}", filecache=options)
                file = fs.open(key, "rb")
            break
        except OSError:
            if number == TRIES:
                raise
            time.sleep(PAUSE * 2 ** (number - 1))
    with file:
        copy = Path(file.name)
        if (size := copy.stat().st_size) != path.size:
            copy.unlink()
            raise OSError(f"{path.url} came with {size} instead of {path.size} bytes")
        os.utime(copy)
        _evict(folder, keep=copy)
        yield copy


def _evict(folder: Path, keep: Path) -> None:
    """Deletes what was used least recently until the rest fits."""
    left, files = _limit() - keep.stat().st_size, []
    for path in set(folder.iterdir()) - {keep, folder / "cache"}:  # the latter is fsspec's list
        with suppress(FileNotFoundError):  # another process was here
            files.append((path.stat().st_mtime, path.stat().st_size, path))
    for _, size, path in sorted(files, reverse=True):  # the latest first
        left -= size
        if left < 0:
            path.unlink(missing_ok=True)


def _limit() -> float:
    """Bytes of fetched videos. Raises ValueError for what is no such number."""
    given = os.environ.get("FETCHED_GB", GIGABYTES)
    if not re.fullmatch(r"\d+(\.\d*)?", given, re.ASCII):
        raise ValueError(f"expected FETCHED_GB, gigabytes of fetched videos, given {given!r}")
    return 1e9 * float(given)


@contextmanager
def _errors_of(address: str) -> Iterator[None]:
    """Errors of stores, which have many kinds, as ours."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is nothing at {address} ({error})") from None
    except (ImportError, ValueError) as error:  # also of schemes that fsspec does not know
        needs = "; fsspec comes with co3d[cluster]" if isinstance(error, ImportError) else ""
        raise ValueError(f"{address} cannot be read: {error}{needs}") from None
    except Exception as error:
        raise OSError(f"{address} cannot be read: {type(error).__name__}: {error}") from error

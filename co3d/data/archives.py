"""Archives of others, unpacked into a folder of their own: plain files only, and within bounds."""

import gzip
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

RATIO, SLACK = 50, 2**20  # bytes that come out for each packed one, and beside that, at most
MEMBERS = 12_000_000  # files and folders, at most: Charades has 7.3 million frames
DAMAGE = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError,
          RuntimeError, ValueError, OverflowError)  # fmt: skip
# Name, bytes, whether it is a plain file or folder, and what opens a file.
Member = tuple[str, int, bool, Callable[[], IO[bytes]] | None]


class RefusedError(ValueError):
    """An archive that holds what it must not hold."""


def unpack(
    archive: Path, folder: Path, place: Callable[[PurePosixPath], PurePosixPath | None]
) -> None:
    """Unpacks files of a tar, tar.gz or zip file, told by its content, into a folder.

    `place` tells where a file goes, by its path in the archive; None leaves it out.

    Raises:
        ValueError: if the archive is damaged, cut off or out of bounds, or holds links, devices,
            absolute names or `..`.
    """
    most, total = RATIO * archive.stat().st_size + SLACK, 0
    try:
        for count, (name, size, plain, opened) in enumerate(_members(archive), 1):
            path = PurePosixPath(name)
            total += max(0, size)
            if path.is_absolute() or ".." in path.parts or not plain:
                raise RefusedError(f"holds {name!r}, which could lead elsewhere: refused")
            if count > MEMBERS:
                raise RefusedError(f"has more than {MEMBERS:,} members: refused")
            if total > most:
                raise RefusedError(f"unpacks to more than {most:,} bytes: refused")
            if opened and (target := place(path)):
                (folder / target).parent.mkdir(parents=True, exist_ok=True)
                with opened() as source, (folder / target).open("wb") as file:
                    shutil.copyfileobj(source, file)
    except RefusedError as error:
        raise ValueError(f"{archive.name} {error}") from None
    except DAMAGE as error:
        raise ValueError(f"{archive.name} is damaged or cut off ({error})") from error


def _members(archive: Path) -> Iterator[Member]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for info in packed.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)
                plain = kind in (0, stat.S_IFREG, stat.S_IFDIR)
                opened = None if info.is_dir() else partial(packed.open, info)
                yield info.orig_filename, info.file_size, plain, opened
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as packed:
            while (info := packed.next()) is not None:
                opened = partial(packed.extractfile, info) if info.isreg() else None
                yield info.name, info.size, info.isreg() or info.isdir(), opened
                packed.members.clear()  # a tar file of frames has millions
            _check_end(packed)
    else:
        with archive.open("rb") as file:
            raise RefusedError(f"is no whole tar or zip file: it begins with {file.read(20)!r}")


def _check_end(packed: tarfile.TarFile) -> None:
    """Refuses what tarfile takes for an end. The checksum of a tar.gz comes behind all the rest."""
    whole = packed.fileobj.tell() == packed.offset + tarfile.BLOCKSIZE
    rest = packed.fileobj.read(SLACK)
    if not whole or rest.strip(b"\0") or packed.fileobj.read(1):
        raise EOFError("its end is missing")

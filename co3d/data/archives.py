"""Archives of others, unpacked into a folder of their own: plain files only, and within bounds."""

import gzip
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

SLACK = 2**20  # bytes that any archive may unpack to: an empty tar file packs 100 times smaller
DAMAGE = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError,
          RuntimeError, ValueError, OverflowError)  # fmt: skip


class Member(NamedTuple):
    """A file or folder in an archive; `extract` writes a file under another name in a folder."""

    name: str
    size: int
    plain: bool  # neither link nor device
    folder: bool
    extract: Callable[[str, Path], None]


class RefusedError(ValueError):
    """An archive that holds what it must not hold."""


def unpack(
    archive: Path,
    folder: Path,
    place: Callable[[PurePosixPath], PurePosixPath | None],
    *,
    ratio: float,
    members: int,
) -> None:
    """Unpacks files of a tar, tar.gz or zip file, told by its content, into a new folder.

    Args:
        place: where a file goes, by its path in the archive; None leaves it out.
        ratio: unpacked bytes for each packed one, at most.
        members: files and folders, at most.

    Raises:
        ValueError: if the archive is damaged, cut off or out of bounds, or holds links, devices,
            absolute names or `..`.
    """
    most, total = int(ratio * archive.stat().st_size) + SLACK, 0
    try:
        for count, member in enumerate(_members(archive), 1):
            path = PurePosixPath(member.name)
            total += max(0, member.size)
            if path.is_absolute() or ".." in path.parts or not member.plain:
                raise RefusedError(f"holds {member.name!r}, which could lead elsewhere: refused")
            if count > members:
                raise RefusedError(f"has more than {members:,} members: refused")
            if total > most:
                raise RefusedError(f"unpacks to more than {most:,} bytes: refused")
            if not member.folder and (target := place(path)):
                member.extract(str(target), folder)
    except RefusedError as error:
        raise ValueError(f"{archive.name} {error}") from None
    except DAMAGE as error:
        raise ValueError(f"{archive.name} is damaged or cut off ({error})") from error


def _members(archive: Path) -> Iterator[Member]:
    if zipfile.is_zipfile(archive):
        return _zip_members(archive)
    if tarfile.is_tarfile(archive):
        return _tar_members(archive)
    with archive.open("rb") as file:
        raise RefusedError(f"is no whole tar or zip file: it begins with {file.read(20)!r}")


def _zip_members(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as packed:
        for info in packed.infolist():

            def extract(name: str, folder: Path, info: zipfile.ZipInfo = info) -> None:
                info.filename = name
                packed.extract(info, folder)

            kind = stat.S_IFMT(info.external_attr >> 16)
            plain = kind in (0, stat.S_IFREG, stat.S_IFDIR)
            yield Member(info.orig_filename, info.file_size, plain, info.is_dir(), extract)


def _tar_members(archive: Path) -> Iterator[Member]:
    with tarfile.open(archive) as packed:
        while (info := packed.next()) is not None:

            def extract(name: str, folder: Path, info: tarfile.TarInfo = info) -> None:
                packed.extract(info.replace(name=name, deep=False), folder, filter="data")

            plain = info.isreg() or info.isdir()
            yield Member(info.name, info.size, plain, info.isdir(), extract)
            packed.members.clear()  # a tar file of frames has millions
        _check_end(packed)


def _check_end(packed: tarfile.TarFile) -> None:
    """Refuses what tarfile takes for an end. The checksum of a tar.gz comes behind all the rest."""
    whole = packed.fileobj.tell() == packed.offset + tarfile.BLOCKSIZE
    rest = packed.fileobj.read(SLACK)
    if not whole or rest.strip(b"\0") or packed.fileobj.read(1):
        raise EOFError("its end is missing")

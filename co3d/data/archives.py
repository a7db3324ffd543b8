"""Archives of others unpacked: plain files only, inside one folder, never over what is there.

A tar, tar.gz or zip file may come from anyone: names that lead elsewhere, links, devices and more
than was agreed on are refused; memory does not grow with sizes that an archive only claims.
"""

import gzip
import os
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BufferedReader, FileIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

from tqdm import tqdm

BLOCK = 2**20
HEADER = 2**16  # bytes of all the headers of one tar member; common ones have 512 to 2,048
DIRECTORY = 2**23  # bytes of the directory of a zip file; that of 10,000 videos has 1 MB
SLACK = 2**20  # bytes that any archive may unpack to: an empty tar file packs 100 times smaller
SPARE = 2**28  # bytes of the disk that stay free
PART = ".co3d-extract.part"  # the file at work, in the folder of its target

_NAME, _COMPONENT, _DEPTH = 1024, 240, 16  # characters, bytes, folders
_UNSAFE = re.compile(r"[\\:\x00-\x1f\x7f]")  # also Windows' drives, folders and streams
_DAMAGE = (
    *(tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, struct.error),
    *(ValueError, LookupError, ArithmeticError, RuntimeError),
)


class RefusedError(Exception):
    """What is wrong with an archive, to be told behind its name."""


@dataclass(frozen=True)
class Limits:
    """What an archive may hold, beyond which it is refused."""

    members: int = 100_000  # folders and unwanted files included; each takes 70 bytes of memory
    ratio: float = 20  # unpacked bytes for each packed one, beyond the first SLACK


@dataclass
class Extracted:
    """What the folder has of an archive."""

    written: int = 0  # files
    there: int = 0  # files that were there before, of the same size
    others: int = 0  # files that were there before with another size, and were left alone
    examples: list[str] = field(default_factory=list)  # the first few of `others`


class _Member(NamedTuple):
    name: str
    size: int
    open: Callable[[], BinaryIO] | None = None  # None: a folder


def extract(
    archive: Path,
    folder: Path,
    *,
    place: Callable[[tuple[str, ...]], tuple[str, ...] | None] = lambda parts: parts,
    limits: Limits = Limits(),
    each: Callable[[str], None] = lambda name: None,
) -> Extracted:
    """Unpacks a tar, tar.gz or zip file, told by its content, into a folder.

    Each file is written under another name, then renamed: what bears its name is whole. A file
    that is there already is left as it is, so that a second run goes on where one was stopped.

    Args:
        place: where a member goes, given and returned as the components of its path; None
            leaves it out.
        each: is told the name, below `folder`, of every file of the archive that is there.

    Raises:
        ValueError: if the archive is cut off (whole files before that are kept), damaged or unsafe
            (then what a tar.gz gave now is removed: nothing tells where the damage begins).
        OSError: if the disk is too full; the archive may be unpacked again.
    """
    archive = Path(archive)
    unpacking = _Unpacking(Path(folder), place, each)
    try:
        with archive.open("rb") as file, _bar(archive) as bar:
            kind = _kind(file.read(BLOCK))
            file.seek(0)
            unpacking.revocable = kind == "tar.gz"
            most = int(limits.ratio * archive.stat().st_size) + SLACK
            for count, member in enumerate(_READERS[kind](file, most), 1):
                if count > limits.members:
                    raise RefusedError(f"has more than {limits.members:,} members: refused")
                unpacking.take(member)
                bar.update(max(0, file.tell() - bar.n))
    except EOFError:
        whole = unpacking.done.written + unpacking.done.there
        raise ValueError(f"{archive.name} is cut off behind {whole:,} whole files") from None
    except (RefusedError, *_DAMAGE) as error:
        unpacking.undo()
        refused = isinstance(error, RefusedError)
        told = str(error) if refused else f"is damaged ({_reason(error)})"
        raise ValueError(f"{archive.name} {told}") from (None if refused else error)
    return unpacking.done


class _Unpacking:
    """Files of one archive on their way into a folder."""

    def __init__(self, folder: Path, place: Callable, each: Callable):
        self.folder, self.place, self.each = folder, place, each
        self.done = Extracted()
        self.seen: set[int] = set()  # hashes: a tar file of frames has millions of names
        self.made: Path | None = None  # the last folder, as files mostly come folder by folder
        self.revocable = False
        self.written: list[Path] = []

    def take(self, member: _Member) -> None:
        parts = _parts(member.name)
        parts = self.place(parts) if member.open and parts else None
        if parts is None:
            return
        name = "/".join(parts)
        if hash(name) in self.seen:
            raise RefusedError(f"names {name!r} twice: refused")
        self.seen.add(hash(name))
        target = self.folder.joinpath(*parts)
        if not target.exists():
            self._write(member, target)
            self.done.written += 1
        elif not target.is_file():
            raise RefusedError(f"names a file {name!r}, but that is a folder here: refused")
        elif target.stat().st_size == member.size:
            self.done.there += 1
        else:
            self.done.others += 1
            self.done.examples += [name] if len(self.done.examples) < 3 else []
        self.each(name)

    def _write(self, member: _Member, target: Path) -> None:
        part = target.parent / PART
        self._make(target.parent)
        free = shutil.disk_usage(part.parent).free
        if member.size > free - SPARE:
            needs = f"needs {member.size:,} bytes, the disk has {free:,} free"
            raise OSError(f"{target.name} {needs}, of which {SPARE:,} are left alone")
        try:
            with member.open() as source, part.open("wb") as file:
                shutil.copyfileobj(source, file, BLOCK)
                size = file.tell()
            if size != member.size:
                raise RefusedError(f"has {size:,} of the {member.size:,} bytes of {target.name}")
            os.replace(part, target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        self.written += [target] if self.revocable else []

    def _make(self, folder: Path) -> None:
        if folder == self.made:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            place = folder.relative_to(self.folder)
            raise RefusedError(f"names a folder '{place}', but that is a file here") from None
        self.made = folder

    def undo(self) -> None:
        """Removes what was written, if that is revocable."""
        for path in self.written:
            path.unlink(missing_ok=True)


def _parts(name: str) -> tuple[str, ...]:
    """The components of a member's name, none for the top folder; refused if it leads elsewhere."""
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    shown = repr(name if len(name) < 80 else f"{name[:77]}...")
    if name.startswith("/") or ".." in parts or _UNSAFE.search(name) or PART in parts:
        raise RefusedError(f"has a member named {shown}, which could lead elsewhere: refused")
    try:
        longest = max((len(part.encode()) for part in parts), default=0)
    except UnicodeEncodeError:
        raise RefusedError(f"has a member named {shown}, which is not UTF-8: refused") from None
    if len(name) > _NAME or longest > _COMPONENT or len(parts) > _DEPTH:
        raise RefusedError(f"has a member with too long a name, {shown}: refused")
    return parts


def _kind(start: bytes) -> str:
    """Which archive begins so."""
    if start.startswith(b"\x1f\x8b"):
        return "tar.gz"
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if start[257:262] == b"ustar":
        return "tar"
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        raise RefusedError("is an HTML or XML page, not an archive")
    raise RefusedError("is no tar, tar.gz or zip file" if start else "is empty")


def _zip(file: BinaryIO, most: int) -> Iterator[_Member]:
    try:
        archive = zipfile.ZipFile(_Sparing(FileIO(file.fileno(), closefd=False)))
    except zipfile.BadZipFile as error:  # the directory is what comes last
        raise RefusedError(f"is cut off or damaged ({_reason(error)})") from None
    with archive:
        members = archive.infolist()
        if sum(member.file_size for member in members) > most:
            raise RefusedError(f"unpacks to more than {most:,} bytes: refused")
        for member in members:  # all of them before the first file is written
            _parts(member.orig_filename)
            _check_kind(member)
        for member in members:
            opened = None if member.is_dir() else lambda one=member: archive.open(one)
            yield _Member(member.orig_filename, member.file_size, opened)


def _check_kind(member: zipfile.ZipInfo) -> None:
    name, kind = member.orig_filename, stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise RefusedError(f"holds {name!r}, which is neither file nor folder: refused")
    if member.flag_bits & 1:
        raise RefusedError(f"holds {name!r} encrypted: refused")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise RefusedError(f"holds {name!r} packed in another way than deflate: refused")


class _Sparing(BufferedReader):
    """A file that is never read in one piece larger than a zip file's directory should be."""

    def read(self, size: int | None = -1, /) -> bytes:
        most = DIRECTORY + 1
        data = super().read(most if size is None or size < 0 else min(size, most))
        if len(data) == most:
            raise RefusedError(f"has a directory of more than {DIRECTORY:,} bytes: refused")
        return data


def _tar_gz(file: BinaryIO, most: int) -> Iterator[_Member]:
    with gzip.GzipFile(fileobj=file) as unpacked:
        yield from _tar(unpacked, most)


def _tar(file: BinaryIO, most: int) -> Iterator[_Member]:
    source = _Source(file, most)
    options = {"mode": "r|", "tarinfo": _Header, "encoding": "utf-8"}
    with tarfile.open(fileobj=source, **options) as archive:
        while (member := archive.next()) is not None:
            if not (member.isreg() or member.isdir()) or member.sparse:
                name = member.name
                raise RefusedError(f"holds {name!r}, which is neither file nor folder: refused")
            if not 0 <= member.size <= most:
                raise RefusedError(f"unpacks to more than {most:,} bytes: refused")
            source.left = HEADER + member.size
            opened = None if member.isdir() else lambda one=member: archive.extractfile(one)
            yield _Member(member.name, member.size, opened)
            archive.members.clear()  # else it keeps them all
            archive.pax_headers.clear()
    source.drain()


class _Header(tarfile.TarInfo):
    """A header that, unlike tarfile's, is never taken for the end because it is damaged."""

    __slots__ = ()

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> tarfile.TarInfo:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # the block of zeros at the end
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None


class _Source:
    """The bytes of a tar file as tarfile reads them: so many, and an error where they end."""

    def __init__(self, file: BinaryIO, most: int):
        self.file, self.most = file, most
        self.came = 0
        self.left = HEADER  # bytes until the end of the next header

    def read(self, size: int) -> bytes:
        if not (block := self._read(size)):
            raise EOFError
        self.left -= len(block)
        if self.left < 0:
            raise RefusedError(f"has a header of more than {HEADER:,} bytes: refused")
        return block

    def drain(self) -> None:
        """Reads what comes behind the end: only there gzip has its checksum."""
        while self._read(BLOCK):
            pass

    def _read(self, size: int) -> bytes:
        block = self.file.read(size)
        self.came += len(block)
        if self.came > self.most:
            raise RefusedError(f"unpacks to more than {self.most:,} bytes: refused")
        return block


def _bar(archive: Path) -> tqdm:
    """Packed bytes, in a terminal only."""
    scale = {"unit": "B", "unit_scale": True, "unit_divisor": 1024}
    return tqdm(desc=archive.name, total=archive.stat().st_size, disable=None, **scale)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


_READERS = {"zip": _zip, "tar": _tar, "tar.gz": _tar_gz}

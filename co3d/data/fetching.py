"""Published files brought into the folder of a data set: there they are whole, or not at all.

Each archive is fetched, unpacked and deleted before the next one; `.download` in that folder
records what came out of it, so that a stopped command goes on and a finished one fetches nothing,
unless files are gone.
"""

import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from .. import web
from ..progress import bar
from . import archives

Answer = tuple[str, int | None | Exception]  # an address, and its bytes or why it has none


@dataclass(frozen=True)
class Published:
    """A published file: where it is, where it goes, and what it may be at most."""

    url: str  # behind the address of the set, unless it is a whole one
    into: str  # folder of the set
    largest: int  # bytes
    ratio: float = 2  # of an archive: unpacked bytes for each packed one
    members: int = 100_000  # of an archive
    suffixes: tuple[str, ...] = ()  # of the wanted members
    depth: int = 1  # how many components of a member's path are kept
    sha256: str = ""  # as others report; another one is told, not refused

    @property
    def name(self) -> str:
        """The last part of its address."""
        return self.url.rpartition("/")[2]

    def place(self, parts: tuple[str, ...]) -> tuple[str, ...] | None:
        """Where a member goes below `into`; None if it is not wanted."""
        name = parts[-1]
        wanted = name.lower().endswith(self.suffixes) and not name.startswith(".")
        return parts[-self.depth :] if wanted else None


@dataclass
class Job:
    """Files of one set on their way into its folder `root`."""

    root: Path
    base: str  # address that those of the files stand behind
    notice: str  # licence
    command: str  # that does it again
    tell: Callable[[str], None]
    agree: Callable[[str], None] | None  # None: agreed

    @property
    def work(self) -> Path:
        """The folder of what has not arrived yet."""
        return self.root / ".download"

    def url(self, file: Published) -> str:
        """The whole address of a file."""
        return file.url if "://" in file.url else f"{self.base}/{file.url}"

    def sizes(self, files: Sequence[Published]) -> Iterator[Answer]:
        """Asks for the bytes of each file; what fails is an answer too."""
        for file in files:
            try:
                yield self.url(file), web.size(self.url(file), cap=file.largest)
            except (ValueError, OSError) as error:
                yield self.url(file), error

    def fetch(self, file: Published, check: Callable[[Path], None]) -> Path:
        """A plain file, which `check` refuses with the end of a sentence."""
        target = self.root / file.into / file.name
        if target.is_file():
            return target
        self._agreed()
        self.work.mkdir(parents=True, exist_ok=True)
        came = self.work / f"{file.name}.new"
        digest = self._receive(file, came)
        try:
            check(came)
        except ValueError as error:
            came.unlink()
            raise ValueError(f"{self.url(file)} {error}") from None
        if file.sha256 not in ("", digest):
            self.tell(f"{target.name} has sha256 {digest}, not {file.sha256} as others report")
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(came, target)
        return target

    def fetch_archives(self, files: Sequence[Published]) -> None:
        """Archives and their files, one after the other; where one fails the others still come."""
        left = self._left(files)
        if not left:
            return
        self._agreed()
        self._check_room(left)
        failed = []
        for file in left:
            try:
                self._bring(file)
            except web.UnreachableError:
                raise
            except (ValueError, ConnectionError) as error:
                if len(left) == 1:
                    raise
                failed.append(file.name)
                self.tell(str(error))
        if failed:
            raise ConnectionError(
                f"{len(failed)} of {len(left)} archives failed ({', '.join(failed[:5])}): run "
                f"`{self.command}` again"
            )

    def names(self, file: Published) -> list[str]:
        """What lay in the top folder of an archive that was fetched."""
        return list(json.loads(self._record(file).read_text("utf-8"))["files"])

    def _agreed(self) -> None:
        """Shows the licence once, before anything is fetched."""
        if self.agree:
            self.agree(self.notice)
            self.agree = None

    def _left(self, files: Sequence[Published]) -> list[Published]:
        """Archives of which no record tells that their files are there."""
        flat = dict.fromkeys(file.into for file in files if file.depth == 1)
        names = {into: _names(self.root / into) for into in flat}
        left = []
        for file in files:
            gone = self._gone(file, names)
            if gone:
                self.tell(f"{gone:,} files of {file.name} are gone: it is fetched again")
            if gone == 0:  # killed between the record and this
                self._archive(file).unlink(missing_ok=True)
            else:
                left.append(file)
        return left

    def _gone(self, file: Published, names: dict[str, set[str]]) -> int | None:
        """How many files of an archive are there no more; None where it never was finished."""
        try:
            counts = json.loads(self._record(file).read_text("utf-8"))["files"]
            if file.depth == 1:
                return sum(name not in names[file.into] for name in counts)
            folders = {name: self.root / file.into / name for name in counts}
            return sum(max(0, n - _count(folders[name])) for name, n in counts.items())
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def _archive(self, file: Published) -> Path:
        return self.work / file.into / file.name

    def _record(self, file: Published) -> Path:
        return self.work / file.into / f"{file.name}.json"

    def _check_room(self, files: Sequence[Published]) -> None:
        """Refuses what the disk cannot take: all the files, and beside them one archive."""
        need = largest = 0
        for file in bar(files, "sizes", shown=len(files) > 1):
            archive = self._archive(file)
            if archive.is_file():  # it may be unpacked already, in part
                continue
            try:
                size = web.size(self.url(file), cap=file.largest) or 0
            except web.UnreachableError as error:
                raise self._offline(error) from None
            except (ValueError, ConnectionError):  # told when it is fetched
                continue
            part = archive.with_name(f"{archive.name}.part")
            need += size - (part.stat().st_size if part.is_file() else 0)
            largest = max(largest, size)
        need += largest
        free = shutil.disk_usage(self.root).free
        if need + archives.SPARE > free:
            raise OSError(
                f"{len(files)} archives need {need:,} bytes with their files, {self.root} has "
                f"{free:,} free, of which {archives.SPARE:,} are left alone"
            )

    def _bring(self, file: Published) -> None:
        """An archive and its files, then the record, then the archive goes."""
        archive, counts = self._archive(file), Counter()
        archive.parent.mkdir(parents=True, exist_ok=True)
        if not archive.is_file():
            self._receive(file, archive)

        def count(name: str) -> None:
            counts[name if file.depth == 1 else name.rpartition("/")[0]] += 1

        limits = archives.Limits(file.members, file.ratio)
        try:
            done = archives.extract(
                archive, self.root / file.into, place=file.place, limits=limits, each=count
            )
            if not counts:
                raise ValueError(f"{file.name} holds no file {' or '.join(file.suffixes)}")
        except ValueError as error:
            archive.unlink()
            again = f"deleted, `{self.command}` fetches it again"
            raise ValueError(f"{error} (from {self.url(file)}; {again})") from None
        record = {"url": self.url(file), "bytes": archive.stat().st_size, "files": counts}
        record["date"] = datetime.now(UTC).strftime("%Y-%m-%d")
        new = self._record(file).with_name(f"{file.name}.json.part")
        new.write_text(json.dumps(record, indent=0) + "\n", "utf-8")
        os.replace(new, self._record(file))
        archive.unlink()
        self.tell(f"{file.name}: {counts.total():,} files in {self.root / file.into}")
        if done.others:
            self.tell(
                f"{done.others:,} of them were there with another size and were kept, such as "
                f"{', '.join(done.examples)}: delete them and run `{self.command}` to have others"
            )

    def _receive(self, file: Published, path: Path) -> str:
        """The sha256 of a file; goes on where it was cut off as long as something comes."""
        url, part = self.url(file), path.with_name(f"{path.name}.part")
        while True:
            came = part.stat().st_size if part.is_file() else 0
            try:
                digest = web.receive(url, part, cap=file.largest)
                break
            except KeyboardInterrupt:
                print(f"{part} keeps what came: run the command again", file=sys.stderr)
                raise
            except web.UnreachableError as error:
                raise self._offline(error) from None
            except ConnectionError:
                if not part.is_file() or part.stat().st_size <= came:
                    raise
        os.replace(part, path)
        web.forget(part)
        return digest

    def _offline(self, error: Exception) -> web.UnreachableError:
        return web.UnreachableError(f"{error}: run `{self.command}` where there is a network")


def _names(folder: Path) -> set[str]:
    """Names of all files, at any depth: a user may have sorted them into folders."""
    return {name for _, _, files in os.walk(folder) for name in files}


def _count(folder: Path) -> int:
    return len(os.listdir(folder)) if folder.is_dir() else 0

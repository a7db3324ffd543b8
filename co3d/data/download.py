"""Kinetics-400 and Charades from where they are published, into DATASETS_PATH.

Each archive is fetched, unpacked and deleted before the next one. The folder `.download` of a set
records what came out of it, so that a stopped command goes on and a finished one fetches nothing,
unless files are gone.
"""

import functools
import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from .. import files, web
from . import archives
from .dataset import home

BASES = {
    "kinetics400": "https://s3.amazonaws.com/kinetics/400",
    "charades": "https://ai2-public-datasets.s3-us-west-2.amazonaws.com/charades",
}
NOTICES = {
    "kinetics400": "Kinetics-400: the annotations are licensed CC BY 4.0; the videos belong to "
    "those who uploaded them.",
    "charades": "Charades is for non-commercial use only, and neither its videos nor its "
    "annotations may be passed on: prior.allenai.org/projects/data/charades/license.txt",
}
SPLITS = ("train", "val", "test")  # of Kinetics-400
FORMS = ("annotations", "videos", "frames")  # of Charades
# Of the annotation of Kinetics' val split, as others report; another one is printed, not refused.
VAL_SHA256 = "358eaf47e7f80ebf9b17d49eb0635ad5e0fdab98a9cbd75ffdd2ee5d5e5b6944"
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Archive:
    """A published archive, where its files go, and what it may hold."""

    url: str
    into: str  # folder of the set
    suffixes: tuple[str, ...]  # of the files that are wanted
    depth: int = 1  # how many components of a file's path are kept

    @property
    def name(self) -> str:
        """The last part of its address."""
        return self.url.rpartition("/")[2]

    def place(self, path: PurePosixPath) -> PurePosixPath | None:
        """Where a file of the archive goes below `into`; None if it is not wanted."""
        wanted = path.name.lower().endswith(self.suffixes) and not path.name.startswith(".")
        return PurePosixPath(*path.parts[-self.depth :]) if wanted else None


def fetch_kinetics(
    split: str = "val", parts: int | None = None, *, root: Path | None = None, tell: Tell = print
) -> Path:
    """Annotations and videos of a split of Kinetics-400; returns the root of the set.

    Args:
        parts: how many archives (val has 20 of 1.5 GB each), from the first; None: all.
        root: instead of DATASETS_PATH/kinetics400.
        tell: is given the licence before anything is fetched, then a line for each archive.

    Raises:
        ConnectionError: if nobody answers, or an archive or a table did not come whole.
        ValueError: for a split or number of parts that there is not, without DATASETS_PATH, or if
            a table is not what it should be.
        OSError: if the disk is too full.
    """
    root = home("kinetics400", root)
    agree = functools.cache(lambda: tell(NOTICES["kinetics400"]))
    with files.locked(root):
        wanted = kinetics_archives(split, parts, root, agree)
        table = root / "annotations" / f"{split}.csv"
        if not table.is_file():
            agree()
            _table(f"{BASES['kinetics400']}/annotations/{table.name}", table, b"youtube_id")
            digest = hashlib.sha256(table.read_bytes()).hexdigest()
            if split == "val" and digest != VAL_SHA256:
                tell(f"{table.name} has sha256 {digest}, not {VAL_SHA256} as others report")
        if split == "train":  # before the parts: what is there is never overwritten
            _fetch([_replacement()], root, agree, tell)
        _fetch(wanted, root, agree, tell)
    return root


def fetch_charades(
    form: str = "videos", *, agree: Tell, root: Path | None = None, tell: Tell = print
) -> Path:
    """Annotations of Charades and its videos; returns the root of the set.

    Args:
        form: annotations (alone, 3 MB), videos (13 GB) or frames (76 GB, and as much unpacked).
        agree: is given the licence before anything is fetched; it raises if that is not accepted.
        root: instead of DATASETS_PATH/charades.
        tell: is given a line for each archive.

    Raises:
        ConnectionError, ValueError, OSError: as `fetch_kinetics`.
    """
    root = home("charades", root)
    with files.locked(root):
        once = functools.cache(lambda: agree(NOTICES["charades"]))
        _fetch(charades_archives(form), root, once, tell)
    return root


def kinetics_urls(split: str, parts: int | None = None) -> list[str]:
    """Every address that `fetch_kinetics` reads, by the published list."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = kinetics_archives(split, parts, Path(folder))
    first = [_replacement()] if split == "train" else []
    table = f"{BASES['kinetics400']}/annotations/{split}.csv"
    return [table, *(archive.url for archive in [*first, *wanted])]


def kinetics_archives(
    split: str, parts: int | None, root: Path, agree: Callable[[], None] = lambda: None
) -> list[Archive]:
    """The first `parts` archives of a split, by the published list, fetched into `root`."""
    if split not in SPLITS:
        raise ValueError(f"expected a split of {', '.join(SPLITS)}, given {split!r}")
    table = root / ".download" / f"k400_{split}_path.txt"
    if not table.is_file():
        agree()
        _table(f"{BASES['kinetics400']}/{split}/{table.name}", table, b".tar.gz")
    urls = table.read_text("utf-8").split()
    if parts is not None and not 1 <= parts <= len(urls):
        raise ValueError(f"expected 1 to {len(urls)} parts of {split}, given {parts}")
    return [Archive(url, split, (".mp4",)) for url in urls[:parts]]


def charades_archives(form: str) -> list[Archive]:
    """The archives of a form of Charades; annotations belong to each."""
    if form not in FORMS:
        raise ValueError(f"expected a form of {', '.join(FORMS)}, given {form!r}")
    base = BASES["charades"]
    media = {
        "annotations": [],
        "videos": [Archive(f"{base}/Charades_v1_480.zip", "Charades_v1_480", (".mp4",))],
        "frames": [Archive(f"{base}/Charades_v1_rgb.tar", "Charades_v1_rgb", (".jpg",), depth=2)],
    }
    return [Archive(f"{base}/Charades.zip", "Charades", (".csv", ".txt")), *media[form]]


def unpacked(wanted: Sequence[Archive], root: Path) -> set[str]:
    """The names of all files that came out of these archives."""
    return {name for archive in wanted for name in _recorded(archive, root)}


def _replacement() -> Archive:
    """Training videos in place of damaged ones."""
    url = f"{BASES['kinetics400']}/replacement_for_corrupted_k400.tgz"
    return Archive(url, "train", (".mp4",))


def _table(url: str, path: Path, word: bytes) -> None:
    """Fetches a table; refuses pages and messages, whose first line lacks a word of it."""

    def check(part: Path) -> None:
        with part.open("rb") as file:
            line = file.readline(1000)
        if word not in line:
            raise ValueError(f"{path.name} has no {word.decode()} in its first line: {line[:40]!r}")

    web.download(url, path, check=check)


def _fetch(wanted: Sequence[Archive], root: Path, agree: Callable[[], None], tell: Tell) -> None:
    """Archives and their files, one after the other; where one fails the others still come."""
    present, left = functools.cache(_present), []
    for archive in wanted:
        counts = _recorded(archive, root)
        gone = (counts - present(root / archive.into, archive.depth)).total()
        if gone:
            tell(f"{gone:,} files of {archive.name} are gone: it is fetched again")
        if gone or not counts:
            left.append(archive)
        else:
            _packed(archive, root).unlink(missing_ok=True)  # killed after the record
    if left:
        agree()
    failed = []
    for archive in left:
        try:
            _bring(archive, root, tell)
        except web.UnreachableError:
            raise
        except (ValueError, ConnectionError) as error:
            failed.append(archive.name)
            tell(str(error))
    if failed:
        names = ", ".join(failed[:5])
        raise ConnectionError(
            f"{len(failed)} of {len(left)} archives failed ({names}): run the command again"
        )


def _bring(archive: Archive, root: Path, tell: Tell) -> None:
    """An archive and its files, then the record, then the archive goes."""
    packed, folder = _packed(archive, root), _packed(archive, root, ".files")
    target = root / archive.into
    if not packed.is_file():
        web.download(archive.url, packed)
    shutil.rmtree(folder, ignore_errors=True)  # of a command that was killed
    try:
        archives.unpack(packed, folder, archive.place)
        counts = _present(folder, archive.depth)
        if not counts:
            raise ValueError(f"{archive.name} holds no file {' or '.join(archive.suffixes)}")
    except ValueError as error:
        packed.unlink()
        shutil.rmtree(folder, ignore_errors=True)
        raise ValueError(f"{error} (from {archive.url}; deleted)") from None
    _move(folder, target)
    record = {"url": archive.url, "files": counts, "date": f"{datetime.now(UTC):%Y-%m-%d}"}
    files.write(_packed(archive, root, ".json"), json.dumps(record, indent=0) + "\n")
    packed.unlink()
    tell(f"{archive.name}: {counts.total():,} files in {target}")


def _move(folder: Path, target: Path) -> None:
    """Moves files into place; what is there stays."""
    for parent, _, names in os.walk(folder):
        place = target / Path(parent).relative_to(folder)
        place.mkdir(parents=True, exist_ok=True)
        for name in names:
            if not (place / name).exists():
                Path(parent, name).replace(place / name)
    shutil.rmtree(folder)


def _present(folder: Path, depth: int) -> Counter:
    """Files by name, at any depth, as users sort them into folders; of frames: their folders."""
    counts = Counter()
    for parent, _, names in os.walk(folder):
        if depth == 1:
            counts.update(names)
        elif names:
            counts[os.path.basename(parent)] = len(names)
    return counts


def _recorded(archive: Archive, root: Path) -> Counter:
    """What the record of an archive lists; empty where there is none."""
    try:
        return Counter(json.loads(_packed(archive, root, ".json").read_text("utf-8"))["files"])
    except (OSError, ValueError, TypeError, KeyError):
        return Counter()


def _packed(archive: Archive, root: Path, suffix: str = "") -> Path:
    return root / ".download" / archive.into / f"{archive.name}{suffix}"

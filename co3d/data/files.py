"""Annotation files and folders of videos as others left them: found, read, and not trusted."""

import csv
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from .dataset import Video

EXTENSIONS = (".mp4", ".mkv", ".webm", ".avi")
SPELLINGS = {
    "train": ("train", "videos_train"),
    "val": ("val", "validate", "validation", "videos_val"),
    "test": ("test", "videos_test"),
}
ID = re.compile(r"[\w-]{1,64}", re.ASCII)  # of a video at its source
MAX_BYTES = 2**29  # of an annotation; the longest real one, a list of frames, has 0.3 GB


def split_name(split: str) -> str:
    """train, val or test for any of their SPELLINGS; ValueError for another word."""
    for name, spellings in SPELLINGS.items():
        if split in spellings:
            return name
    words = ", ".join(spelling for names in SPELLINGS.values() for spelling in names)
    raise ValueError(f"expected a split ({words}), given {split!r}")


@contextmanager
def reading(path: Path) -> Iterator[TextIO]:
    """An annotation as text in UTF-8, with or without a byte order mark.

    Raises ValueError with the file's name for another encoding, broken CSV, and above MAX_BYTES.
    """
    if (size := path.stat().st_size) > MAX_BYTES:
        raise ValueError(f"{path}: expected an annotation below {MAX_BYTES} bytes, given {size}.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield file
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: is no text or CSV file in UTF-8 ({error}).") from error


def table(
    path: Path, columns: Sequence[str], delimiter: str = ",", optional: int = 0
) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a CSV file with a header, each with its place ("val.csv, line 3") for errors.

    A row must have as many fields as the header, or up to `optional` fewer, which become "": an
    unclosed quote would else swallow rows unseen. Raises ValueError as `reading`, without one of
    the `columns`, and for such a row.
    """
    with reading(path) as file:
        reader = csv.reader(file, delimiter=delimiter)
        header = next(reader, [])
        if not set(columns) <= set(header):
            raise ValueError(
                f"{path}: expected a first line with the columns {', '.join(columns)}, "
                f"given {shown(delimiter.join(header))}"
            )
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if not row:
                continue
            if not len(header) - optional <= len(row) <= len(header):
                raise ValueError(
                    f"{where}: expected {len(header)} fields as in the first line, given "
                    f"{len(row)}; check the quotes in {shown(delimiter.join(row))}"
                )
            yield where, dict(zip(header, row + [""] * optional, strict=False))


def shown(text: object) -> str:
    """What a message quotes of a file: short, and without control characters."""
    text = repr(text)
    return text if len(text) <= 100 else f"{text[:100]}..."


def checked_id(text: str, where: str) -> str:
    """The id of a video as its source gave it; ValueError for what could be no part of a name."""
    if not ID.fullmatch(text):
        raise ValueError(
            f"{where}: expected an id of letters, digits, _ and -, given {shown(text)}; "
            "correct or remove the row."
        )
    return text


def planned(table: Path, videos: Iterable[tuple[str, Video]]) -> tuple[Video, ...]:
    """The videos, given with their places, in order; a row that is there twice counts once.

    Raises ValueError for an id with two meanings, and where there is no video at all.
    """
    found: dict[str, Video] = {}
    for where, video in videos:
        if found.setdefault(video.id, video) != video:
            raise ValueError(
                f"{where}: {shown(video.id)} was there before with other classes or another file; "
                "leave only one of its rows."
            )
    if not found:
        raise ValueError(f"{table}: expected at least one video of this split, given none.")
    return tuple(found.values())


def walk(folder: Path) -> Iterator[Path]:
    """All files in a folder, sorted; hidden ones, AppleDouble's `._name.mp4` too, are none.

    Links are followed, but none back to where we were. Raises OSError for unreadable folders.
    """
    seen = set()
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=_refuse):
        place = os.stat(parent)
        if (place.st_dev, place.st_ino) in seen:
            folders.clear()
            continue
        seen.add((place.st_dev, place.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(names) if not name.startswith("."))


def is_video(path: Path) -> bool:
    """Whether the extension is one of `EXTENSIONS`."""
    return path.suffix.lower() in EXTENSIONS


def index(folders: Iterable[Path]) -> dict[str, Path]:
    """Video files by name without extension; of two the first."""
    found: dict[str, Path] = {}
    for folder in folders:
        for path in filter(is_video, walk(folder)):
            found.setdefault(path.stem, path)
    return found


def _refuse(error: OSError) -> None:
    raise error

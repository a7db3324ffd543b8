"""What every data set is in the end, planned videos in a fixed order; and what reads them all."""

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Self, TypeVar

from .. import paths

EXTENSIONS = (".mp4", ".mkv", ".webm", ".avi")
SPELLINGS = {
    "train": ("train", "videos_train"),
    "val": ("val", "validate", "validation", "videos_val"),
    "test": ("test", "videos_test"),
}
Row = TypeVar("Row")


@dataclass(frozen=True)
class Address:
    """Where a file lies that is not on this machine, as fsspec reads it, and its size in bytes."""

    url: str
    size: int


@dataclass(frozen=True)
class Video:
    """A video that is planned, found or not.

    Attributes:
        id: unique within the split: the file's stem for Kinetics
            ("-3B32lodo2M_000059_000069"), the video's id for Charades.
        label: raw name of its class; "" where the annotation names none, or several.
        class_id: of that class; None likewise.
        path: a video file, or a folder of JPEG frames; where it lies elsewhere, its address; None
            where it is missing.
        class_ids: all classes, sorted and distinct (one for Kinetics).
        frames_fps: rate of a folder of JPEG frames (Charades: 24 per second).
        actions: (class id, start s, end s) of Charades as given, reversed ones and ends past the
            length of the video included.
    """

    id: str
    label: str
    class_id: int | None
    path: Path | Address | None
    class_ids: tuple[int, ...] = ()
    frames_fps: float | None = None
    actions: tuple[tuple[int, float, float], ...] = ()


@dataclass(frozen=True)
class Dataset:
    """All planned videos of one split, in the order of the annotation.

    Attributes:
        labels: names of the classes by id.
        multilabel: whether a video may have no class, or several.
        places: the folders in which the videos lie.
    """

    name: str
    split: str
    labels: tuple[str, ...]
    videos: tuple[Video, ...]
    multilabel: bool = False
    places: tuple[Path, ...] = ()

    def first(self, limit: int | None) -> Self:
        """The same with the first `limit` videos only; None keeps all."""
        return replace(self, videos=self.videos[:limit])


def split_name(split: str, spellings: Mapping[str, tuple[str, ...]] = SPELLINGS) -> str:
    """train, val or test for any of their spellings; ValueError for another word."""
    for name, accepted in spellings.items():
        if split in accepted:
            return name
    words = ", ".join(word for accepted in spellings.values() for word in accepted)
    raise ValueError(f"expected a split ({words}), given {split!r}")


def home(name: str, root: str | Path | None = None) -> Path:
    """The folder of a real set: the given one, or that of its name under DATASETS_PATH.

    Raises FileNotFoundError with what to do where neither is set.
    """
    base = paths.datasets_path()
    if root is None and base is None:
        raise FileNotFoundError(
            f"{name} is looked for in the folder DATASETS_PATH, which is not set: set it in the "
            "environment or in .env (see .env.example), or give the folder of the set"
        )
    return Path(root or base / name)


def first_file(root: Path, places: Iterable[str], names: Iterable[str]) -> Path | None:
    """The first file that is there, of these names in these folders; the order of names counts."""
    files = (root / place / name for name, place in product(names, places))
    return next((file for file in files if file.is_file()), None)


def read_table(
    path: Path, columns: Sequence[str], delimiter: str = ",", optional: int = 0
) -> Iterator[dict[str, str]]:
    """The rows of a table in UTF-8 with a header; the last `optional` fields may be left out.

    Raises ValueError without one of the columns, and for a row of another length: an open quote
    would else swallow rows unseen.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, delimiter=delimiter)
        try:
            header = next(reader, [])
            if not set(columns) <= set(header):
                raise ValueError(
                    f"{path}: expected a first line with the columns {', '.join(columns)}, given "
                    f"{delimiter.join(header)[:200]!r}"
                )
            for row in filter(None, reader):
                if not len(header) - optional <= len(row) <= len(header):
                    raise ValueError(
                        f"{path}, line {reader.line_num}: expected {len(header)} fields as in the "
                        f"first line, given {len(row)}; check the quotes"
                    )
                yield dict(zip(header, row, strict=False))
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: is no table in UTF-8 ({error})") from None


def planned(table: Path, rows: Iterable[Row], make: Callable[[Row], Video]) -> tuple[Video, ...]:
    """The videos that `make` reads from rows, in order; a row that is there twice counts once.

    Raises ValueError with the number of the row that `make` refuses, or that gives an id a second
    meaning; and where there is no row at all.
    """
    videos: dict[str, Video] = {}
    for number, row in enumerate(rows, 1):
        try:
            video = make(row)
            if videos.setdefault(video.id, video) != video:
                raise ValueError(f"{video.id!r} was there before with other classes or a file")
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError(f"{table}, row {number}: {str(error)[:300]}") from None
    if not videos:
        raise ValueError(f"{table}: expected at least one video of this split, given none")
    return tuple(videos.values())


def walk(folder: Path) -> Iterator[Path]:
    """All files in a folder, sorted; hidden ones, AppleDouble's `._name.mp4` too, are none.

    Links are followed, but none back to where we were. Raises OSError for unreadable folders.
    """

    def refuse(error: OSError) -> None:
        raise error

    seen = set()
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        place = os.path.realpath(parent)
        if place in seen:
            folders.clear()
            continue
        seen.add(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(names) if not name.startswith("."))


def is_video(path: Path) -> bool:
    """Whether the extension is one of `EXTENSIONS`."""
    return path.suffix.lower() in EXTENSIONS


def index(folders: Iterable[Path]) -> dict[str, Path]:
    """Video files by name without extension; of two the first."""
    files: dict[str, Path] = {}
    for folder in folders:
        for path in filter(is_video, walk(folder)):
            files.setdefault(path.stem, path)
    return files

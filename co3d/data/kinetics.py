"""Kinetics-400 as it is distributed: one annotation CSV per split and a folder of clips.

Class ids come from a label list (Kinetics-400: code-point order of the raw names), never from
the order of folders: stripped parentheses or a locale's sorting would silently permute classes.
"""

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TextIO

KINETICS400_LABELS: tuple[str, ...] = tuple(
    resources.files(__package__).joinpath("kinetics400_labels.txt").read_text("utf-8").splitlines()
)
EXTENSIONS = (".mp4", ".mkv", ".webm", ".avi")


@dataclass(frozen=True)
class Video:
    """One row of the annotation: a clip that is planned, found or not.

    `label` is "" and `class_id` None where the row names no class (test rows of some copies);
    `path` is None where the clip is missing.
    """

    id: str
    label: str
    class_id: int | None
    path: Path | None


@dataclass(frozen=True)
class Dataset:
    """All planned clips of one split, in the order of the annotation."""

    name: str
    split: str
    labels: tuple[str, ...]
    videos: tuple[Video, ...]


def load(root: Path, split: str, labels: Sequence[str], name: str) -> Dataset:
    """The clips that `root/annotations/{split}.csv` (or `root/{split}.csv`) plans.

    They are found under `root/{split}` by file name, `{id}_{start:06d}_{end:06d}` with any of
    EXTENSIONS, so folders may be flat or one per label in any spelling. Raises FileNotFoundError
    without an annotation, ValueError for a row it cannot use.
    """
    root = Path(root)
    table = _first(root / "annotations" / f"{split}.csv", root / f"{split}.csv")
    folder = root / "validate" if split == "val" and not (root / "val").is_dir() else root / split
    class_ids = {label: i for i, label in enumerate(labels)}
    files = _files(folder)
    videos = []
    with table.open(newline="", encoding="utf-8-sig") as rows:
        for row in _rows(table, rows, needs_label=split != "test"):
            if (row.get("split") or split).replace("validate", "val") != split:
                continue
            try:
                label = row.get("label") or ""
                start, end = int(float(row["time_start"])), int(float(row["time_end"]))
                path = files.get(f"{row['youtube_id']}_{start:06d}_{end:06d}")
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                raise ValueError(
                    f"{table}: need columns youtube_id, time_start and time_end (seconds) in each "
                    f"row, but one reads {dict(row)}."
                ) from error
            if label and label not in class_ids:
                raise ValueError(f"{table}: label {label!r} is not among {name}'s {len(labels)}.")
            videos.append(Video(row["youtube_id"], label, class_ids.get(label), path))
    return Dataset(name, split, tuple(labels), tuple(videos))


def _rows(table: Path, file: TextIO, needs_label: bool) -> Iterator[dict[str, str]]:
    """The rows of an annotation; only that of a test split may lack the labels."""
    reader = csv.DictReader(file)
    try:
        if needs_label and "label" not in (reader.fieldnames or ()):
            raise ValueError(f"{table}: need a column label, but there are {reader.fieldnames}.")
        yield from reader
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{table}: is no CSV file in UTF-8 ({error}).") from error


def _first(*paths: Path) -> Path:
    for path in paths:
        if path.is_file():
            return path
    raise FileNotFoundError(f"No annotation file: looked for {' and '.join(map(str, paths))}.")


def _files(folder: Path) -> dict[str, Path]:
    """Clips by name without extension; AppleDouble companions (`._name.mp4`) are no clips."""
    found = {}
    seen = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        place = os.stat(parent)
        if (place.st_dev, place.st_ino) in seen:  # a link back to where we were
            folders.clear()
            continue
        seen.add((place.st_dev, place.st_ino))
        folders.sort()
        for name in sorted(names):
            stem, extension = os.path.splitext(name)
            if extension.lower() in EXTENSIONS and not name.startswith("._"):
                found.setdefault(stem, Path(parent, name))
    return found

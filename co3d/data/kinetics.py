"""Kinetics-400 as it is distributed and as others keep it: an annotation and a folder of clips.

Class ids come from a label list (Kinetics-400: code-point order of the raw names), never from
the order of folders: stripped parentheses or a locale's sorting would silently permute classes.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path

from . import files
from .dataset import Dataset, Video
from .files import SPELLINGS

LABELS_SHA256 = "e9f2806fe9109b851a80a74841244f6f8c9d10917fa0229cd82bab67f2f8e28f"
COLUMNS = ("youtube_id", "time_start", "time_end")
# Where annotations lie and what they are called; the first that is there is taken.
PLACES = ("annotations", "", "splits")
NAMES = ("{}", "kinetics_{}", "kinetics400_{}", "{}_list", "kinetics400_{}_list_videos")
CLASS_ID = re.compile(r"-1|\d{1,9}", re.ASCII)  # in a list
MAX_PATH = 4096  # characters
MAX_SECONDS = 10**6  # file names have six digits


def checked_labels(text: str) -> tuple[str, ...]:
    """The label map, one name per line; ValueError unless it is the published one."""
    labels = tuple(text.splitlines())
    if hashlib.sha256("".join(f"{label}\n" for label in labels).encode()).hexdigest() != (
        LABELS_SHA256
    ):
        raise ValueError(
            "kinetics400_labels.txt of the package is not the published label map, so that class "
            "ids would be wrong; install co3d again."
        )
    return labels


KINETICS400_LABELS: tuple[str, ...] = checked_labels(
    resources.files(__package__).joinpath("kinetics400_labels.txt").read_text("utf-8")
)


def load(
    root: Path,
    split: str,
    labels: Sequence[str] = KINETICS400_LABELS,
    name: str = "kinetics400",
) -> Dataset:
    """The clips that the `annotation` of a split plans, found or not.

    The annotation is a CSV file as published, the older JSON form, or a list with `path class-id`
    per line; its content tells which. Clips of the first two are found in the `folders` of the
    split by file name, `{id}_{start:06d}_{end:06d}` with any of `files.EXTENSIONS`, so that they
    may lie flat or in one folder per label in any spelling. Only rows of a test split may lack the
    label.

    Raises FileNotFoundError without an annotation, ValueError for a row that cannot be used.
    """
    root, split = Path(root), files.split_name(split)
    table = annotation(root, split)
    if table.suffix == ".json":
        videos = _from_json(table, root, split, labels)
    elif _is_list(table):
        videos = _from_list(table, root, split, labels)
    else:
        videos = _from_csv(table, root, split, labels)
    return Dataset(name, split, tuple(labels), files.planned(table, videos))


def annotation(root: Path, split: str) -> Path:
    """The annotation file of a split in any accepted place and spelling: CSV, JSON, then a list.

    Raises FileNotFoundError.
    """
    for extension in (".csv", ".json", ".txt"):
        for place in PLACES:
            for spelling in SPELLINGS[split]:
                for name in NAMES:
                    path = root / place / f"{name.format(spelling)}{extension}"
                    if path.is_file():
                        return path
    raise FileNotFoundError(
        f"no annotation of the split {split} in {root}: expected annotations/{split}.csv (also "
        f".json, or a list with a path and a class id per line in {split}.txt)"
    )


def published(root: Path) -> Path | None:
    """An annotation in one of the published forms, of any split; None where there is none."""
    for split in SPELLINGS:
        try:
            table = annotation(root, split)
        except FileNotFoundError:
            continue
        with files.reading(table) as file:
            if table.suffix == ".json" or "youtube_id" in file.readline(4096):
                return table
    return None


def folders(root: Path, split: str) -> list[Path]:
    """Where the clips of a split lie: any spelling of its name in the root or in `data`."""
    places = [root / base / spelling for base in ("", "data") for spelling in SPELLINGS[split]]
    return [place for place in places if place.is_dir()]


def _from_csv(
    table: Path, root: Path, split: str, labels: Sequence[str]
) -> Iterator[tuple[str, Video]]:
    columns = COLUMNS if split == "test" else ("label", *COLUMNS)
    clips = _Clips(root, split, labels)
    for where, row in files.table(table, columns):
        if (row.get("split") or split) in SPELLINGS[split]:
            times = row["time_start"], row["time_end"]
            yield where, clips.video(where, row["youtube_id"], times, row.get("label") or "")


def _from_json(
    table: Path, root: Path, split: str, labels: Sequence[str]
) -> Iterator[tuple[str, Video]]:
    with files.reading(table) as file:
        try:
            entries = json.load(file)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{table}: is no JSON file in UTF-8 ({error}).") from error
    if not isinstance(entries, dict):
        raise ValueError(f"{table}: expected an object with one entry per video id.")
    clips = _Clips(root, split, labels)
    for name, entry in entries.items():
        where = f"{table}, entry {files.shown(name)}"
        try:
            if (entry.get("subset") or split) not in SPELLINGS[split]:
                continue
            annotated = entry["annotations"]
            label, (start, end) = annotated.get("label") or "", annotated["segment"]
        except (AttributeError, KeyError, TypeError, ValueError):
            raise ValueError(
                f"{where}: expected annotations with a label and a segment of start and end, "
                f"given {files.shown(entry)}"
            ) from None
        yield where, clips.video(where, name, (start, end), label)


class _Clips:
    """Videos of a split from what its rows say."""

    def __init__(self, root: Path, split: str, labels: Sequence[str]) -> None:
        self.class_ids = {label: i for i, label in enumerate(labels)}
        self.found = files.index(folders(root, split))
        self.needs_label = split != "test"

    def video(self, where: str, name: str, times: tuple[object, object], label: str) -> Video:
        try:
            start, end = (int(float(time)) for time in times)
            if not 0 <= min(start, end) <= max(start, end) < MAX_SECONDS:
                raise ValueError
        except (TypeError, ValueError, OverflowError):
            raise ValueError(
                f"{where}: expected time_start and time_end in seconds, given "
                f"{files.shown(times[0])} and {files.shown(times[1])}; correct or remove the row."
            ) from None
        known = isinstance(label, str) and label in self.class_ids
        if (label or self.needs_label) and not known:
            raise ValueError(
                f"{where}: label {files.shown(label)} is not among the set's "
                f"{len(self.class_ids)}; write it as in the published annotation."
            )
        stem = f"{files.checked_id(name, where)}_{start:06d}_{end:06d}"
        class_id = self.class_ids.get(label)
        return _video(stem, label, class_id, self.found.get(stem))


def _video(name: str, label: str, class_id: int | None, path: Path | None) -> Video:
    return Video(name, label, class_id, path, () if class_id is None else (class_id,))


def _is_list(table: Path) -> bool:
    """Whether the first line is a path and a class id, as PySlowFast also keeps in `val.csv`."""
    with files.reading(table) as file:
        return _listing(file.readline(4096)) is not None


def _listing(line: str) -> tuple[str, int] | None:
    """Path, which may hold spaces, and class id of a line; None where it has another form."""
    path, _, number = line.strip().replace("\t", " ").rpartition(" ")
    return (path.rstrip(), int(number)) if path and CLASS_ID.fullmatch(number) else None


def _from_list(
    table: Path, root: Path, split: str, labels: Sequence[str]
) -> Iterator[tuple[str, Video]]:
    """Clips of lines `path class-id`; -1 stands for no class in a test split."""
    home = os.path.abspath(root)
    starts = list(map(os.path.abspath, (table.parent, root, *folders(root, split))))
    by_folder = {spelt: i for i, label in enumerate(labels) for spelt in _spellings(label)}
    lowest = -1 if split == "test" else 0
    with files.reading(table) as file:
        for number, line in enumerate(file, 1):
            where = f"{table}, line {number}"
            if not line.strip():
                continue
            name, class_id = _listing(line) or ("", len(labels))
            folder, _, file_name = name.rpartition("/")
            stem, extension = os.path.splitext(file_name)
            if not lowest <= class_id < len(labels) or extension.lower() not in files.EXTENSIONS:
                raise ValueError(
                    f"{where}: expected the path of a video ({', '.join(files.EXTENSIONS)}) and a "
                    f"class id from {lowest} to {len(labels) - 1}, given "
                    f"{files.shown(line.strip())}"
                )
            told = by_folder.get(folder.rpartition("/")[2], class_id)
            if class_id not in (-1, told):
                raise ValueError(
                    f"{where}: expected class id {told}, because the file lies in the folder of "
                    f"{labels[told]!r}, given {class_id}; the ids of this list are in another "
                    "order than the label map."
                )
            label = labels[class_id] if class_id >= 0 else ""
            known = class_id if class_id >= 0 else None
            yield where, _video(stem, label, known, _listed(where, name, home, starts))


def _spellings(label: str) -> tuple[str, str, str]:
    """How folders of a label are called: raw, with `_` for spaces, and without `'()` as well."""
    joined = label.replace(" ", "_")
    return label, joined, re.sub("['()]", "", joined)


def _listed(where: str, name: str, root: str, starts: Sequence[str]) -> Path | None:
    """The file that a list names; None where it is missing.

    Relative paths start at the list's folder, at the root, or at a folder of the split, whichever
    has the file. They may climb (`..`) but not leave the root, because such lists travel between
    machines. An absolute path is taken at its word: who writes one means that file.
    """
    places = [os.path.normpath(os.path.join(start, name)) for start in starts]
    if not os.path.isabs(name):
        places = [place for place in places if place.startswith(os.path.join(root, ""))]
    if not places or len(name) > MAX_PATH or not name.isprintable():
        raise ValueError(
            f"{where}: expected a path within {root}, or an absolute one, of at most {MAX_PATH} "
            f"printable characters, given {files.shown(name)}"
        )
    return next((Path(place) for place in places if os.path.isfile(place)), None)

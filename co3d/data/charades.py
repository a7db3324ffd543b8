"""Charades as it is distributed and as others keep it: several actions per video, timed.

There are two splits, train and test; what others call "val" is the test split. The licence forbids
passing the data on, so nothing of it is here: class names come from the user's copy, and where
that has none the codes c000 ... stand for them. Names differ between copies, codes do not.
"""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from . import files
from .dataset import Dataset, Video

CLASSES = 157
FRAMES_FPS = 24.0  # of the published JPEG frames
FRAME_FOLDER, VIDEO_FOLDERS = "Charades_v1_rgb", ("Charades_v1_480", "Charades_v1")
PLACES = ("", "Charades", "annotations", "splits", "frame_lists")  # of annotations
SPELLINGS = {
    "train": files.SPELLINGS["train"],
    "test": (*files.SPELLINGS["test"], *files.SPELLINGS["val"]),
}
COLUMNS = ("id", "actions", "length")
FRAME_COLUMNS = ("original_vido_id", "video_id", "frame_id", "path", "labels")  # sic
SECONDS = r"(\d{1,6}(?:\.\d{1,9})?)"
ACTION = re.compile(rf"c(\d{{3}}) {SECONDS} {SECONDS}", re.ASCII)
CLASS_ID = re.compile(r"\d{1,3}", re.ASCII)
CODED = re.compile(r"c(\d{3})(?:\s+(\S.*))?", re.ASCII)  # a line of the file with the classes


def load(root: Path, split: str, classes: int = CLASSES, name: str = "charades") -> Dataset:
    """The videos that the `annotation` of a split plans, found or not.

    The annotation is the official CSV file or a list of frames with their labels; the first line
    tells which. Media are those of `media`: one kind for the whole set, never mixed. Actions are
    given as they stand in the official file, whatever their times; a list of frames has none.

    Raises FileNotFoundError without an annotation, ValueError for a row that cannot be used.
    """
    root, split = Path(root), split_name(split)
    table, folder = annotation(root, split), media(root)
    labels = class_names(root, classes)
    with files.reading(table) as file:
        of_frames = file.readline(4096).split() == list(FRAME_COLUMNS)
    rows = (_from_frames if of_frames else _from_official)(table, classes)
    found = media_by_id(folder) if folder else {}
    fps = FRAMES_FPS if folder and folder.name == FRAME_FOLDER else None
    videos = files.planned(table, _videos(rows, labels, found, fps))
    return Dataset(name, split, labels, videos, multilabel=True)


def split_name(split: str) -> str:
    """train or test; any spelling of val means test."""
    return "train" if files.split_name(split) == "train" else "test"


def annotation(root: Path, split: str) -> Path:
    """The annotation of a split: the official file in any usual place, else a list of frames.

    Raises FileNotFoundError.
    """
    for name in ("Charades_v1_{}.csv", "{}.csv"):
        for place in PLACES:
            for spelling in SPELLINGS[split]:
                path = root / place / name.format(spelling)
                if path.is_file():
                    return path
    raise FileNotFoundError(
        f"no annotation of the split {split} in {root}: expected Charades_v1_{split}.csv, also in "
        f"a folder Charades, or a list of frames such as splits/{SPELLINGS[split][-1]}.csv"
    )


def media(root: Path) -> Path | None:
    """The folder of the JPEG frames, which published results read, else of the videos, if any."""
    for name in (FRAME_FOLDER, *VIDEO_FOLDERS):
        for base in ("", "data"):
            if (root / base / name).is_dir():
                return root / base / name
    return None


def media_by_id(folder: Path) -> dict[str, Path]:
    """What lies in a folder of `media`: video files, or folders of frames, by the video's id."""
    if folder.name != FRAME_FOLDER:
        return files.index([folder])
    with os.scandir(folder) as entries:
        return {entry.name: Path(entry) for entry in entries if entry.is_dir()}


def class_names(root: Path, classes: int = CLASSES) -> tuple[str, ...]:
    """Names by class id from the set's file with `c008 Opening a door` per line, else the codes.

    A file without codes, as the original code of the paper keeps it, counts its lines. Raises
    ValueError where a class is missing or there twice.
    """
    codes = [f"c{i:03d}" for i in range(classes)]
    paths = [root / p / n for n in ("Charades_v1_classes.txt", "classes.txt") for p in PLACES]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        return tuple(codes)
    with files.reading(path) as file:
        lines = [line.strip() for line in file if line.strip()]
    coded = [CODED.fullmatch(line) for line in lines]
    if not any(coded):
        coded, names = [], dict(zip(codes, lines, strict=False))
    else:
        names = {f"c{match[1]}": match[2] or f"c{match[1]}" for match in coded if match}
    if len(lines) != classes or sorted(names) != codes or not all(coded):
        raise ValueError(
            f"{path}: expected {classes} lines such as 'c008 Opening a door', one for each of "
            f"{codes[0]} to {codes[-1]}, given {len(lines)} lines with {len(names)} codes; put the "
            "published file there or remove it."
        )
    return tuple(names[code] for code in codes)


# A row: its place, the video's id, its class ids, and its actions.
Row = tuple[str, str, Iterable[int], tuple[tuple[int, float, float], ...]]


def _videos(
    rows: Iterable[Row], labels: tuple[str, ...], found: dict[str, Path], fps: float | None
) -> Iterator[tuple[str, Video]]:
    for where, name, ids, actions in rows:
        files.checked_id(name, where)
        class_ids = tuple(sorted(set(ids)))
        class_id = class_ids[0] if len(class_ids) == 1 else None
        label = "" if class_id is None else labels[class_id]
        yield where, Video(name, label, class_id, found.get(name), class_ids, fps, actions)


def _from_official(table: Path, classes: int) -> Iterator[Row]:
    for where, row in files.table(table, COLUMNS):
        actions = _actions(where, row["actions"], classes)
        yield where, row["id"], [action[0] for action in actions], actions


def _actions(where: str, text: str, classes: int) -> tuple[tuple[int, float, float], ...]:
    """`c008 0.00 4.20;c149 11.90 21.20` as (class id, start s, end s); "" is none."""
    actions = []
    for part in text.split(";") if text else ():
        match = ACTION.fullmatch(part)
        if not match or int(match[1]) >= classes:
            raise ValueError(
                f"{where}: expected actions such as 'c008 0.00 4.20;c149 11.90 21.20' with codes "
                f"to c{classes - 1:03d}, given {files.shown(part)}; correct or remove the row."
            )
        actions.append((int(match[1]), float(match[2]), float(match[3])))
    return tuple(actions)


def _from_frames(table: Path, classes: int) -> Iterator[Row]:
    """Videos in the order of their first frames; their classes are those of all their frames.

    Of a path such as `ID/ID-000001.jpg` only the folder's name is read, and it must be the id:
    frames are found in `media` of this set alone, so that no list can lead to other files.
    """
    seen: dict[str, tuple[str, set[str]]] = {}  # id: place of the first frame, labels as listed
    for where, row in files.table(table, FRAME_COLUMNS, delimiter=" ", optional=1):
        name = row["original_vido_id"]
        if row["path"].rpartition("/")[0].rpartition("/")[2] != name:
            raise ValueError(
                f"{where}: expected a path such as {name}/{name}-000001.jpg, given "
                f"{files.shown(row['path'])}; correct or remove the row."
            )
        seen.setdefault(name, (where, set()))[1].add(row["labels"])
    for name, (where, labels) in seen.items():
        texts = sorted({text.strip() for listed in labels for text in listed.split(",")} - {""})
        if not all(CLASS_ID.fullmatch(text) and int(text) < classes for text in texts):
            raise ValueError(
                f"{where}: expected class ids from 0 to {classes - 1} in all frames of {name}, "
                f"given {files.shown(','.join(texts))}; correct or remove the rows."
            )
        yield where, name, map(int, texts), ()

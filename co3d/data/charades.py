"""Charades as it is distributed and as others keep it: several actions per video, timed.

There are two splits, train and test; what others call "val" is the test split. The licence forbids
passing the data on, so nothing of it is here: class names come from the user's copy, and where
that has none the codes c000 ... stand for them. Names differ between copies, codes do not.
"""

import os
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from . import dataset
from .dataset import Dataset, Video, first_file, index, planned, read_table, split_name

CLASSES = 157
FRAMES_FPS = 24.0  # of the published JPEG frames
FRAME_FOLDER, VIDEO_FOLDERS = "Charades_v1_rgb", ("Charades_v1_480", "Charades_v1")
PLACES = ("", "Charades", "annotations", "splits", "frame_lists")  # of annotations
SPELLINGS = {  # any spelling of val means test
    "train": dataset.SPELLINGS["train"],
    "test": (*dataset.SPELLINGS["test"], *dataset.SPELLINGS["val"]),
}
COLUMNS = ("id", "actions", "length")
FRAME_COLUMNS = ("original_vido_id", "labels")  # sic
SECONDS = r"(\d{1,6}(?:\.\d{1,9})?)"
ACTION = re.compile(rf"c(\d{{3}}) {SECONDS} {SECONDS}", re.ASCII)
CODED = re.compile(r"c(\d{3})(?:\s+(\S.*))?", re.ASCII)  # a line of the file with the classes
Action = tuple[int, float, float]  # class id, start s, end s


def load(root: Path, split: str, classes: int = CLASSES, name: str = "charades") -> Dataset:
    """The videos that the `annotation` of a split plans, found or not.

    The annotation is the official CSV file or a list of frames with their labels; the first line
    tells which. Media are those of `media`: one kind for the whole set, never mixed. Actions are
    given as they stand in the official file, whatever their times; a list of frames has none.

    Raises FileNotFoundError without an annotation, ValueError for a row that cannot be used.
    """
    root, split = Path(root), split_name(split, SPELLINGS)
    table, folder = annotation(root, split), media(root)
    labels = class_names(root, classes)
    paths = media_by_id(folder) if folder else {}
    fps = FRAMES_FPS if folder and folder.name == FRAME_FOLDER else None

    def of_row(row: dict) -> Video:
        actions = _actions(row.get("actions", ""))
        ids = tuple(sorted({*(action[0] for action in actions), *map(int, row.get("labels", ()))}))
        if ids and not 0 <= ids[0] <= ids[-1] < classes:
            raise ValueError(
                f"expected class ids from 0 to {classes - 1}, given {ids[0]}, {ids[-1]}"
            )
        class_id = ids[0] if len(ids) == 1 else None
        label = "" if class_id is None else labels[class_id]
        return Video(row["id"], label, class_id, paths.get(row["id"]), ids, fps, actions)

    with table.open(encoding="utf-8-sig", errors="replace") as file:
        of_frames = FRAME_COLUMNS[0] in file.readline(4096)
    rows = _frame_rows(table) if of_frames else read_table(table, COLUMNS)
    places = (folder,) if folder else ()
    return Dataset(name, split, labels, planned(table, rows, of_row), True, places)


def annotation(root: Path, split: str) -> Path:
    """The annotation of a split: the official file in any usual place, else a list of frames.

    Raises FileNotFoundError.
    """
    names = product(("Charades_v1_{}.csv", "{}.csv"), SPELLINGS[split])
    if path := first_file(root, PLACES, (name.format(spelling) for name, spelling in names)):
        return path
    raise FileNotFoundError(
        f"no annotation of the split {split} in {root}: expected Charades_v1_{split}.csv, also in "
        f"a folder Charades, or a list of frames such as splits/{SPELLINGS[split][-1]}.csv"
    )


def media(root: Path) -> Path | None:
    """The folder of the JPEG frames, which published results read, else of the videos, if any."""
    places = (
        root / base / name for name in (FRAME_FOLDER, *VIDEO_FOLDERS) for base in ("", "data")
    )
    return next((place for place in places if place.is_dir()), None)


def media_by_id(folder: Path) -> dict[str, Path]:
    """What lies in a folder of `media`: video files, or folders of frames, by the video's id."""
    if folder.name != FRAME_FOLDER:
        return index([folder])
    with os.scandir(folder) as entries:
        return {entry.name: Path(entry) for entry in entries if entry.is_dir()}


def class_names(root: Path, classes: int = CLASSES) -> tuple[str, ...]:
    """Names by class id from the set's file with `c008 Opening a door` per line, else the codes.

    A file without codes, as the original code of the paper keeps it, counts its lines. Raises
    ValueError where a class is missing or there twice.
    """
    codes = [f"c{i:03d}" for i in range(classes)]
    path = first_file(root, PLACES, ("Charades_v1_classes.txt", "classes.txt"))
    if path is None:
        return tuple(codes)
    text = path.read_text("utf-8-sig", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    coded = [CODED.fullmatch(line) for line in lines]
    if not any(coded):
        names = dict(zip(codes, lines, strict=False))
    else:
        names = {f"c{match[1]}": match[2] or f"c{match[1]}" for match in coded if match}
    if len(lines) != classes or sorted(names) != codes:
        raise ValueError(
            f"{path}: expected {classes} lines such as 'c008 Opening a door', one for each of "
            f"{codes[0]} to {codes[-1]}, given {len(lines)} lines with {len(names)} codes; put the "
            "published file there or remove it."
        )
    return tuple(names[code] for code in codes)


def _actions(text: str) -> tuple[Action, ...]:
    """`c008 0.00 4.20;c149 11.90 21.20` as (class id, start s, end s); "" is none."""
    actions = []
    for part in text.split(";") if text else ():
        match = ACTION.fullmatch(part)
        if not match:
            raise ValueError(
                f"expected actions such as 'c008 0.00 4.20;c149 11.90 21.20', given {part[:50]!r}"
            )
        actions.append((int(match[1]), float(match[2]), float(match[3])))
    return tuple(actions)


def _frame_rows(table: Path) -> Iterator[dict]:
    """The id of each video and the labels of all its frames, by a list with a line per frame.

    The path of a frame is not read: frames are those in `media` of this set.
    """
    labels: dict[str, set[str]] = {}
    for row in read_table(table, FRAME_COLUMNS, delimiter=" ", optional=1):
        texts = row.get("labels", "").split(",")
        labels.setdefault(row["original_vido_id"], set()).update(filter(str.strip, texts))
    for name, texts in labels.items():
        yield {"id": name, "labels": texts}

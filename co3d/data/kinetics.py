"""Kinetics-400 as it is distributed and as others keep it: an annotation and a folder of clips.

Class ids come from a label list (Kinetics-400: code-point order of the raw names), never from
the order of folders: stripped parentheses or a locale's sorting would silently permute classes.
"""

import json
import os
import re
from collections.abc import Iterator, Sequence
from importlib import resources
from itertools import product
from pathlib import Path

from .dataset import (
    SPELLINGS,
    Dataset,
    Video,
    first_file,
    index,
    is_video,
    planned,
    read_table,
    split_name,
)

KINETICS400_LABELS: tuple[str, ...] = tuple(
    resources.files(__package__).joinpath("kinetics400_labels.txt").read_text("utf-8").splitlines()
)
COLUMNS = ("youtube_id", "time_start", "time_end")
# Where annotations lie and what they are called; the first that is there is taken.
PLACES = ("annotations", "", "splits")
NAMES = ("{}", "kinetics_{}", "kinetics400_{}", "{}_list", "kinetics400_{}_list_videos")
LISTED = re.compile(r"\s*(\S.*?)[ \t]+(-1|\d{1,9})\s*", re.ASCII)  # path, which may hold spaces, id


def load(
    root: Path,
    split: str,
    labels: Sequence[str] = KINETICS400_LABELS,
    name: str = "kinetics400",
) -> Dataset:
    """The clips that the `annotation` of a split plans, found or not.

    The annotation is a CSV file as published, the older JSON form, or a list with `path class-id`
    per line; its content tells which. Clips are found in the `folders` of the split by file name,
    `{id}_{start:06d}_{end:06d}` with any extension of a video, so that they may lie flat or in one
    folder per label in any spelling. Only rows of a test split may lack the label.

    Raises FileNotFoundError without an annotation, ValueError for a row that cannot be used.
    """
    root, split = Path(root), split_name(split)
    table = annotation(root, split)
    places = tuple(folders(root, split))
    clips = index(places)
    starts = (table.parent, root, *places)  # of listed paths
    class_ids = {label: i for i, label in enumerate(labels)}
    by_folder = {spelling: label for label in labels for spelling in _spellings(label)}

    def video(stem: str, label: str, path: Path | None = None) -> Video:
        if label not in class_ids and (label or split != "test"):
            raise ValueError(f"label {label!r} is not among the set's {len(labels)}")
        class_id = class_ids.get(label)
        known = () if class_id is None else (class_id,)
        return Video(stem, label, class_id, path or clips.get(stem), known)

    def of_row(row: dict) -> Video:
        start, end = int(float(row["time_start"])), int(float(row["time_end"]))
        return video(f"{row['youtube_id']}_{start:06d}_{end:06d}", row.get("label", ""))

    def of_line(line: str) -> Video:
        path, label = _listed(line, labels, by_folder)
        # An absolute path stays as it is.
        places = (Path(os.path.abspath(start / path)) for start in starts)
        return video(path.stem, label, next((p for p in places if p.is_file()), None))

    # PySlowFast calls its list of paths and class ids `val.csv`, too.
    if table.suffix != ".json" and LISTED.fullmatch(_first_line(table)):
        lines = filter(str.strip, table.read_text("utf-8-sig", "replace").splitlines())
        videos = planned(table, lines, of_line)
    else:
        columns = COLUMNS if split == "test" else ("label", *COLUMNS)
        rows = _json_rows(table) if table.suffix == ".json" else read_table(table, columns)
        rows = (row for row in rows if (row.get("split") or split) in SPELLINGS[split])
        videos = planned(table, rows, of_row)
    return Dataset(name, split, tuple(labels), videos, places=places)


def annotation(root: Path, split: str) -> Path:
    """The annotation file of a split in any accepted place and spelling: CSV, JSON, then a list.

    Raises FileNotFoundError.
    """
    endings = product((".csv", ".json", ".txt"), SPELLINGS[split], NAMES)
    names = (name.format(spelling) + ending for ending, spelling, name in endings)
    if path := first_file(root, PLACES, names):
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
        if table.suffix == ".json" or "youtube_id" in _first_line(table):
            return table
    return None


def folders(root: Path, split: str) -> list[Path]:
    """Where the clips of a split lie: any spelling of its name in the root or in `data`."""
    places = [root / base / spelling for base in ("", "data") for spelling in SPELLINGS[split]]
    return [place for place in places if place.is_dir()]


def _json_rows(table: Path) -> Iterator[dict]:
    """The older form as rows of the CSV file."""
    try:
        for name, entry in json.loads(table.read_text("utf-8-sig")).items():
            start, end = entry["annotations"]["segment"]
            yield {
                "youtube_id": name,
                "time_start": start,
                "time_end": end,
                "label": str(entry["annotations"].get("label") or ""),
                "split": entry.get("subset"),
            }
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        raise ValueError(
            f"{table}: is no annotation of Kinetics in JSON ({type(error).__name__}: {error})"
        ) from None


def _first_line(table: Path) -> str:
    with table.open(encoding="utf-8-sig", errors="replace") as file:
        return file.readline(4096)


def _listed(line: str, labels: Sequence[str], by_folder: dict[str, str]) -> tuple[Path, str]:
    """Path and label of a line `path class-id`; -1, of a test split, is no label."""
    match = LISTED.fullmatch(line)
    path, class_id = (Path(match[1]), int(match[2])) if match else (Path(), len(labels))
    if class_id >= len(labels) or not is_video(path):
        raise ValueError(
            f"expected the path of a video and a class id below {len(labels)}, given {line!r}"
        )
    label = labels[class_id] if class_id >= 0 else ""
    if label and by_folder.get(path.parent.name, label) != label:
        raise ValueError(
            f"class id {class_id} is that of {label!r}, but the file lies in the folder of "
            f"{path.parent.name!r}: the ids of this list are in another order than the label map"
        )
    return path, label


def _spellings(label: str) -> set[str]:
    """How folders of a label are called: raw, with `_` for spaces, and without `'()` as well."""
    joined = label.replace(" ", "_")
    return {label, joined, re.sub("['()]", "", joined)}

"""Made trees of Kinetics-400 and Charades in every form: real class names, made-up videos.

The files of a tree are copies of one tiny video unless `clip(path, number)` writes others.
"""

import base64
import csv
import functools
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
from PIL import Image

from co3d.data import video
from co3d.data.kinetics import KINETICS400_LABELS

Clip = Callable[[Path, int], None]

CONVENTIONS = ("flat", "label", "underscore", "stripped")
ANNOTATIONS = ("csv", "csv-older", "json", "list", "list-root", "list-absolute", "list-csv")
SPELLINGS = ("val", "validate", "validation", "videos_val")
KINETICS_LABELS = (
    "abseiling",
    "air drumming",
    "eating ice cream",
    "massaging person's head",
    "passing American football (in game)",
    "passing American football (not in game)",
    "shooting basketball",
    "shooting goal (soccer)",
    "tying knot (not on a tie)",
    "zumba",
)


@functools.cache
def tiny_video() -> bytes:
    """A video of 8 frames in 16x16 pixels."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tiny.mp4")
        shades = np.linspace(0, 255, 8).astype(np.uint8)[:, None, None, None]
        video.write(path, np.broadcast_to(shades, (8, 16, 16, 3)), 15)
        return path.read_bytes()


def tiny(path: Path, _: int = 0) -> None:
    path.write_bytes(tiny_video())


def kinetics_rows(count: int = 40, split: str = "val") -> list[tuple[str, str, int, int]]:
    """Label, made-up id of 11 characters, start and end of each planned video."""
    rows = []
    for i in range(count):
        digest = hashlib.sha256(f"made/{split}/{i}".encode()).digest()
        name = base64.urlsafe_b64encode(digest)[:11].decode()
        name = {1: "-", 2: "_"}.get(i, name[0]) + name[1:]  # ids may begin with - or _
        rows.append((KINETICS_LABELS[i * 7 % 10], name, i * 3, i * 3 + 10))
    return rows


def class_folder(label: str, convention: str) -> str:
    if convention == "flat":
        return ""
    if convention == "label":
        return label
    joined = label.replace(" ", "_")
    return joined if convention == "underscore" else re.sub("['()]", "", joined)


def make_kinetics(
    root: Path,
    convention: str = "flat",
    annotation: str = "csv",
    spelling: str = "val",
    *,
    count: int = 40,
    missing: Collection[int] = (),
    original: bool = False,
    split: str = "val",
    clip: Clip = tiny,
) -> Path:
    """A split of `count` planned videos under `root`; returns `root`.

    Args:
        convention: one of CONVENTIONS, of folders.
        annotation: one of ANNOTATIONS, of files.
        spelling: of the split's name, as folder and as annotation (one of SPELLINGS for val).
        missing: numbers of rows without a file.
        original: as the paper's code has it, `data/<split>` and `splits/<split>.json`.
    """
    rows, listed = kinetics_rows(count, split), []
    home = root / "data" / spelling if original else root / spelling
    for i, (label, name, start, end) in enumerate(rows):
        path = home / class_folder(label, convention) / f"{name}_{start:06d}_{end:06d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        if i not in missing:
            clip(path, i)
        listed.append((path, KINETICS400_LABELS.index(label)))
    place = root / ("splits" if original else "annotations")
    place.mkdir(parents=True, exist_ok=True)
    if annotation == "json":
        (place / f"{spelling}.json").write_text(_kinetics_json(rows, spelling))
    elif annotation.startswith("csv"):
        _kinetics_csv(place / f"{spelling}.csv", rows, spelling, older=annotation != "csv")
    else:
        starts = {"list": place, "list-csv": home, "list-root": root}
        table = root / f"{spelling}.csv" if annotation == "list-csv" else place / f"{spelling}.txt"
        start = starts.get(annotation)
        lines = [(os.path.relpath(path, start) if start else path, i) for path, i in listed]
        table.write_text("".join(f"{path} {i}\n" for path, i in lines))
    return root


def _kinetics_csv(path: Path, rows: list, spelling: str, older: bool) -> None:
    """As published, multi-word labels in quotes; the older form lacks is_cc."""
    lines = ["label,youtube_id,time_start,time_end,split" + ("" if older else ",is_cc")]
    for label, name, start, end in rows:
        quoted = f'"{label}"' if " " in label else label
        lines.append(f"{quoted},{name},{start},{end},{spelling}" + ("" if older else ",0"))
    path.write_text("\n".join(lines) + "\n")


def _kinetics_json(rows: list, spelling: str) -> str:
    entries = {
        name: {
            "annotations": {"label": label, "segment": [float(start), float(end)]},
            "duration": 10.0,
            "subset": spelling,
            "url": f"https://example.invalid/{name}",
        }
        for label, name, start, end in rows
    }
    return json.dumps(entries)


CHARADES_FORMS = ("videos", "videos-full", "frames", "frame-list", "original")
CHARADES_HEADER = (
    *("id", "subject", "scene", "quality", "relevance", "verified", "script", "objects"),
    *("descriptions", "actions", "length"),
)


def charades_rows(count: int = 6, split: str = "test") -> list[tuple[str, str, float]]:
    """Made-up id, actions as written, and length of each planned video, quirks first."""
    actions = [
        "c008 0.00 4.20;c149 11.90 21.20",  # the end lies past the length
        "",
        "c156 5.00 2.00",  # the end lies before the start
        "c003 0.00 0.30;c003 0.10 0.40;c000 0.00 1.00",  # a class twice
    ]
    rows = []
    for i in range(count):
        name = hashlib.sha256(f"made/{split}/{i}".encode()).hexdigest()[:5].upper()
        text = actions[i] if i < len(actions) else f"c{i * 11 % 157:03d} 0.00 0.20"
        rows.append((name, text, 20.0))
    return rows


def make_charades(
    root: Path,
    form: str = "videos",
    *,
    count: int = 6,
    frames: int = 8,
    missing: Collection[int] = (),
    classes: bool = True,
    split: str = "test",
    spelling: str = "",
    clip: Clip = tiny,
    pictures: Clip | None = None,
) -> Path:
    """A split of `count` planned videos under `root`; returns `root`.

    Args:
        form: one of CHARADES_FORMS: the official CSV with videos (480p or full size) or with JPEG
            frames, a list of frames, or the tree of the paper's code, which has such a list.
        missing: numbers of rows without a video.
        classes: whether there is a file with (made-up) names of the classes.
        spelling: of the split's name; the default is test in official files, val in lists.
        pictures: writes the folder of frames of a video instead of `make_frames`.
    """
    rows = charades_rows(count, split)
    folder = {"videos": "Charades_v1_480", "videos-full": "Charades_v1"}.get(form, "")
    home = root / (folder or ("data/" if form == "original" else "") + "Charades_v1_rgb")
    home.mkdir(parents=True, exist_ok=True)
    for i, (name, _, _) in enumerate(rows):
        if i in missing:
            continue
        if folder:
            clip(home / f"{name}.mp4", i)
        elif pictures:
            pictures(home / name, i)
        else:
            make_frames(home / name, frames, shade=i)
    place = root / "splits" if form == "original" else root
    place.mkdir(exist_ok=True)
    if form in ("frame-list", "original"):
        name = spelling or ("val" if split == "test" else split)
        (place / f"{name}.csv").write_text(_frame_list(rows, frames))
    else:
        _charades_csv(place / f"Charades_v1_{spelling or split}.csv", rows)
    if classes:
        name = "classes.txt" if form == "original" else "Charades_v1_classes.txt"
        (place / name).write_text("".join(f"c{i:03d} Made action {i}\n" for i in range(157)))
    return root


def make_frames(folder: Path, count: int, shade: int = 0) -> None:
    """`count` JPEG frames of 16x16 pixels as Charades numbers them, each a little brighter."""
    folder.mkdir(parents=True)
    for k in range(1, count + 1):
        picture = Image.new("RGB", (16, 16), (shade % 256, 8 * k % 256, 0))
        picture.save(folder / f"{folder.name}-{k:06d}.jpg")


def _charades_csv(path: Path, rows: list) -> None:
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(CHARADES_HEADER)
        for name, actions, length in rows:
            script = 'A person walks in, says "well", and leaves.'
            texts = ("XY07", "Hallway", "5", "7", "Yes", script, "bag;door", "Made up.")
            table.writerow([name, *texts, actions, f"{length:.2f}"])


def _frame_list(rows: list, frames: int) -> str:
    """Each class of a video is on at least one of its frames; the last frame has none."""
    lines = ["original_vido_id video_id frame_id path labels"]
    for i, (name, actions, _) in enumerate(rows):
        ids = sorted({int(part[1:4]) for part in actions.split(";") if part})
        for k in range(frames):
            shown = ids if k == 0 else ids[: k % 2] if k < frames - 1 else []
            text = ",".join(map(str, shown))
            lines.append(f'{name} {i} {k} {name}/{name}-{k + 1:06d}.jpg "{text}"')
    return "\n".join(lines) + "\n"

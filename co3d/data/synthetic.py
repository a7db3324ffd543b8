"""synthetic-kinetics: 12 motions that no single frame shows, as H.264 in Kinetics-400's layout.

One motion per video, drawn as `co3d.data.drawing` says.
"""

import base64
import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from .. import files, paths
from ..progress import bar
from . import drawing, kinetics, video
from .dataset import Dataset, Video, split_name
from .drawing import DotRecipe

SYNTHETIC_KINETICS_LABELS = drawing.LABELS
SPLITS = {"train": 1200, "val": 240, "test": 1008}
RECIPE = DotRecipe()


def folder(seed: int = 0, recipe: DotRecipe = RECIPE) -> Path:
    """Where a set lives in the cache, made or not."""
    return paths.cache_path() / f"synthetic-kinetics-{seed}-{recipe.hash}"


def synthetic_kinetics(
    root: Path | None = None,
    *,
    seed: int = 0,
    recipe: DotRecipe = RECIPE,
    splits: Sequence[str] = tuple(SPLITS),
    limit: int | None = None,
    **options,
) -> Path:
    """The root of the generated set, by default `folder()`; what is missing in it is made first.

    Files depend on seed and recipe alone. `limit` makes the first N of each split; options are
    those of `make`.
    """
    root, texts, videos = Path(root or folder(seed, recipe)), {}, {}
    for number, split in enumerate(SPLITS):
        if split not in splits:
            continue
        rows = [_row(seed, split, i) for i in range(SPLITS[split])]
        texts[root / "annotations" / f"{split}.csv"] = _annotation(split, rows)
        for i, (label, name) in enumerate(rows[:limit]):
            path = root / split / label / f"{name}_000000_000010.mp4"
            videos[path] = partial(_write, recipe=recipe, label=label, key=[seed, number, i])
    make("synthetic-kinetics", texts, videos, **options)
    return root


def make(
    name: str,
    texts: dict[Path, str],
    videos: dict[Path, Callable[[Path], None]],
    workers: int | None = None,
    progress: bool = True,
) -> None:
    """Writes the files of a generated set that are not there; each appears only when complete.

    Threads do: drawing and encoding mostly run outside of Python's lock.
    """
    for path, text in texts.items():
        if not path.exists():
            files.write(path, text)
    missing = [path for path in videos if not path.exists()]
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        done = pool.map(lambda path: videos[path](path), missing)
        list(bar(done, name, len(missing), progress and bool(missing)))


def dataset(
    split: str, root: Path | None = None, *, limit: int | None = None, **options
) -> Dataset:
    """A split of `synthetic_kinetics(root, **options)`, or its first `limit` videos."""
    split = split_name(split)
    root = synthetic_kinetics(root, splits=[split], limit=limit, **options)
    return kinetics.load(root, split, SYNTHETIC_KINETICS_LABELS, "synthetic-kinetics").first(limit)


def decoded(clip: Video) -> np.ndarray:
    """All frames of a generated video, uint8 (T,H,W,3); VideoError unless every one is intact.

    Takes some 6 ms, so nothing is cached: decoded, the whole set would fill 3 GB.
    """
    with video.Reader(clip.path) as reader:
        frames = np.stack([rgb for _, rgb in reader])
    if reader.status != "ok":
        raise video.VideoError(f"{clip.path}: {reader.note} Delete it, it will be made anew.")
    return frames


def render(recipe: DotRecipe, label: str, key: Sequence[int]) -> np.ndarray:
    """The frames of one video, uint8 (T,H,W,3); `key` seeds everything that is drawn at random."""
    motion = np.array(SYNTHETIC_KINETICS_LABELS.index(label))
    return drawing.render(recipe, np.arange(recipe.frames), lambda times: motion, key)


def _write(path: Path, recipe: DotRecipe, label: str, key: list[int]) -> None:
    video.write(path, render(recipe, label, key), recipe.fps, crf=recipe.crf)


def _row(seed: int, split: str, index: int) -> tuple[str, str]:
    """Label and name (11 characters, as in Kinetics) of a video; classes take turns."""
    digest = hashlib.sha256(f"{seed}/{split}/{index}".encode()).digest()
    name = base64.urlsafe_b64encode(digest)[:11].decode()
    return SYNTHETIC_KINETICS_LABELS[index % len(SYNTHETIC_KINETICS_LABELS)], name


def _annotation(split: str, rows: Sequence[tuple[str, str]]) -> str:
    """`annotations/{split}.csv` as Kinetics-400 has it, multi-word labels in quotes."""
    lines = ["label,youtube_id,time_start,time_end,split,is_cc"]
    for label, name in rows:
        quoted = f'"{label}"' if " " in label else label
        lines.append(f"{quoted},{name},0,10,{split},0")
    return "\n".join(lines) + "\n"

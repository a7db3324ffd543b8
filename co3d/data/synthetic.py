"""synthetic-kinetics: 12 motions that no single frame shows, as H.264 in Kinetics-400's layout.

One motion per video, drawn as `co3d.data.drawing` says.
"""

import base64
import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np

from .. import files, paths
from ..progress import bar
from . import drawing, kinetics, video
from .dataset import Dataset, Video, split_name
from .drawing import DotRecipe

SYNTHETIC_KINETICS_LABELS = drawing.LABELS
# What draws the frames, frames per second, and options of `video.write`.
Film = tuple[Callable[[], np.ndarray], float | Fraction, dict[str, int]]
SPLITS = {"train": 1200, "val": 240, "test": 1008}
RECIPE = DotRecipe()


def folder(seed: int = 0, recipe: DotRecipe = RECIPE) -> Path:
    """Where a set lives in the cache, made or not."""
    return paths.cache_path() / f"synthetic-kinetics-{seed}-{recipe.hash}"


def dataset(
    split: str,
    root: Path | None = None,
    *,
    seed: int = 0,
    recipe: DotRecipe = RECIPE,
    limit: int | None = None,
    **options,
) -> Dataset:
    """A split, or its first `limit` videos; what is missing of it is made first.

    It lies in `folder()` unless `root` is given. Files depend on seed and recipe alone; options
    are those of `make`.
    """
    root, split = Path(root or folder(seed, recipe)), split_name(split)
    rows, videos = [_row(seed, split, i) for i in range(SPLITS[split])], {}
    for i, (label, name) in enumerate(rows[:limit]):
        frames = partial(render, recipe, label, [seed, list(SPLITS).index(split), i])
        path = root / split / label / f"{name}_000000_000010.mp4"
        videos[path] = frames, recipe.fps, {"crf": recipe.crf}
    table = root / "annotations" / f"{split}.csv"
    make("synthetic-kinetics", {table: _annotation(split, rows)}, videos, **options)
    return kinetics.load(root, split, SYNTHETIC_KINETICS_LABELS, "synthetic-kinetics").first(limit)


def make(
    name: str,
    texts: dict[Path, str],
    videos: dict[Path, Film],
    workers: int | None = None,
    progress: bool = True,
) -> None:
    """Writes the files of a generated set that are not there; each appears only when complete.

    Threads do: drawing and encoding mostly run outside of Python's lock.
    """
    for path, text in texts.items():
        if not path.exists():
            files.write(path, text)

    def encode(path: Path) -> None:
        frames, fps, options = videos[path]
        video.write(path, frames(), fps, **options)

    missing = [path for path in videos if not path.exists()]
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        list(bar(pool.map(encode, missing), name, len(missing), progress and bool(missing)))


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


def _row(seed: int, split: str, index: int) -> tuple[str, str]:
    """Label and name (11 characters, as in Kinetics) of a video; classes take turns."""
    digest = hashlib.sha256(f"{seed}/{split}/{index}".encode()).digest()
    name = base64.urlsafe_b64encode(digest)[:11].decode()
    return SYNTHETIC_KINETICS_LABELS[index % len(SYNTHETIC_KINETICS_LABELS)], name


def _annotation(split: str, rows: Sequence[tuple[str, str]]) -> str:
    """`annotations/{split}.csv` as Kinetics-400 has it, multi-word labels in quotes."""
    text = "label,youtube_id,time_start,time_end,split,is_cc\n"
    for label, name in rows:
        quoted = f'"{label}"' if " " in label else label
        text += f"{quoted},{name},0,10,{split},0\n"
    return text

"""synthetic-charades: videos in which several motions come, overlap and go, in Charades' layout.

The motions of synthetic-kinetics, drawn as `co3d.data.drawing` says: while several are shown, each
shape follows one of them. The annotation has the traps of the real one: rows without actions,
windows that end after the video or before they start, other frame rates, rotated videos.
"""

import csv
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np

from .. import paths
from . import charades, drawing
from .dataset import Dataset, split_name
from .synthetic import make

LABELS = drawing.LABELS
SPLITS = {"train": 480, "test": 240}
HEADER = (
    *("id", "subject", "scene", "quality", "relevance", "verified", "script", "objects"),
    *("descriptions", "actions", "length"),
)
# Every so many videos, one of another frame rate or recorded with the camera on its side.
PERIOD = 16
RATES = {5: Fraction(25, 2), 11: Fraction(24000, 1001)}
ROTATIONS = {2: 90, 9: 270}


@dataclass(frozen=True)
class ScriptedRecipe(drawing.DotRecipe):
    """As of synthetic-kinetics, and when which motions are shown; pairs are ranges."""

    frames: int = 240  # of the longest video, at fps
    coherence: tuple[float, float] = (0.5, 0.9)  # share of shapes that follow what is shown
    shortest: int = 120  # frames, likewise
    actions: tuple[float, ...] = (0.04, 0.26, 0.3, 0.25, 0.15)  # chances of 0, 1, 2, 3 and 4
    span: tuple[float, float] = (0.35, 0.9)  # length of a window, share of the video's
    reversed: float = 0.01  # share of windows given with the end before the start


RECIPE = ScriptedRecipe()


@dataclass(frozen=True)
class Script:
    """One video: what its row says and what it shows.

    Attributes:
        rotation: degrees counter-clockwise that a player turns the picture by.
        windows: class index, start and end in seconds, as the row gives them: some reversed.
    """

    id: str
    fps: Fraction
    n_frames: int
    rotation: int
    windows: tuple[tuple[int, float, float], ...]

    @property
    def seconds(self) -> float:
        """How long the video is."""
        return float(self.n_frames / self.fps)

    @property
    def actions(self) -> str:
        """In the grammar of Charades: `c003 0.00 4.20;c011 2.70 9.90`."""
        texts = (f"c{motion:03d} {first:.2f} {last:.2f}" for motion, first, last in self.windows)
        return ";".join(texts)


def folder(seed: int = 0, recipe: ScriptedRecipe = RECIPE) -> Path:
    """Where a set lives in the cache, made or not."""
    return paths.cache_path() / f"synthetic-charades-{seed}-{recipe.hash}"


def dataset(
    split: str,
    root: Path | None = None,
    *,
    seed: int = 0,
    recipe: ScriptedRecipe = RECIPE,
    limit: int | None = None,
    **options,
) -> Dataset:
    """A split, or its first `limit` videos, made as `synthetic.dataset` makes them."""
    root, split = Path(root or folder(seed, recipe)), split_name(split, charades.SPELLINGS)
    keys = [(seed, list(SPLITS).index(split), i) for i in range(SPLITS[split])]
    plans, videos = [plan(recipe, key) for key in keys], {}
    for script, key in zip(plans[:limit], keys, strict=False):
        path = root / "Charades_v1_480" / f"{script.id}.mp4"
        how = {"crf": recipe.crf, "rotation": script.rotation}
        videos[path] = partial(_recorded, recipe, script, key), script.fps, how
    classes = "".join(f"c{n:03d} {label}\n" for n, label in enumerate(LABELS))
    texts = {
        root / "Charades_v1_classes.txt": classes,
        root / f"Charades_v1_{split}.csv": _annotation(plans),
    }
    make("synthetic-charades", texts, videos, **options)
    return charades.load(root, split, len(LABELS), "synthetic-charades").first(limit)


def plan(recipe: ScriptedRecipe, key: tuple[int, int, int]) -> Script:
    """What the video of this seed, split and number is."""
    index = key[2]
    rng = np.random.default_rng([*key, 1])
    fps = RATES.get(index % PERIOD, Fraction(recipe.fps))
    n_frames = int(rng.integers(recipe.shortest, recipe.frames + 1) * fps / recipe.fps)
    seconds, windows = float(n_frames / fps), []
    for _ in range(rng.choice(len(recipe.actions), p=recipe.actions)):
        length = seconds * rng.uniform(*recipe.span)
        start = rng.uniform(0, seconds - 0.7 * length)
        ends = round(float(start), 2), round(float(start + length), 2)
        windows.append((int(rng.integers(len(LABELS))), *ends))
    for i in np.flatnonzero(rng.random(len(windows)) < recipe.reversed):
        motion, start, end = windows[i]
        windows[i] = motion, end, start
    rotation = ROTATIONS.get(index % PERIOD, 0)
    return Script(_id(key), fps, n_frames, rotation, tuple(windows))


def render(recipe: ScriptedRecipe, plan: Script, key: Sequence[int]) -> np.ndarray:
    """The frames of one video as displayed, uint8 (T,H,W,3); `key` seeds what is random."""
    rng = np.random.default_rng([*key, 2])

    def shown(times: np.ndarray) -> np.ndarray:
        """Of the motions at each of the times one at random, -1 where there is none."""
        motions, best = np.full(times.shape, -1), np.zeros(times.shape)
        for motion, *ends in plan.windows:
            start, end = sorted(ends)
            active = (times >= start * recipe.fps) & (times < end * recipe.fps)
            chance = rng.random(times.shape) * active
            motions[chance > best] = motion
            best = np.maximum(best, chance)
        return motions

    times = np.arange(plan.n_frames) * float(recipe.fps / plan.fps)
    return drawing.render(recipe, times, shown, key)


def _recorded(recipe: ScriptedRecipe, plan: Script, key: Sequence[int]) -> np.ndarray:
    """The frames as encoded: with a rotation, lying on the side that players turn back from."""
    return np.rot90(render(recipe, plan, key), -plan.rotation // 90, axes=(1, 2))


def _id(key: Sequence[int]) -> str:
    """Five capitals and digits, as in Charades."""
    number = int.from_bytes(hashlib.sha256("/".join(map(str, key)).encode()).digest()[:8])
    signs = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    return "".join(signs[number // len(signs) ** place % len(signs)] for place in range(5))


def _annotation(plans: Sequence[Script]) -> str:
    """A CSV as Charades has it."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(HEADER)
    for one in plans:
        names = dict.fromkeys(LABELS[motion] for motion, _, _ in one.windows)
        script = (
            f"Shapes come and go, some of them {' and '.join(names) or 'without a common way'}."
        )
        writer.writerow(
            [one.id, "SYNT", "Screen", 5, 7, "Yes", script, "disc;square;triangle", script]
            + [one.actions, f"{one.seconds:.2f}"]
        )
    return file.getvalue()

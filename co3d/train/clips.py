"""Videos as training clips: at the model's own rate, with the classes that they show."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..data.dataset import Dataset, Video
from ..data.sampling import frames_at, timeline
from ..data.sets import open_set
from ..data.transforms import Transform
from ..data.video import VideoError
from ..progress import bar
from ..zoo import Spec

MEMORY = 2 * 2**30  # bytes of decoded videos that are kept
THREADS = min(8, os.cpu_count() or 1)


class Clips:
    """The usable videos of a split.

    Videos that are missing, shorter than a clip or without a needed class are left out; `notes`
    says how many. Decoded videos are kept until they fill MEMORY; a clip of another one is read
    from its file each time.

    Raises:
        ValueError: if no video can be used.
    """

    def __init__(
        self, data: Dataset, record: Spec, transform: Transform, progress: bool = True
    ) -> None:
        self.data, self.transform = data, transform
        self.frames, self.fps = record.frames, record.native_fps
        self.memory: dict[int, np.ndarray] = {}
        self.room = MEMORY
        self.pool = ThreadPoolExecutor(THREADS)
        known = [v for v in data.videos if v.path and (data.multilabel or v.class_id is not None)]
        counts = bar(self.pool.map(self._count, known), data.split, len(known), progress)
        usable = [
            (v, count) for v, count in zip(known, counts, strict=True) if count >= self.frames
        ]
        if not usable:
            raise ValueError(
                f"expected {data.split} videos of {self.frames / self.fps:.3g} s or more in "
                f"{data.name}, given {len(data.videos)} of which none can be used"
            )
        self.videos, self.lengths = zip(*usable, strict=True)
        missing = len(data.videos) - len(usable)
        note = f"{missing} of {len(data.videos)} {data.split} videos left out"
        self.notes = (note,) if missing else ()

    def middle(self, n: int) -> int:
        """First frame of the centred clip of a video."""
        return (self.lengths[n] - self.frames) // 2

    def anywhere(self, n: int, rng: np.random.Generator) -> int:
        """First frame of a random clip of a video."""
        return int(rng.integers(self.lengths[n] - self.frames + 1))

    def batch(self, picked: Sequence[int], starts: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Clips (B, 3, T, S, S) of the picked videos from the given frames on, and their targets.

        Targets are class ids (B) or, for videos with several classes, 1 for each class shown during
        the clip (B, classes). Clips with damaged frames are left out.

        Raises:
            VideoError: if no clip is left.
        """
        clips, targets = [], []
        frames = self.pool.map(self._clip, picked, starts)
        for n, start, clip in zip(picked, starts, frames, strict=True):
            if clip is not None:
                clips.append(self.transform(clip))
                targets.append(self._target(self.videos[n], start))
        if not clips:
            names = ", ".join(str(self.videos[n].path) for n in picked[:3])
            raise VideoError(f"expected undamaged videos, given none among {names} ...")
        return torch.stack(clips), torch.stack(targets)

    def _target(self, video: Video, start: int) -> Tensor:
        if not self.data.multilabel:
            return torch.tensor(video.class_id)
        classes = shown(video, start / self.fps, (start + self.frames) / self.fps)
        return multi_hot(classes, len(self.data.labels))

    def _clip(self, n: int, start: int) -> np.ndarray | None:
        """The frames of a clip; None if they are damaged."""
        if n not in self.memory and self.room > 0:
            whole = self._read(n, 0, self.lengths[n])
            if whole is not None:
                self.memory[n] = whole
                self.room -= whole.nbytes
        if n in self.memory:
            return self.memory[n][start : start + self.frames]
        return self._read(n, start, self.frames)

    def _read(self, n: int, start: int, count: int) -> np.ndarray | None:
        """So many frames of a video from a given one on; None if they are damaged."""
        video = self.videos[n]
        try:
            times = timeline(video.path, video.frames_fps)
            indices = times.at(self.fps, range(start, start + count))
            return frames_at(video.path, indices, video.frames_fps)
        except VideoError:
            return None

    def _count(self, video: Video) -> int:
        """Frames of a video at the model's rate; 0 if it cannot be read."""
        try:
            return timeline(video.path, video.frames_fps).count(self.fps)
        except VideoError:
            return 0


def shown(video: Video, start: float, end: float) -> tuple[int, ...]:
    """Classes of the actions that overlap the given seconds; all of a video without times.

    An action that ends before it starts overlaps nothing.
    """
    if not video.actions:
        return video.class_ids
    forward = [action for action in video.actions if action[1] <= action[2]]
    return tuple(sorted({c for c, first, last in forward if first < end and start < last}))


def multi_hot(classes: Sequence[int], n_classes: int) -> Tensor:
    """1 for each of the classes, else 0, float32 (n_classes)."""
    target = torch.zeros(n_classes)
    target[list(classes)] = 1
    return target


def splits(data: str | Path, limit: int | None = None) -> tuple[Dataset, Dataset]:
    """The training and the validation videos of a data set, at most `limit` of each split.

    Without a validation split, the last eighth of the training videos is held out: of each class,
    or of all for videos with several classes. (What Charades calls validation is its test split.)

    Raises:
        FileNotFoundError, ValueError: as `open_set`, and if one of the two has no videos.
    """
    try:
        training = open_set(data, "train", limit=limit)
    except ValueError:
        training = open_set(data, limit=limit)  # a folder of one's own
        if training.split != "all":
            raise
    try:
        if training.multilabel or training.split == "all":
            raise FileNotFoundError
        validation = open_set(data, "val", limit=limit)
    except FileNotFoundError:
        training, validation = _held_out(training)
    for part in (training, validation):
        if not part.videos:
            raise ValueError(f"expected {part.split} videos in {data}, given none")
    return training, validation


def _held_out(data: Dataset) -> tuple[Dataset, Dataset]:
    """The data without the last eighth of each group, and that eighth: one video or more."""
    groups: dict[int | None, list[Video]] = {}
    for video in data.videos:
        groups.setdefault(None if data.multilabel else video.class_id, []).append(video)
    last = set()
    for group in groups.values():
        if len(group) > 1:
            last |= {video.id for video in group[-max(1, len(group) // 8) :]}
    training = tuple(video for video in data.videos if video.id not in last)
    validation = tuple(video for video in data.videos if video.id in last)
    return replace(data, videos=training), replace(data, split="held-out", videos=validation)

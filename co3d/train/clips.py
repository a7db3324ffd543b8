"""Videos as training clips: at the model's own rate, with the classes that they show."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ..data.dataset import Dataset, Video
from ..data.sampling import frames_at, opened, resample, timeline
from ..data.transforms import Transform
from ..data.video import VideoError
from ..progress import bar
from ..zoo import Spec

HELD = 2 * 2**30  # bytes; a split that is smaller when decoded is held in memory
LARGEST = 2**28  # bytes of one decoded video of such a split
THREADS = min(8, os.cpu_count() or 1)

NOTHING = np.empty((0, 1, 1, 3), np.uint8)

T, R = TypeVar("T"), TypeVar("R")


class Clips:
    """The usable videos of a split.

    They are decoded once and held where all their frames, at the model's rate, fit in HELD bytes
    (LARGEST for one video); else each clip is read from its file when it is its turn. Videos that
    are missing, damaged, shorter than a clip, or without a class where each should have one, are
    left out: `notes` says how many.

    Raises:
        ValueError: if no video can be used.
    """

    def __init__(
        self, data: Dataset, record: Spec, transform: Transform, progress: bool = True
    ) -> None:
        self.data, self.transform = data, transform
        self.frames, self.fps = record.frames, record.native_fps
        known = [v for v in data.videos if v.path and (data.multilabel or v.class_id is not None)]
        shown = f"read {data.split}" if progress else ""
        held = self._decoded(known, shown)
        lengths = [len(frames) for frames in held] if held else self._counted(known, shown)
        usable = [n for n, length in enumerate(lengths) if length >= self.frames]
        if not usable:
            raise ValueError(
                f"expected {data.split} videos of {self.frames / self.fps:.3g} s or more in "
                f"{data.name}, given {len(data.videos)} of which none can be used"
            )
        self.videos = [known[n] for n in usable]
        self.lengths = [lengths[n] for n in usable]
        self.held = [held[n] for n in usable] if held else None
        missing = len(data.videos) - len(usable)
        note = f"{missing} of {len(data.videos)} {data.split} videos left out"
        self.notes = (note,) if missing else ()

    def __len__(self) -> int:
        return len(self.videos)

    def middle(self, n: int) -> int:
        """First frame of the centred clip of a video."""
        return (self.lengths[n] - self.frames) // 2

    def anywhere(self, n: int, rng: np.random.Generator) -> int:
        """First frame of a random clip of a video."""
        return int(rng.integers(self.lengths[n] - self.frames + 1))

    def batch(self, picked: Sequence[int], starts: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Clips (B, 3, T, S, S) of the picked videos from the given frames on, and their targets.

        Targets are class ids (B), or, where videos have several classes, 1 for each that is shown
        during the clip (B, classes). Clips with damaged frames are left out.

        Raises:
            VideoError: if no clip is left.
        """
        if self.held is None:
            found = list(_threads(self._read, list(zip(picked, starts, strict=True))))
        else:
            pairs = zip(picked, starts, strict=True)
            found = [self.held[n][at : at + self.frames] for n, at in pairs]
        whole = [k for k, frames in enumerate(found) if frames is not None]
        if not whole:
            names = ", ".join(str(self.videos[n].path) for n in picked[:3])
            raise VideoError(f"expected undamaged videos, given none among {names} ...")
        clips = [self.transform(found[k]) for k in whole]
        targets = [self._target(self.videos[picked[k]], starts[k]) for k in whole]
        return torch.stack(clips), torch.stack(targets)

    def _target(self, video: Video, start: int) -> Tensor:
        if not self.data.multilabel:
            return torch.tensor(video.class_id)
        classes = shown(video, start / self.fps, (start + self.frames) / self.fps)
        return multi_hot(classes, len(self.data.labels))

    def _read(self, place: tuple[int, int]) -> np.ndarray | None:
        """The frames of a clip from its file; None if they are damaged."""
        video, slots = self.videos[place[0]], range(place[1], place[1] + self.frames)
        try:
            indices = timeline(video.path, video.frames_fps).at(self.fps, slots)
            clip = frames_at(video.path, indices, video.frames_fps)
        except VideoError:
            return None
        return clip.frames if clip.status == "ok" else None

    def _decoded(self, videos: Sequence[Video], name: str) -> list[np.ndarray] | None:
        """All frames of each video, none of a damaged one; None if together they exceed HELD."""
        files = (video.path for video in videos if video.path.is_file())
        if sum(path.stat().st_size for path in files) > HELD:
            return None
        held, room = [], HELD
        for frames in _threads(self._whole, videos, name):
            room -= HELD + 1 if frames is None else frames.nbytes
            if room < 0:
                return None
            held.append(frames)
        return held

    def _whole(self, video: Video) -> np.ndarray | None:
        """All frames of a video at the model's rate, none if damaged; None above LARGEST."""
        frames, room = [], LARGEST
        try:
            with opened(video.path, video.frames_fps) as reader:
                for _, frame in resample(reader.decode(), self.fps):
                    frames.append(reader.rgb(frame))
                    room -= frames[-1].nbytes
                    if room < 0:
                        return None
        except VideoError:
            return NOTHING
        whole = reader.status == "ok" and len({frame.shape for frame in frames}) == 1
        return np.stack(frames) if whole else NOTHING

    def _counted(self, videos: Sequence[Video], name: str) -> list[int]:
        """Frames of each video at the model's rate, 0 of an unreadable one."""

        def count(video: Video) -> int:
            try:
                return timeline(video.path, video.frames_fps).count(self.fps)
            except VideoError:
                return 0

        return list(_threads(count, videos, name))


def shown(video: Video, start: float, end: float) -> tuple[int, ...]:
    """Classes of the actions that overlap the given seconds; of a video without times, all.

    An action that ends before it starts overlaps nothing.
    """
    if not video.actions:
        return video.class_ids
    ordered = [action for action in video.actions if action[1] <= action[2]]
    return tuple(sorted({c for c, first, last in ordered if first < end and start < last}))


def multi_hot(classes: Sequence[int], n_classes: int) -> Tensor:
    """1 for each of the classes, else 0, float32 (n_classes)."""
    target = torch.zeros(n_classes)
    target[list(classes)] = 1
    return target


def _threads(function: Callable[[T], R], items: Sequence[T], name: str = "") -> Iterator[R]:
    """The function of each item, in order, computed in threads a few items ahead."""
    ahead = 4 * THREADS
    with ThreadPoolExecutor(THREADS) as pool:
        starts = range(0, len(items), ahead)
        results = (found for at in starts for found in pool.map(function, items[at : at + ahead]))
        yield from bar(results, name, len(items), bool(name))

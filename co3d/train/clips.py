"""Videos as training clips: at the model's own rate, with the classes that they show."""

import itertools
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from ..data import video as videos
from ..data.dataset import Dataset, Video
from ..data.transforms import Transform
from ..measure import metrics
from ..nn import ClipNet
from ..progress import bar
from ..zoo import Spec

HELD = 2 * 2**30  # bytes; a split that is smaller when decoded is held in memory


class Clips:
    """The usable videos of a split.

    They are decoded once and held where all their frames, at the model's rate, fit in HELD bytes;
    else each clip is read from its file by time. Videos that are missing, unreadable, shorter than
    a clip or without a class in a set of one class per video are left out: `notes` says how many.

    Raises:
        ValueError: if no video can be used.
    """

    def __init__(
        self, data: Dataset, record: Spec, transform: Transform, progress: bool = True
    ) -> None:
        self.data, self.transform = data, transform
        self.frames, self.fps = record.frames, record.native_fps
        self.multilabel, self.n_classes = data.multilabel, len(data.labels)
        planned = [v for v in data.videos if data.multilabel or v.class_id is not None]
        self.held = self._decoded(planned, progress)
        lengths = map(len, self.held) if self.held is not None else self._lengths(planned, progress)
        kept = [(n, length) for n, length in enumerate(lengths) if length >= self.frames]
        if not kept:
            raise ValueError(
                f"expected {data.split} videos of {self.frames / self.fps:.3g} s or more in "
                f"{data.name}, given none of {len(data.videos)} that can be used"
            )
        self.videos, self.lengths = [planned[n] for n, _ in kept], [length for _, length in kept]
        self.held = self.held and [self.held[n] for n, _ in kept]
        left_out = len(data.videos) - len(kept)
        self.notes = (f"{left_out} of {len(data.videos)} videos left out",) if left_out else ()

    def __len__(self) -> int:
        return len(self.videos)

    def middle(self, n: int) -> int:
        """First frame of the centred clip of a video."""
        return (self.lengths[n] - self.frames) // 2

    def anywhere(self, n: int, rng: np.random.Generator) -> int:
        """First frame of a random clip of a video."""
        return int(rng.integers(self.lengths[n] - self.frames + 1))

    def batch(self, picked: list[int], starts: list[int]) -> tuple[Tensor, Tensor]:
        """Clips (B, 3, T, S, S) of the picked videos from the given frames on, and their targets.

        Targets are class ids (B), or, of a set of several classes per video, 1 for each class with
        an action in the clip (B, classes). A clip with damaged frames is left out.

        Raises:
            ValueError: if none of the clips can be read.
        """
        if self.held is None:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                found = list(pool.map(self._read, picked, starts))
        else:
            pairs = zip(picked, starts, strict=True)
            found = [self.held[n][at : at + self.frames] for n, at in pairs]
        whole = [k for k, frames in enumerate(found) if frames is not None]
        if not whole:
            names = ", ".join(str(self.videos[n].path) for n in picked[:3])
            raise ValueError(f"expected videos that can be read, given damaged ones: {names} ...")
        clips = [self.transform(found[k]) for k in whole]
        return torch.stack(clips), torch.stack([self._target(picked[k], starts[k]) for k in whole])

    def _target(self, n: int, start: int) -> Tensor:
        if not self.multilabel:
            return torch.tensor(self.videos[n].class_id)
        begin, end = start / self.fps, (start + self.frames) / self.fps
        return multi_hot(shown(self.videos[n], begin, end), self.n_classes)

    def _read(self, n: int, start: int) -> np.ndarray | None:
        """A clip from its file; None if it is damaged."""
        times = [(start + k) / self.fps for k in range(self.frames)]
        try:
            clip = videos.sample(self.videos[n].path, times)
        except videos.VideoError:
            return None
        return clip.frames if clip.status == "ok" else None

    def _decoded(self, planned: list[Video], progress: bool) -> list[np.ndarray] | None:
        """All frames of every video, none of an unusable one; None if they are too many to hold."""
        paths = [video.path for video in planned if video.path and video.path.is_file()]
        if sum(path.stat().st_size for path in paths) > HELD:
            return None
        held, room = [], HELD
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            parts = itertools.batched(
                bar(planned, f"decode {self.data.split}", len(planned), progress), CHUNK
            )
            for part in parts:
                for frames in pool.map(lambda video: self._whole(video, room), part):
                    held.append(frames)
                    room -= frames.nbytes
                if room < 0:
                    return None
        return held

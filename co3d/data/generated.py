"""Writing of generated sets: only what is missing, under its name only when complete."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from co3d.data import video
from co3d.progress import bar


def make(
    name: str,
    planned: Sequence[tuple[Path, Callable[[Path], None]]],
    workers: int | None = None,
    progress: bool = True,
) -> None:
    """Calls the writer of every planned file that is not there, with its path.

    Threads do: drawing and encoding mostly run outside of Python's lock.
    """
    missing = [(path, write) for path, write in planned if not path.exists()]
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        done = pool.map(lambda job: job[1](job[0]), missing)
        for _ in bar(done, name, len(missing), progress and bool(missing)):
            pass


def write_text(path: Path, text: str) -> None:
    """Writes a file unless there is one, under a temporary name first."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(text, "utf-8")
    part.replace(path)


def decoded(path: Path) -> np.ndarray:
    """All frames of a generated video, uint8 (T,H,W,3); VideoError unless every one is intact."""
    with video.Reader(path) as reader:
        frames = np.stack([rgb for _, rgb in reader])
    if reader.status != "ok":
        raise video.VideoError(f"{path}: {reader.note} Delete it, it will be made anew.")
    return frames

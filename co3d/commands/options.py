"""What several commands do alike: checks and weights before their work, and a table after it."""

from pathlib import Path
from typing import Any

import pandas as pd
import torch

from .. import files
from ..data.transforms import Transform
from ..nn import ClipNet


def check_device(device: str) -> None:
    """Refuses a device that torch cannot use.

    Raises:
        ValueError: with what torch says.
    """
    try:
        torch.zeros(1, device=device).tolist()
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch without CUDA
        raise ValueError(f"device {device!r} cannot be used: {error}".splitlines()[0]) from None


def check_file(*paths: Path | None, video: Path | None = None) -> None:
    """Refuses files that could not be written when the work is done; None is none.

    Raises:
        ValueError: if a path is a folder, its folder is not there, or the video or a path before
            it is the same file.
    """
    seen = [video.resolve()] if video else []
    for path in filter(None, paths):
        if path.is_dir() or not path.parent.is_dir():
            raise ValueError(f"cannot write {path}: name a file in an existing folder")
        if path.resolve() in seen:
            raise ValueError(f"{path} would be replaced: name another file")
        seen.append(path.resolve())


def loaded(name: str, weights: str | None, **options: Any) -> tuple[ClipNet, Transform]:
    """A model with the weights asked for, or those that come with it, and its input transform.

    Raises:
        ValueError: if no weights come with it; others as `co3d.load`.
    """
    from .. import load
    from ..zoo.checkpoints import shipped

    if not weights and not shipped(name):
        raise ValueError(f"no weights come with {name}: give --weights kinetics400 or a file")
    return load(name, weights or next(iter(shipped(name))), **options)


def write_table(rows: pd.DataFrame, path: Path | None) -> None:
    """Writes a CSV file; None writes nothing."""
    if path:
        with files.replacing(path) as part:
            rows.to_csv(part, index=False)

"""What several commands do alike: checks before their work, and a table after it."""

from pathlib import Path

import pandas as pd
import torch

from .. import files


def check_device(device: str) -> None:
    """Refuses a device that torch cannot use.

    Raises:
        ValueError: with what torch says.
    """
    try:
        torch.zeros(1, device=device).tolist()
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch without CUDA
        raise ValueError(f"device {device!r} cannot be used: {error}".splitlines()[0]) from None


def check_file(path: Path | None) -> None:
    """Refuses a file that could not be written when the work is done; None is none.

    Raises:
        ValueError: if `path` is a folder, or its folder is not there.
    """
    if path and (path.is_dir() or not path.parent.is_dir()):
        raise ValueError(f"cannot write {path}: name a file in an existing folder")


def write_table(rows: pd.DataFrame, path: Path | None) -> None:
    """Writes a CSV file; None writes nothing."""
    if path:
        with files.replacing(path) as part:
            rows.to_csv(part, index=False)

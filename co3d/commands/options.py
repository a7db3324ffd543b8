"""What several commands check alike, before they begin their work."""

from pathlib import Path

import torch


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

"""What several commands check alike, before they begin their work."""

from pathlib import Path
from typing import TypeVar

from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def moved(model: Module, device: str) -> Module:
    """The model on a device such as "cpu" or "cuda:0".

    Raises:
        ValueError: if there is no such device, or it is of no use.
    """
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch without CUDA
        raise ValueError(f"device {device!r} cannot be used: {error}".splitlines()[0]) from None


def check_table(path: Path | None) -> None:
    """Refuses a file that could not be written when the work is done.

    Raises:
        ValueError: if `path` is a folder, or its folder is not there.
    """
    if path and (path.is_dir() or not path.parent.is_dir()):
        raise ValueError(f"cannot write {path}: name a file in an existing folder")

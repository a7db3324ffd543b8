"""Progress of long work: a bar in a terminal, nothing in a log or a notebook."""

from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def bar(
    items: Iterable[T], name: str, total: int | None = None, shown: bool = True, unit: str = "it"
) -> Iterable[T]:
    """The items, with a bar while they are taken if `shown` and standard error is a terminal."""
    return tqdm(items, name, total, unit=unit, disable=None if shown else True)

"""What every data set is in the end: planned videos in a fixed order, with their classes."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self


@dataclass(frozen=True)
class Address:
    """Where a file lies that is not on this machine, and what its store says of it.

    Attributes:
        url: as fsspec reads it.
        size: in bytes.
        md5: "" where the store does not tell.
    """

    url: str
    size: int
    md5: str = ""


@dataclass(frozen=True)
class Video:
    """A video that is planned, found or not.

    Attributes:
        id: unique within the split: the file's stem for Kinetics
            ("-3B32lodo2M_000059_000069"), the video's id for Charades.
        label: raw name of its class; "" where the annotation names none, or several.
        class_id: of that class; None likewise.
        path: a video file, or a folder of JPEG frames; where it lies elsewhere, its address; None
            where it is missing.
        class_ids: all classes, sorted and distinct (one for Kinetics).
        frames_fps: rate of a folder of JPEG frames (Charades: 24 per second).
        actions: (class id, start s, end s) of Charades as given, reversed ones and ends past the
            length of the video included.
    """

    id: str
    label: str
    class_id: int | None
    path: Path | Address | None
    class_ids: tuple[int, ...] = ()
    frames_fps: float | None = None
    actions: tuple[tuple[int, float, float], ...] = ()


@dataclass(frozen=True)
class Dataset:
    """All planned videos of one split, in the order of the annotation.

    Attributes:
        labels: names of the classes by id.
        multilabel: whether a video may have no class, or several.
    """

    name: str
    split: str
    labels: tuple[str, ...]
    videos: tuple[Video, ...]
    multilabel: bool = False

    def first(self, limit: int | None) -> Self:
        """The same with the first `limit` videos only; None keeps all."""
        return replace(self, videos=self.videos[:limit])

"""Which videos train and which validate; the test videos of a set do neither."""

from dataclasses import replace
from pathlib import Path

from ..data import sets
from ..data.dataset import Dataset, Video


def splits(data: str | Path, limit: int | None = None) -> tuple[Dataset, Dataset]:
    """The training and the validation videos of a data set.

    Where there is no validation split (Charades: what is called so elsewhere is its test split),
    the last eighth of the training videos is held out: of each class, or of all where videos have
    several classes. `limit` takes the first so many videos of each split.

    Raises:
        FileNotFoundError, ValueError: as `open_set`, and if a split is empty.
    """
    training = sets.open_set(data, "train", limit=limit)
    try:
        validation = None if training.multilabel else sets.open_set(data, "val", limit=limit)
    except FileNotFoundError:
        validation = None
    if validation is None:
        training, validation = _held_out(training)
    for part in (training, validation):
        if not part.videos:
            raise ValueError(f"expected videos for {part.split} in {data}, given none")
    return training, validation


def _held_out(data: Dataset) -> tuple[Dataset, Dataset]:
    """The data without the last eighth of each group, at least one video, and those."""
    groups: dict[int | None, list[Video]] = {}
    for video in data.videos:
        groups.setdefault(None if data.multilabel else video.class_id, []).append(video)
    held = {
        video.id
        for group in groups.values()
        for video in group[len(group) - max(1, len(group) // 8) :]
        if len(group) > 1
    }
    parts = [[], []]
    for video in data.videos:
        parts[video.id in held].append(video)
    training, validation = map(tuple, parts)
    return replace(data, videos=training), replace(data, split="held out", videos=validation)

"""Which videos train and which validate; the test videos of a set do neither."""

from dataclasses import replace
from pathlib import Path

from ..data.dataset import Dataset, Video
from ..data.sets import open_set


def splits(data: str | Path, limit: int | None = None) -> tuple[Dataset, Dataset]:
    """The training and the validation videos of a data set, or of the first `limit` of each split.

    Where there is no validation split (of Charades, what is called so elsewhere is the test
    split), the last eighth of the training videos is held out: of each class, or of all where
    videos have several classes.

    Raises:
        FileNotFoundError, ValueError: as `open_set`, and if no video is left for one of the two.
    """
    training = _training(data, limit)
    try:
        if training.multilabel or training.split == "all":
            raise FileNotFoundError
        validation = open_set(data, "val", limit=limit)
    except FileNotFoundError:
        training, validation = _held_out(training)
    for part in (training, validation):
        if not part.videos:
            raise ValueError(f"expected {part.split} videos in {data}, given none")
    return training, validation


def _training(data: str | Path, limit: int | None) -> Dataset:
    """The split train, or all videos of a folder of one's own without splits."""
    try:
        return open_set(data, "train", limit=limit)
    except ValueError:
        whole = open_set(data, limit=limit)
        if whole.split != "all":
            raise
        return whole


def _held_out(data: Dataset) -> tuple[Dataset, Dataset]:
    """The data without the last eighth of each group, one video or more of several, and those."""
    groups: dict[int | None, list[Video]] = {}
    for video in data.videos:
        groups.setdefault(None if data.multilabel else video.class_id, []).append(video)
    last = [group[-max(1, len(group) // 8) :] for group in groups.values() if len(group) > 1]
    held = {video.id for group in last for video in group}
    training = tuple(video for video in data.videos if video.id not in held)
    validation = tuple(video for video in data.videos if video.id in held)
    return replace(data, videos=training), replace(data, split="held-out", videos=validation)

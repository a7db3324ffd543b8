"""A data set of one's own: one folder of videos per class, with or without splits."""

from pathlib import Path

from . import files
from .dataset import Dataset, Video

LABELS = "labels.txt"  # one class per line, in the order of the ids


def load(root: Path, split: str | None = None) -> Dataset:
    """The videos of `root/<split>/<class>/`, or of `root/<class>/` where nothing is split.

    Classes are the folders' names of all splits together in code-point order, or those of
    `labels.txt` in the root. A video's id is "class/file". The split is test unless given; without
    splits it is called "all" and none may be asked for. Hidden folders and files are passed over.

    Raises FileNotFoundError for a folder that is not there, ValueError where there is no video, or
    a class that labels.txt lacks.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"expected a folder of videos, given {root}, which is none")
    splits = _splits(root)
    if not splits and split is not None:
        raise ValueError(
            f"{root} has no splits: leave the split away, or put its classes into folders such as "
            f"{root.name}/{split}/CLASS; given {split!r}"
        )
    labels = _labels(root, list(splits.values()) or [root])
    chosen = files.split_name(split or "test") if splits else "all"
    if splits and chosen not in splits:
        raise FileNotFoundError(
            f"{root} has no split {chosen}; expected one of {', '.join(sorted(splits))}"
        )
    videos = _videos(splits.get(chosen, root), labels)
    if not videos:
        raise ValueError(
            f"{splits.get(chosen, root)}: expected one folder per class with videos in it "
            f"({', '.join(files.EXTENSIONS)}), given none"
        )
    return Dataset(root.resolve().name, chosen, labels, videos)


def folders(root: Path, split: str) -> list[Path]:
    """Where the videos of a split (or of "all") lie."""
    return [_splits(root).get(split, root)]


def _splits(root: Path) -> dict[str, Path]:
    """Folders named like a split that hold folders, as classes do not."""
    return {
        name: root / spelling
        for name, spellings in files.SPELLINGS.items()
        for spelling in reversed(spellings)  # of several the first spelling stays
        if _classes(root / spelling)
    }


def _classes(folder: Path) -> list[Path]:
    """The folders within a folder, in code-point order of their names."""
    found = folder.iterdir() if folder.is_dir() else ()
    visible = (path for path in found if path.is_dir() and not path.name.startswith("."))
    return sorted(visible, key=lambda path: path.name)


def _labels(root: Path, parents: list[Path]) -> tuple[str, ...]:
    found = sorted({path.name for parent in parents for path in _classes(parent)})
    table = root / LABELS
    if not table.is_file():
        return tuple(found)
    with files.reading(table) as file:
        labels = tuple(line.strip() for line in file if line.strip())
    if len(set(labels)) < len(labels) or not set(found) <= set(labels):
        odd = ", ".join(sorted(set(found) - set(labels))) or "a name twice"
        raise ValueError(
            f"{table}: expected every class folder's name once, one per line; it has or lacks: "
            f"{files.shown(odd)}"
        )
    return labels


def _videos(folder: Path, labels: tuple[str, ...]) -> tuple[Video, ...]:
    class_ids = {label: i for i, label in enumerate(labels)}
    videos = []
    for place in _classes(folder):
        for path in sorted(place.iterdir(), key=lambda path: path.name):
            if files.is_video(path) and path.is_file() and not path.name.startswith("."):
                class_id, name = class_ids[place.name], f"{place.name}/{path.name}"
                videos.append(Video(name, place.name, class_id, path, (class_id,)))
    return tuple(videos)

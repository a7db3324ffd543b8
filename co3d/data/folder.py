"""A data set of one's own: one folder of videos per class, with or without splits."""

from pathlib import Path

from .dataset import EXTENSIONS, SPELLINGS, Dataset, Video, is_video, split_name

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
    chosen = split_name(split or "test") if splits else "all"
    if splits and chosen not in splits:
        raise FileNotFoundError(
            f"{root} has no split {chosen}; expected one of {', '.join(sorted(splits))}"
        )
    place, videos = splits.get(chosen, root), []
    for folder in _folders(place):
        class_id = labels.index(folder.name)
        for path in sorted(folder.iterdir()):
            if is_video(path) and path.is_file() and not path.name.startswith("."):
                name = f"{folder.name}/{path.name}"
                videos.append(Video(name, folder.name, class_id, path, (class_id,)))
    if not videos:
        raise ValueError(
            f"{place}: expected one folder per class with videos in it "
            f"({', '.join(EXTENSIONS)}), given none"
        )
    return Dataset(root.resolve().name, chosen, labels, tuple(videos), places=(place,))


def _splits(root: Path) -> dict[str, Path]:
    """Folders named like a split that hold folders, as classes do not."""
    return {
        name: root / spelling
        for name, spellings in SPELLINGS.items()
        for spelling in reversed(spellings)  # of several the first spelling stays
        if _folders(root / spelling)
    }


def _folders(folder: Path) -> list[Path]:
    """The folders within a folder, in code-point order of their names."""
    paths = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in paths if path.is_dir() and not path.name.startswith("."))


def _labels(root: Path, parents: list[Path]) -> tuple[str, ...]:
    classes = sorted({path.name for parent in parents for path in _folders(parent)})
    table = root / LABELS
    if not table.is_file():
        return tuple(classes)
    lines = table.read_text("utf-8-sig").splitlines()
    labels = tuple(line.strip() for line in lines if line.strip())
    if len(set(labels)) < len(labels) or not set(classes) <= set(labels):
        raise ValueError(
            f"{table}: expected every class folder's name once, one per line; missing are "
            f"{sorted(set(classes) - set(labels))}"
        )
    return labels

"""All data sets by name, or a folder of one's own."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from . import charades, download, folder, kinetics, remote, synthetic, synthetic_charades
from .dataset import Dataset, home, split_name

REAL = {"kinetics400": kinetics, "charades": charades}
GENERATED = {"synthetic-kinetics": synthetic, "synthetic-charades": synthetic_charades}
NAMES = (*REAL, *GENERATED)
DEFAULT_SPLITS = dict.fromkeys(NAMES, "test") | {"kinetics400": "val"}


def open_set(
    name_or_folder: str | Path,
    split: str | None = None,
    *,
    root: str | Path | None = None,
    limit: int | None = None,
) -> Dataset:
    """The planned videos of a data set, or the first `limit` of them.

    Args:
        name_or_folder: one of NAMES, or a folder with one folder of videos per class (see
            `folder.load`) or its address. A name wins over a folder of that name: write `./name`
            or give a Path.
        split: train, val or test in any spelling; None is DEFAULT_SPLITS.
        root: where the set lies, a folder or an address such as s3://bucket/kinetics400, see
            `remote`; None is `set_root`. Generated sets are made on first use.

    Raises:
        FileNotFoundError: the set, or this split of it, is not there.
        ValueError: no such set, or an annotation that cannot be used.
        OSError: if an address cannot be read.
    """
    name = str(name_or_folder)
    known = name in NAMES and not isinstance(name_or_folder, Path)
    if root is not None and not known:
        raise ValueError(f"expected root only with one of {', '.join(NAMES)}, given {name}")
    split = split or DEFAULT_SPLITS[name] if known else split
    if remote.is_address(root):
        if name not in REAL:
            raise ValueError(
                f"expected an address only of {' or '.join(REAL)}, given one of {name}"
            )
        data = remote.opened(root, lambda folder: REAL[name].load(folder, split))
    elif remote.is_address(name):
        data = remote.opened(name, lambda folder: _own(str(folder), split))
    elif not known:
        data = _own(name, split)
    elif name in GENERATED:
        data = GENERATED[name].dataset(split, root, limit=limit)
    else:
        data = REAL[name].load(set_root(name, root), split)
    return data.first(limit)


def open_parts(
    parts: int,
    split: str | None = None,
    *,
    root: Path | None = None,
    limit: int | None = None,
    tell: Callable[[str], None] = print,
) -> Dataset:
    """The videos of Kinetics-400 that its first archives hold, which are fetched if need be.

    The set has a name of its own, so that what is measured on it is not taken for more. `tell` is
    given the licence and what is fetched. Raises as `download.fetch_kinetics` and `open_set`.
    """
    name = "kinetics400"
    split = split_name(split or DEFAULT_SPLITS[name])
    root = download.fetch_kinetics(split, parts, root=root, tell=tell)
    names = download.unpacked(download.kinetics_archives(split, parts, root), root)
    whole = open_set(name, split, root=root)
    videos = tuple(video for video in whole.videos if video.path and video.path.name in names)
    return replace(whole, name=f"{name}-parts-{parts}", videos=videos).first(limit)


def set_root(name: str, root: Path | None = None) -> Path:
    """The folder of a set: the given one, or that of its name under DATASETS_PATH.

    Generated sets lie in the cache, made or not. Raises FileNotFoundError with what to do where a
    real set is not there.
    """
    if name in GENERATED:
        return Path(root or GENERATED[name].folder())
    root = home(name, root)
    if not root.is_dir():
        raise FileNotFoundError(
            f"{name} is not there: no folder {root}; put the set there or run "
            f"`co3d download {name}`"
        )
    return root


def _own(name: str, split: str | None) -> Dataset:
    """A folder of one's own; refused where it would pass for a real set with other class ids."""
    root = Path(name)
    if not root.is_dir() and os.sep not in name:
        raise ValueError(f"expected {', '.join(NAMES)} or a folder of videos, given {name}")
    if table := kinetics.published(root):
        raise ValueError(
            f"{table} is an annotation of Kinetics, whose class ids folders cannot tell; give the "
            f"set's name and this folder as its root: --root {root} kinetics400"
        )
    data = folder.load(root, split)
    if data.name in NAMES:
        raise ValueError(
            f"a folder of one's own may not be called {data.name}, because its results would pass "
            "for those of the set; rename it"
        )
    return data

"""Kinetics-400 and Charades from where they are published, into DATASETS_PATH.

Only the addresses and what is known of the files; `fetching` does the work.
"""

import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from .. import web
from ..paths import datasets_path
from .fetching import Answer, Job, Published

GIB = 2**30
BASES = {
    "kinetics400": "https://s3.amazonaws.com/kinetics/400",
    "charades": "https://ai2-public-datasets.s3-us-west-2.amazonaws.com/charades",
}
NOTICES = {
    "kinetics400": "Kinetics-400: the annotations are licensed CC BY 4.0; the videos belong to "
    "those who uploaded them.",
    "charades": "Charades is for non-commercial use only, and neither its videos nor its "
    "annotations may be passed on: prior.allenai.org/projects/data/charades/license.txt",
}

VAL_SHA256 = "358eaf47e7f80ebf9b17d49eb0635ad5e0fdab98a9cbd75ffdd2ee5d5e5b6944"
KINETICS_PARTS = {
    split: Published(f"{split}/k400_{split}_path.txt", ".download", 2**20)
    for split in ("train", "val", "test")
}
KINETICS_ANNOTATIONS = {
    split: Published(f"annotations/{split}.csv", "annotations", GIB // 8)
    for split in KINETICS_PARTS
}
KINETICS_ANNOTATIONS["val"] = replace(KINETICS_ANNOTATIONS["val"], sha256=VAL_SHA256)
KINETICS_PART = Published("", "", 16 * GIB, suffixes=(".mp4",))
KINETICS_REPLACEMENT = Published(
    "replacement_for_corrupted_k400.tgz", "train", 16 * GIB, suffixes=(".mp4",)
)
CHARADES = {
    "annotations": Published(
        "Charades.zip", "Charades", GIB // 8, ratio=50, members=1000, suffixes=(".csv", ".txt")
    ),
    "videos": Published("Charades_v1_480.zip", "Charades_v1_480", 32 * GIB, suffixes=(".mp4",)),
    "frames": Published(
        *("Charades_v1_rgb.tar", "Charades_v1_rgb", 160 * GIB),
        **{"members": 12_000_000, "suffixes": (".jpg",), "depth": 2},
    ),
}


def fetch_kinetics(
    split: str = "val",
    parts: int | None = None,
    *,
    root: Path | None = None,
    tell: Callable[[str], None] = print,
) -> Path:
    """Annotations and videos of a split of Kinetics-400; returns the root of the set.

    Args:
        parts: how many archives (val has 20 of 1.5 GB each), from the first; None: all.
        root: instead of DATASETS_PATH/kinetics400.
        tell: is given the licence before anything is fetched, then a line for each file.

    Raises:
        ConnectionError: if nobody answers, or the answer is an error or was cut off.
        ValueError: for a split or number of parts that there is not, without DATASETS_PATH, or if
            a file is not what it should be.
        OSError: if the disk is too full.
    """
    command = _kinetics_command(split, parts)
    with _job("kinetics400", root, command, tell, agree=tell) as job:
        wanted = _kinetics_archives(job, split, parts)
        job.fetch(KINETICS_ANNOTATIONS[split], _check_annotation)
        if split == "train":  # before the parts: what is there is never overwritten
            job.fetch_archives([KINETICS_REPLACEMENT])
        job.fetch_archives(wanted)
    return job.root


def fetch_kinetics_parts(
    split: str, parts: int, *, root: Path | None = None, tell: Callable[[str], None] = print
) -> tuple[Path, set[str]]:
    """As `fetch_kinetics`; returns the root of the set, and the names of the files of the parts."""
    root = fetch_kinetics(split, parts, root=root, tell=tell)
    job = _quiet("kinetics400", root, _kinetics_command(split, parts))
    archives = _kinetics_archives(job, split, parts)
    return root, {name for archive in archives for name in job.names(archive)}


def fetch_charades(
    form: str = "videos",
    *,
    agree: Callable[[str], None],
    root: Path | None = None,
    tell: Callable[[str], None] = print,
) -> Path:
    """Annotations of Charades and its videos; returns the root of the set.

    Args:
        form: annotations (alone, 3 MB), videos (13 GB) or frames (76 GB, and as much unpacked).
        agree: is given the licence before anything is fetched; it raises if that is not accepted.
        root: instead of DATASETS_PATH/charades.
        tell: is given a line for each file.

    Raises:
        ConnectionError, ValueError, OSError: as `fetch_kinetics`.
    """
    option = "--annotations-only" if form == "annotations" else f"--form {form}"
    command = f"co3d download charades {option} --yes"
    with _job("charades", root, command, tell, agree) as job:
        job.fetch_archives(_charades_archives(form))
    return job.root


def kinetics_sizes(split: str = "val", parts: int | None = None) -> Iterator[Answer]:
    """Every address that `fetch_kinetics` reads; raises as that where the list is not to be had."""
    command = _kinetics_command(split, parts) + " --check"
    with tempfile.TemporaryDirectory() as folder:
        job = _quiet("kinetics400", Path(folder), command)
        others = [KINETICS_REPLACEMENT] if split == "train" else []
        wanted = _kinetics_archives(job, split, parts)
        yield from job.sizes([KINETICS_ANNOTATIONS[split], *others, *wanted])


def charades_sizes(form: str = "videos") -> Iterator[Answer]:
    """Every address that `fetch_charades` reads."""
    job = _quiet("charades", Path(), "co3d download charades --check")
    yield from job.sizes(_charades_archives(form))


def _kinetics_command(split: str, parts: int | None) -> str:
    if split not in KINETICS_PARTS:
        raise ValueError(f"expected a split of {', '.join(KINETICS_PARTS)}, given {split!r}")
    return f"co3d download kinetics400 --split {split}" + (f" --parts {parts}" if parts else "")


def _kinetics_archives(job: Job, split: str, parts: int | None) -> list[Published]:
    """The first archives of a split, as the published list names them."""
    urls = job.fetch(KINETICS_PARTS[split], _urls).read_text("utf-8").split()
    if parts is not None and not 1 <= parts <= len(urls):
        raise ValueError(f"expected 1 to {len(urls)} parts of {split}, given {parts}")
    return [replace(KINETICS_PART, url=url, into=split) for url in urls[:parts]]


def _charades_archives(form: str) -> list[Published]:
    if form not in CHARADES:
        raise ValueError(f"expected a form of {', '.join(CHARADES)}, given {form!r}")
    return [CHARADES[name] for name in dict.fromkeys(("annotations", form))]


def _urls(path: Path) -> None:
    """Refuses what is no list of addresses of archives with names of their own."""
    urls = path.read_text("utf-8", errors="replace").split()
    names = {url.rpartition("/")[2] for url in urls}
    if not urls or len(names) < len(urls) or len(urls) > 1000 or not all(map(_is_archive, names)):
        raise ValueError("is no list of addresses of archives")


def _is_archive(name: str) -> bool:
    return bool(re.fullmatch(r"[\w-][\w.-]{0,99}\.(tar\.gz|tgz)", name, re.ASCII))


def _check_annotation(path: Path) -> None:
    with path.open("rb") as file:
        head = file.readline(1000)
    if b"youtube_id" not in head or b"time_start" not in head:
        raise ValueError("is no annotation of Kinetics: its first line names no youtube_id")


def _quiet(name: str, root: Path, command: str) -> Job:
    """For what is only asked."""
    return Job(root, BASES[name], "", command, lambda line: None, lambda notice: None)


@contextmanager
def _job(
    name: str, root: Path | None, command: str, tell: Callable, agree: Callable
) -> Iterator[Job]:
    """One process at a time fetches files of a set; others wait."""
    if root is None:
        if (base := datasets_path()) is None:
            raise ValueError(
                "expected DATASETS_PATH, the folder of the data sets: set it in the environment "
                "or in .env (see .env.example)"
            )
        root = base / name
    job = Job(root, BASES[name], NOTICES[name], command, tell, agree)
    job.work.mkdir(parents=True, exist_ok=True)
    with web.alone(job.work / "download"):
        yield job

"""What is missing, broken or extra in a data set's folder."""

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ..progress import bar
from . import charades, sets
from .dataset import Dataset, Video, is_video, walk
from .sampling import opened
from .video import VideoError

# Rows of the published annotations and files of the published archives.
OFFICIAL = {
    ("kinetics400", "train"): (246_534, 240_258),
    ("kinetics400", "val"): (19_906, 19_881),
    ("kinetics400", "test"): (39_805, 38_685),
    ("charades", "train"): (7_985, 7_985),
    ("charades", "test"): (1_863, 1_863),
}


class Finding(NamedTuple):
    """Kind "missing", "broken" or "extra"; which video (id) or file, and why in a few words."""

    kind: str
    what: str
    why: str


@dataclass(frozen=True)
class Verification:
    """A split as planned, and what is wrong with its files; `note` says what was not checked."""

    data: Dataset
    findings: tuple[Finding, ...]
    note: str

    @property
    def complete(self) -> bool:
        """Nothing is missing or broken; extra files do no harm."""
        return all(finding.kind == "extra" for finding in self.findings)

    @property
    def summary(self) -> str:
        """Counts, beside those of the published set where there is one."""
        counts, rows = Counter(finding.kind for finding in self.findings), len(self.data.videos)
        text = (
            f"{self.data.name}, split {self.data.split}: {rows - counts['missing']:,} of {rows:,} "
            f"planned videos are there; {counts['missing']:,} missing, {counts['broken']:,} "
            f"broken, {counts['extra']:,} extra"
        )
        if official := OFFICIAL.get((self.data.name, self.data.split)):
            text += f"\npublished: {official[0]:,} rows, {official[1]:,} videos"
        return f"{text}\nnot checked: {self.note}" if self.note else text


def verify(
    name_or_folder: str | Path,
    split: str | None = None,
    *,
    root: Path | None = None,
    decode: bool = False,
    progress: bool = True,
) -> Verification:
    """Compares the files of a split with its plan, see `sets.open_set` for the arguments.

    Every video is opened, and with `decode` every frame of it decoded. Nothing is written, except
    that missing videos of generated sets are made. Raises as `sets.open_set`.
    """
    data = sets.open_set(name_or_folder, split, root=root)
    videos = [video for video in data.videos if video.path is not None]
    findings = [Finding("missing", v.id, v.label) for v in data.videos if v.path is None]
    pool = ThreadPoolExecutor(os.cpu_count())  # decoding runs outside of Python's lock
    try:
        faults = pool.map(partial(fault, decode=decode), videos)
        faults = list(bar(faults, "verify", len(videos), progress, "video"))
    finally:
        pool.shutdown(cancel_futures=True)  # so that Ctrl-C does not wait for all of them
    for video, why in zip(videos, faults, strict=True):
        if why:
            findings.append(Finding("broken", str(video.path), why))
    note = ""
    try:
        findings += _extra(data, root)
    except FileNotFoundError as error:
        note = f"which files are extra ({error})"
    return Verification(data, tuple(findings), note)


def fault(video: Video, decode: bool) -> str:
    """Why the video's file or folder of frames cannot be used, "" where nothing speaks against."""
    folder = video.path.is_dir()
    try:
        for path in walk(video.path) if folder else ():
            if path.stat().st_size == 0:
                return f"{path.name} is empty (0 bytes)"
        with opened(video.path, video.frames_fps) as reader:
            for _, frame in reader.decode() if decode or folder else ():
                if decode and folder:
                    reader.rgb(frame)
        return reader.note if reader.n_frames and reader.status != "ok" else ""
    except VideoError as error:
        return str(error).removeprefix(str(video.path)).lstrip(":/ ")
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"


def _extra(data: Dataset, root: Path | None) -> Iterator[Finding]:
    """Files beside the videos of a split that are no videos of the plan.

    Videos of both splits of Charades lie in one folder. Raises FileNotFoundError where the
    annotation of the other is not there.
    """
    videos = data.videos
    if data.multilabel and data.places:
        home, other = sets.set_root(data.name, root), "train" if data.split == "test" else "test"
        videos += charades.load(home, other, len(data.labels), data.name).videos
    known = {os.path.abspath(video.path) for video in videos if video.path}
    names = {video.id for video in videos}
    for place in data.places:
        frames = place.name == charades.FRAME_FOLDER
        for path in sorted(charades.media_by_id(place).values() if frames else walk(place)):
            if os.path.abspath(path) not in known:
                copy = path.stem in names and is_video(path)
                why = "another file of its name is used" if copy else "no row plans it"
                yield Finding("extra", str(path), why)

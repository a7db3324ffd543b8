"""Predictions on disk: a file per reading, a line per video, written as they come.

The first line says all that decides the predictions; its sha256 is the file's name, so that results
of other weights, plans or protocols are never taken for these. A run that was killed goes on behind
its last whole line. When no video is missing, the lines are put in the order of the videos and the
file loses its `.part`: equal runs end in equal bytes, and a partial one cannot pass for a full one.
"""

import fcntl
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import numpy as np


class Store:
    """The predictions of one run, by video; a context that one process at a time can hold.

    Args:
        folder: of all runs of a data set.
        header: what decides the predictions, as JSON knows it.
        videos: all planned videos in order, with the size of each one's file (None: missing). The
            record of a video that has another size now is dropped.

    Attributes:
        records: what became of each video, by id.
        file: that says so, once every video has a record; `part` until then.
    """

    def __init__(
        self, folder: Path, header: Mapping[str, Any], videos: Mapping[str, int | None]
    ) -> None:
        self.first, self.videos = _line(header), dict(videos)
        name = f"{hashlib.sha256(self.first).hexdigest()[:16]}.jsonl"
        self.file, self.part = folder / name, folder / f"{name}.part"
        self.records: dict[str, dict] = {}

    def __enter__(self) -> Self:
        """Reads what is there.

        Raises:
            ValueError: if another process writes to it, or it is damaged.
            OSError: if it cannot be written.
        """
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            lock = stack.enter_context(self.file.with_name(f".{self.file.stem}.lock").open("w"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(f"another process is writing {self.part}: wait for it") from None
            self._load()
            self._lock = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._lock.close()

    @property
    def missing(self) -> list[str]:
        """Videos without a record, in order."""
        return [video for video in self.videos if video not in self.records]

    @property
    def statuses(self) -> Counter:
        """How many planned videos ended how."""
        return Counter(record["status"] for record in self.records.values())

    @property
    def notes(self) -> dict[str, str]:
        """Why a video gave nothing, by id."""
        return {v: record["note"] for v, record in self.records.items() if "note" in record}

    def add(self, video: str, record: Mapping[str, Any]) -> None:
        """Appends the record of a video.

        Raises:
            OSError: if the disk is full; what was written before stays whole.
        """
        record = {**record, "bytes": self.videos[video]}
        try:
            with self.part.open("ab") as file:
                file.write(_line({"video": video, **record}))
        except OSError as error:
            raise OSError(
                f"{self.part} cannot be written ({error.strerror}): make room, then run the same "
                "command again, it goes on where it stopped"
            ) from None
        self.records[video] = record

    def finish(self) -> Path:
        """Puts the lines in order and drops the `.part`; the path of the whole file.

        Raises:
            ValueError: if a video has no record.
        """
        if self.missing:
            raise ValueError(f"{len(self.missing)} of {len(self.videos)} videos have no record")
        if self.part.is_file():
            self._write(self.part, self.videos)
            os.replace(self.part, self.file)
        return self.file

    def _load(self) -> None:
        """The records of the whole file, else of the whole lines of a partial one."""
        source = self.file if self.file.is_file() else self.part
        data = source.read_bytes() if source.is_file() else b""
        whole = data[: data.rfind(b"\n") + 1]
        first, *lines = whole.splitlines(keepends=True) or [self.first]
        try:
            records = {record.pop("video"): record for record in map(json.loads, lines)}
            if first != self.first or len(records) < len(lines) or records.keys() - self.videos:
                raise ValueError("another header, or other videos")
            same = [v for v, record in records.items() if record["bytes"] == self.videos[v]]
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
            raise ValueError(f"{source} is damaged: delete it, it is computed anew") from None
        self.records = {video: records[video] for video in same}
        if whole and source == self.part and len(same) == len(lines):
            os.truncate(self.part, len(whole))  # which a full disk allows
        elif self.missing or source == self.part:
            self._write(self.part, self.records)
            self.file.unlink(missing_ok=True)

    def _write(self, path: Path, videos: Iterable[str]) -> None:
        new = path.with_name(f".{path.name}.new")
        with new.open("wb") as file:
            file.write(self.first)
            file.writelines(_line({"video": video, **self.records[video]}) for video in videos)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)


def numbers(values: np.ndarray) -> list[float]:
    """A float32 vector as the shortest decimal numbers that read back as the same bits."""
    return [float(str(value)) for value in np.asarray(values, np.float32)]


def _line(record: Mapping[str, Any]) -> bytes:
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode() + b"\n"

"""Predictions on disk: a file per reading, a line per video, written as they come.

The first line says all that decides the predictions; its sha256 is the run key and the file's name.
So results of other weights, plans, protocols or code are never taken for these. A run that was
killed goes on behind its last whole line. Lines may come in any order; when none is missing the
file is put in the order of the videos and loses its `.part`, so that equal runs end in equal bytes,
and a partial one cannot pass for a full one.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

KEY_DIGITS = 16


class Store:
    """The predictions of one run, by video; a context that one process at a time can hold.

    Args:
        folder: of all runs of a data set.
        header: what decides the predictions, as JSON knows it.
        videos: all planned videos in order, with the size of each one's file (None: missing). The
            record of a video that has another size now is dropped.
    """

    def __init__(
        self, folder: Path, header: Mapping[str, Any], videos: Mapping[str, int | None]
    ) -> None:
        self.header, self.videos = dict(header), dict(videos)
        self.key = run_key(header)
        self.path = Path(folder) / f"{self.key}.jsonl"
        self.part = self.path.with_name(self.path.name + ".part")
        self.records: dict[str, dict] = {}

    def __enter__(self) -> Self:
        """Reads what is there.

        Raises:
            ValueError: if another process writes to it, or it is damaged.
            OSError: if it cannot be written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = self.path.with_name(f".{self.key}.lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._load()
        except BlockingIOError:
            self._lock.close()
            raise ValueError(f"another process is writing {self.part}: wait for it") from None
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._lock.close()

    @property
    def missing(self) -> list[str]:
        """Videos without a record, in order."""
        return [video for video in self.videos if video not in self.records]

    def add(self, video: str, record: Mapping[str, Any]) -> None:
        """Appends the record of a video.

        Raises:
            OSError: if the disk is full; what was written before stays whole.
        """
        if video in self.records or video not in self.videos:
            raise ValueError(f"expected one record for each planned video, given {video!r}")
        record = {**record, "bytes": self.videos[video]}
        size = self.part.stat().st_size
        try:
            with self.part.open("ab") as file:
                file.write(_line({"video": video, **record}))
        except OSError as error:
            os.truncate(self.part, size)
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
            os.replace(self.part, self.path)
        return self.path

    def _load(self) -> None:
        """The records of the whole file, else of the whole lines of a partial one."""
        if self.path.is_file():
            self.records = self._read(self.path, self.path.read_bytes())
            if self.missing:  # of videos that came or changed
                self._write(self.part, self.records)
                self.path.unlink()
            return
        data = self.part.read_bytes() if self.part.is_file() else b""
        whole = data[: data.rfind(b"\n") + 1]
        if whole:
            self.records = self._read(self.part, whole)
            os.truncate(self.part, len(whole))
        if len(self.records) + 1 != whole.count(b"\n"):
            self._write(self.part, self.records)

    def _write(self, path: Path, videos: Iterable[str]) -> None:
        new = path.with_name(f".{path.name}.new")
        with new.open("wb") as file:
            file.write(_line(self.header))
            for video in videos:
                file.write(_line({"video": video, **self.records[video]}))
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)

    def _read(self, path: Path, data: bytes) -> dict[str, dict]:
        """Raises ValueError for what `add` and `finish` do not write."""
        records = {}
        try:
            first, *lines = data.splitlines()
            if first + b"\n" != _line(self.header):
                raise ValueError("another header")
            for line in lines:
                record = json.loads(line)
                video = record.pop("video")
                if video not in self.videos or video in records:
                    raise ValueError("another plan")
                records[video] = record
            same = {v for v, record in records.items() if record["bytes"] == self.videos[v]}
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
            raise ValueError(f"{path} is damaged: delete it, it will be computed anew") from None
        return {video: record for video, record in records.items() if video in same}


def run_key(header: Mapping[str, Any]) -> str:
    """The name of a run: the start of the sha256 of all that decides it."""
    return hashlib.sha256(_line(header)).hexdigest()[:KEY_DIGITS]


def numbers(values: np.ndarray) -> list[float]:
    """A float32 vector as the shortest decimal numbers that read back as the same bits."""
    return [float(str(value)) for value in np.asarray(values, np.float32)]


def _line(record: Mapping[str, Any]) -> bytes:
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode() + b"\n"

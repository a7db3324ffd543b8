"""A folder of numbered JPEG frames, as Charades is distributed, read like a video."""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter

from .video import MAX_PIXELS, VideoError

END, TAIL = b"\xff\xd9", 64  # bytes that a picture ends with; some writers put a few behind
NUMBERED = re.compile(r"(?!\._)(?:.*\D)?(\d{1,9})\.jpe?g", re.IGNORECASE | re.ASCII)


class FolderReader:
    """Frames of a folder, by the number at the end of their names; the interface is Reader's.

    Frame k of the numbers (the first is 1) is shown at (k - first) / fps. Numbers that are left
    out count as lost.
    """

    origin = 0.0
    fault = ""  # of the end; nothing claims where that should be

    def __init__(self, source: str | Path, fps: float | None) -> None:
        self.source, self.n_frames, self._lost = Path(source), 0, 0
        if fps is None or not 0 < fps < math.inf:
            raise VideoError(f"{source}: a folder of frames needs a rate above 0, given {fps}.")
        self.fps = float(fps)
        self._reformatter = VideoReformatter()

    def __enter__(self) -> Self:
        matches = ((NUMBERED.fullmatch(path.name), path) for path in self.source.iterdir())
        self._numbered = sorted(
            (int(match[1]), path) for match, path in matches if match and path.is_file()
        )
        if not self._numbered:
            raise VideoError(f"{self.source}: there are no numbered JPEG frames in this folder.")
        if len(dict(self._numbered)) < len(self._numbered):
            raise VideoError(f"{self.source}: two JPEG frames have the same number.")
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    @property
    def status(self) -> str:
        """As of `Reader`: "ok", or "partial" once a frame was missing."""
        return "partial" if self._lost else "ok"

    @property
    def note(self) -> str:
        """How many frames were lost, as a sentence; "" if none was."""
        return f"JPEG frames missing or damaged: {self._lost}." if self._lost else ""

    def packet_times(self) -> tuple[float, ...]:
        """The times that `decode` gives, from the names of the files."""
        first = self._numbered[0][0]
        return tuple((number - first) / self.fps for number, _ in self._numbered)

    def decode(self) -> Iterator[tuple[float, Path]]:
        """The files with their times; `rgb` reads them."""
        start = min(1, self._numbered[0][0])
        for time, (number, path) in zip(self.packet_times(), self._numbered, strict=True):
            self._lost = number - start - self.n_frames
            self.n_frames += 1
            yield time, path

    def rgb(self, path: Path) -> np.ndarray:
        """The picture, uint8 (H,W,3); VideoError where there is none in the file."""
        data = path.read_bytes()
        # The decoder alone, so that no name makes FFmpeg take the bytes for something else.
        context = av.CodecContext.create("mjpeg", "r")
        context.options = {"max_pixels": str(MAX_PIXELS)}
        try:  # of a picture without its end the decoder would fill up what is missing
            frames = context.decode(av.Packet(data)) if END in data[-TAIL:] else []
        except FFmpegError:
            frames = []
        if not frames or frames[0].is_corrupt:
            raise VideoError(f"{path}: is damaged or no JPEG.")
        return self._reformatter.reformat(frames[0], format="rgb24", threads=1).to_ndarray()

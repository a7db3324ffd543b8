"""Video files from frames, through PyAV (FFmpeg)."""

import os
from fractions import Fraction
from pathlib import Path
from typing import Self

import av
import numpy as np

FORMATS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".avi": "avi"}


class Writer:
    """Encodes uint8 (H,W,3) RGB frames as H.264; the file appears under its name when complete.

    `with Writer(path, fps) as writer: writer.add(rgb)`. One encoder thread and no date: the same
    frames give the same bytes. Players apply the `rotation` (degrees counter-clockwise). If
    writing fails, no file is left.

    Raises:
        ValueError: for a suffix that is not in FORMATS.
    """

    def __init__(
        self,
        path: str | Path,
        fps: float | Fraction,
        *,
        crf: int = 23,
        preset: str = "veryfast",
        rotation: int = 0,
    ) -> None:
        self.path = Path(path)
        if self.path.suffix not in FORMATS:
            raise ValueError(f"{path}: expected a name that ends in {', '.join(FORMATS)}")
        self._rate, self._rotation = Fraction(fps).limit_denominator(1001), rotation
        # Macroblock trees read stray memory in pictures of a few blocks: no two files alike.
        self._options = {"crf": str(crf), "preset": preset, "mbtree": "0"}

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._part = self.path.with_name(f"{self.path.name}.{os.getpid()}.part")
        self._container = av.open(str(self._part), "w", format=FORMATS[self.path.suffix])
        stream = self._container.add_stream("libx264", rate=self._rate, options=self._options)
        stream.thread_count = 1
        stream.pix_fmt = "yuv420p"
        if self._rotation:
            stream.set_display_rotation(self._rotation)
        self._stream, self._sized = stream, False
        return self

    def add(self, rgb: np.ndarray) -> None:
        """Encodes the next frame, of the size of the first one, which is even."""
        if not self._sized:
            self._stream.height, self._stream.width = rgb.shape[:2]
            self._sized = True
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
        self._container.mux(self._stream.encode(frame))

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with self._container:
                if kind is None:
                    self._container.mux(self._stream.encode(None))
            if kind is None:
                self._part.replace(self.path)
        finally:
            self._part.unlink(missing_ok=True)

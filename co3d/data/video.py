"""Video files, cameras and streams as timed RGB frames, through PyAV (FFmpeg)."""

import os
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def write(
    path: str | Path,
    frames: Iterable[np.ndarray],
    fps: float | Fraction,
    *,
    crf: int = 23,
    preset: str = "veryfast",
    rotation: int = 0,
) -> None:
    """Encode uint8 (H,W,3) RGB frames as H.264; the file appears under its name when complete.

    One encoder thread and no time stamps of the day: the same frames give the same bytes.
    `rotation` (degrees counter-clockwise) is only recorded, for players to apply.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with av.open(str(part), "w", format=path.suffix.lstrip(".")) as container:
            rate = Fraction(fps).limit_denominator(1001)
            stream = container.add_stream(
                "libx264", rate=rate, options={"crf": str(crf), "preset": preset}
            )
            stream.thread_count = 1
            stream.pix_fmt = "yuv420p"
            if rotation:
                stream.set_display_rotation(rotation)
            for k, rgb in enumerate(frames):
                if k == 0:
                    stream.height, stream.width = rgb.shape[:2]
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)

"""Video files, cameras and streams as timed RGB frames, through PyAV (FFmpeg).

Time comes from the frames' own presentation times, counted from the first frame; frame counts and
rates in headers are only claims. Pixels are taken as square, as every pipeline of this field does.
"""

import itertools
import math
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from time import perf_counter
from typing import Self

import av
import numpy as np
from av.error import FFmpegError
from av.stream import Disposition
from av.video.reformatter import VideoReformatter

from .writing import Writer

MAX_PIXELS = 2**25  # per frame: more than 8K (7680x4320), less than a made-up header can ask for
MAX_GAP = 60.0  # seconds; a longer jump between two frames is a broken time, not a pause
MAX_FAILURES = 16  # reads in a row that fail before a file counts as ended
MAX_KEPT = 2**29  # bytes of packets that are kept to be decoded
TIMEOUT = 10.0  # seconds, for stream addresses to open or to send something


class VideoError(ValueError):
    """A video that cannot be used; says which, why and, where there is something, what to do."""


@dataclass(frozen=True)
class VideoInfo:
    """Of the best video stream: size as displayed (rotation applied), frames per second (nan
    where nothing tells), seconds claimed (None for live sources), rotation that was applied
    (degrees counter-clockwise), codec name, number of video streams.
    """

    width: int
    height: int
    fps: float
    duration: float | None
    rotation: int
    codec: str
    streams: int


class Reader:
    """Frames of a file, camera (1, `webcam`, `webcam:1`) or stream address, one after the other.

    `with Reader(source) as reader: for time, rgb in reader: ...` gives seconds since the first
    frame and uint8 (H,W,3). Entering raises VideoError for what cannot be opened, iterating for
    a video without a single decodable frame. Damaged packets are survived and counted: `status`
    is "ok", "partial" or "decode_error", `note` says why in one sentence, "" where all is well.
    `decode_s` counts the seconds that the decoder took.
    """

    def __init__(self, source: str | Path | int) -> None:
        self.source = f"webcam:{source}" if isinstance(source, int) else str(source)
        self.n_frames, self.decode_s = 0, 0.0
        self.origin = 0.0  # seconds on the file's clock at the first frame, once that is known
        self._lost = self._damaged = 0
        self._counted = False  # time is index / rate, because presentation times are unusable
        self._missing_end = ""
        self._kept: list[av.Packet | None] = []  # by `packet_times`, for `decode`
        self._reformatter = VideoReformatter()

    def __enter__(self) -> Self:
        self._container = _open(self.source)
        try:
            self._stream = _video_stream(self._container, self.source)
        except VideoError:
            self._container.close()
            raise
        rate = self._stream.average_rate or self._stream.guessed_rate
        self.fps = float(rate) if rate else math.nan
        # AVI stores no presentation times, so with B-frames those that FFmpeg offers are guesses
        # in decode order. The frames come in the right order; they only have to be counted.
        b_frames = self._stream.codec_context.has_b_frames
        self._counted = self._container.format.name == "avi" and b_frames
        return self

    def __exit__(self, *exception: object) -> None:
        self._container.close()

    def __iter__(self) -> Iterator[tuple[float, np.ndarray]]:
        for time, frame in self.decode():
            yield time, self.rgb(frame)

    @property
    def live(self) -> bool:
        """Whether the source goes on by itself: a camera, or an address that tells no duration."""
        if "v4l2" in self._container.format.name:
            return True
        remote = "://" in self.source and not self.source.startswith("file:")
        return remote and _duration(self._container, self._stream) is None

    @property
    def status(self) -> str:
        """Of what was read so far: "ok", "partial" or "decode_error"."""
        if self.n_frames == 0:
            return "decode_error"
        return "partial" if self._lost or self._damaged or self._missing_end else "ok"

    @property
    def note(self) -> str:
        """What is damaged, missing or counted, as sentences; "" if nothing is."""
        counted = f"no usable presentation times, frames counted at {self.fps:.6g} fps"
        return _sentence((*self._faults(), (self._counted, counted)))

    @property
    def fault(self) -> str:
        """The part of `note` that says what is damaged or missing, "" if nothing is."""
        return _sentence(self._faults())

    def _faults(self) -> tuple[tuple[object, str], ...]:
        return (
            (self._lost, f"packets lost: {self._lost}"),
            (self._damaged, f"frames damaged: {self._damaged}"),
            (self._missing_end, self._missing_end),
        )

    def decode(self) -> Iterator[tuple[float, av.VideoFrame]]:
        """Frames as the decoder gives them, before `rgb`, with their times."""
        origin = last = None
        self.n_frames, self.origin, self._missing_end = 0, 0.0, ""
        packets = iter(self._kept or self._packets())
        for frame in itertools.chain.from_iterable(map(self._decoded, packets)):
            if not self._counted and frame.pts is None:
                self._counted = True
            if not self._counted:
                if origin is None:
                    origin = frame.pts
                    self.origin = float(origin * self._stream.time_base)
                time = float((frame.pts - origin) * self._stream.time_base)
                self._counted = last is not None and not last < time <= last + MAX_GAP
            if self._counted:
                time = self._next_time(last)
            self.n_frames += 1
            self._damaged += frame.is_corrupt
            last = time
            yield time, frame
        if last is None:
            raise VideoError(
                f"{self.source}: not a single frame could be decoded "
                f"({self._stream.codec.canonical_name}); the file is damaged or cut off."
            )
        self._check_end(last)

    def packet_times(self) -> tuple[float, ...] | None:
        """The times that `decode` should give, from the packets alone, without any pixels.

        None where only decoding can tell: without usable presentation times, after damage, or of
        more than MAX_KEPT bytes. The reader is of no more use then; else it can `decode`, once.
        """
        stamps, packets, size = [], [], 0
        for packet in self._packets():
            packets.append(packet)
            if packet and not packet.is_discard:
                stamps.append(packet.pts)
            size += packet.size if packet else 0
            if self._counted or None in stamps[-1:] or size > MAX_KEPT:
                return None
        stamps.sort()
        base = self._stream.time_base
        steps = (float((b - a) * base) for a, b in itertools.pairwise(stamps))
        if self._lost or not stamps or not all(0 < step <= MAX_GAP for step in steps):
            return None
        self.origin = float(stamps[0] * base)
        times = tuple(float((stamp - stamps[0]) * base) for stamp in stamps)
        self.n_frames, self._kept = len(times), packets
        self._check_end(times[-1])
        return times

    def _check_end(self, last: float) -> None:
        claimed = _duration(self._container, self._stream)
        end = last if math.isnan(self.fps) else last + 1 / self.fps
        if claimed and claimed - end > max(1.0, 0.1 * claimed):
            self._missing_end = f"the file claims {claimed:.1f} s but ends after {end:.1f} s"

    def rgb(self, frame: av.VideoFrame) -> np.ndarray:
        """The picture as displayed, uint8 (H,W,3): any pixel format to RGB, rotation applied."""
        # One thread: for small frames it is twice as fast as handing out slices.
        picture = self._reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
        turns = round(frame.rotation / 90) % 4
        return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture

    def _next_time(self, last: float | None) -> float:
        if math.isnan(self.fps):
            raise VideoError(f"{self.source}: neither usable frame times nor a frame rate.")
        # By index where counting began at the start, so that no rounding adds up.
        time = self.n_frames / self.fps
        return time if last is None or time > last else last + 1 / self.fps

    def _packets(self) -> Iterator[av.Packet | None]:
        """Packets of the stream, then None to flush; a failing read is counted and passed over."""
        patience = 1 if "://" in self.source else MAX_FAILURES
        failures = 0
        while failures < patience:
            try:
                for packet in self._container.demux(self._stream):
                    failures = 0
                    if packet.size:  # an empty one would end the decoder
                        yield packet
                break
            except FFmpegError:
                failures += 1
                self._lost += 1
        yield None

    def _decoded(self, packet: av.Packet | None) -> list[av.VideoFrame]:
        begun = perf_counter()
        try:
            return self._stream.decode(packet)
        except FFmpegError:
            self._lost += 1
            return []
        finally:
            self.decode_s += perf_counter() - begun


def _sentence(reasons: Iterable[tuple[object, str]]) -> str:
    """The reasons that hold, in one sentence; "" if none does."""
    text = "; ".join(reason for holds, reason in reasons if holds)
    return text and text[0].upper() + text[1:] + "."


def probe(source: str | Path) -> VideoInfo:
    """What the source is; decodes one frame, because only that tells size and rotation for sure."""
    with Reader(source) as reader:
        frame = next(reader.decode())[1]
        size = (frame.width, frame.height)
        width, height = size[::-1] if round(frame.rotation / 90) % 2 else size
        return VideoInfo(
            width=width,
            height=height,
            fps=reader.fps,
            duration=_duration(reader._container, reader._stream),
            rotation=frame.rotation,
            codec=reader._stream.codec.canonical_name,
            streams=len(reader._container.streams.video),
        )


def write(
    path: str | Path, frames: Iterable[np.ndarray], fps: float | Fraction, **options: int | str
) -> None:
    """Encodes all frames into a file, as a `Writer` with these options (crf, preset, rotation)."""
    with Writer(path, fps, **options) as writer:
        for rgb in frames:
            writer.add(rgb)


def _open(source: str) -> av.container.InputContainer:
    """Open for reading, without opinions about the bytes of its metadata."""
    path, options = _camera(source) or Path(source), {"max_pixels": str(MAX_PIXELS)}
    if "://" in source:
        address, extra = source, {"timeout": TIMEOUT}
    elif path.is_dir():
        raise VideoError(f"{source}: a folder, not a video file.")
    elif not path.exists():
        raise VideoError(f"{source}: no such file.")
    elif path.is_file() and path.stat().st_size == 0:
        raise VideoError(f"{source}: the file is empty (0 bytes).")
    else:
        # Absolute, because FFmpeg takes what stands before a colon for a protocol.
        address, extra = str(path.absolute()), {"format": "v4l2"} if path.is_char_device() else {}
    try:
        return av.open(address, options=options, metadata_errors="ignore", **extra)
    except (FFmpegError, OSError) as error:
        guess = "is damaged, cut off or no video" if path.is_file() else "cannot be opened"
        raise VideoError(f"{source}: {guess} ({error.strerror}).") from error


def _camera(source: str) -> Path | None:
    """The device of "webcam" or "webcam:N"; None for every other source."""
    if not (camera := re.fullmatch(r"webcam(?::(\d+))?", source)):
        return None
    if not sys.platform.startswith("linux"):
        raise VideoError(
            f"{source}: cameras have numbers on Linux alone; give a file or a stream's address."
        )
    device = Path(f"/dev/video{camera[1] or 0}")
    if not device.exists():
        raise VideoError(f"{source}: there is no camera here ({device}).")
    return device


def _video_stream(container: av.container.InputContainer, source: str) -> av.VideoStream:
    """The best video stream, ready for decoding in one thread; VideoError where there is none."""
    stream = container.streams.best("video")
    # FFmpeg would draw a text file as a terminal ("tty"), and cover art of music as a film.
    text = container.format.name == "tty"
    if text or stream is None or stream.disposition & Disposition.attached_pic:
        raise VideoError(f"{source}: there is no video in it, only audio, text or data.")
    context = stream.codec_context
    if context is None:
        raise VideoError(f"{source}: there is no decoder for its kind of video.")
    if context.width * context.height > MAX_PIXELS:
        raise VideoError(
            f"{source}: claims {context.width} x {context.height} pixels per frame, more than "
            f"the {MAX_PIXELS} that are read; the file is probably damaged."
        )
    context.options = {"max_pixels": str(MAX_PIXELS)}
    stream.thread_type, stream.thread_count = "SLICE", 1
    return stream


def _duration(container: av.container.InputContainer, stream: av.VideoStream) -> float | None:
    """Seconds that the headers claim."""
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    if clock := re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", "")):
        hours, minutes, seconds = map(float, clock.groups())  # Matroska: when the stream ends
        return 3600 * hours + 60 * minutes + seconds - _start(stream)
    alone = len(container.streams) == 1  # else the container may last longer than the video
    return container.duration / av.time_base if alone and container.duration else None


def _start(stream: av.VideoStream) -> float:
    return float((stream.start_time or 0) * stream.time_base)

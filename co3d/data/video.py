"""Video files, cameras and streams as timed RGB frames, through PyAV (FFmpeg).

Times are the frames' own presentation times, counted from the first frame; frame counts and rates
in headers are only claims. Pixels are taken as square, as in every pipeline of this field.
"""

import itertools
import math
import os
import re
import sys
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from time import perf_counter
from typing import Self

import av
import numpy as np
from av.error import FFmpegError
from av.stream import Disposition
from av.video.reformatter import VideoReformatter

MAX_PIXELS = 2**25  # per frame: more than 8K (7680x4320), less than a made-up header can ask for
MAX_GAP = 60.0  # seconds; a longer jump between two frames is a broken time, not a pause
MAX_FAILURES = 16  # failed reads in a row before a file counts as ended
FORMATS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".avi": "avi"}  # to write
MAX_KEPT = 2**29  # bytes of packets that are kept to be decoded
TIMEOUT = 10.0  # seconds for a stream address to open or to send something


class VideoError(ValueError):
    """A video that cannot be used: which one and why, in one sentence."""


class Reader:
    """Frames of a file, a camera (1, `webcam`, `webcam:1`) or a stream address.

    `with Reader(source) as reader: for time, rgb in reader: ...` gives seconds since the first
    frame and uint8 (H,W,3). Entering raises VideoError if the source cannot be opened, iterating
    if not a single frame can be decoded. Damaged packets are counted and passed over: see `status`
    and `note`. `decode_s` counts the seconds in the decoder, `origin` is the first frame's time on
    the file's own clock.
    """

    def __init__(self, source: str | Path | int) -> None:
        self.source = f"webcam:{source}" if isinstance(source, int) else str(source)
        self.n_frames, self.decode_s, self.origin = 0, 0.0, 0.0
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
        # AVI stores no presentation times: with B-frames, FFmpeg guesses them in decode order.
        # The frames come in the right order, so count them.
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
        """Whether the source goes on by itself: a camera, or an address without a duration."""
        if "v4l2" in self._container.format.name:
            return True
        remote = "://" in self.source and not self.source.startswith("file:")
        return remote and _duration(self._container, self._stream) is None

    @property
    def status(self) -> str:
        """Of the frames read so far: "ok", "partial" or "decode_error"."""
        if self.n_frames == 0:
            return "decode_error"
        return "partial" if self.fault else "ok"

    @property
    def fault(self) -> str:
        """What is damaged or missing, in a sentence; "" if nothing is."""
        return self._sentence(self._missing_end)

    @property
    def note(self) -> str:
        """As `fault`; also says if frames are counted in the place of times."""
        counted = f"no usable presentation times, frames counted at {self.fps:.6g} fps"
        return self._sentence(self._missing_end, counted if self._counted else "")

    def _sentence(self, *reasons: str) -> str:
        counts = {"packets lost": self._lost, "frames damaged": self._damaged}
        faults = [f"{what}: {count}" for what, count in counts.items() if count]
        text = "; ".join([*faults, *filter(None, reasons)])
        return text and f"{text[0].upper()}{text[1:]}."

    def decode(self) -> Iterator[tuple[float, av.VideoFrame]]:
        """Frames as the decoder gives them, before `rgb`, with their times."""
        first = last = None
        self.n_frames, self.origin, self._missing_end = 0, 0.0, ""
        packets = iter(self._kept or self._packets())
        for frame in itertools.chain.from_iterable(map(self._decoded, packets)):
            self._counted = self._counted or frame.pts is None
            if not self._counted:
                if first is None:
                    first = frame.pts
                    self.origin = float(first * self._stream.time_base)
                time = float((frame.pts - first) * self._stream.time_base)
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
        """The times that `decode` will give, from the packets alone.

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

    def rgb(self, frame: av.VideoFrame) -> np.ndarray:
        """The picture as displayed, uint8 (H,W,3): any pixel format to RGB, rotation applied."""
        # One thread: for small frames that is twice as fast as slices.
        picture = self._reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
        turns = round(frame.rotation / 90) % 4
        return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture

    def _check_end(self, last: float) -> None:
        claimed = _duration(self._container, self._stream)
        end = last if math.isnan(self.fps) else last + 1 / self.fps
        if claimed and claimed - end > max(1.0, 0.1 * claimed):
            self._missing_end = f"the file claims {claimed:.1f} s but ends after {end:.1f} s"

    def _next_time(self, last: float | None) -> float:
        if math.isnan(self.fps):
            raise VideoError(f"{self.source}: neither usable frame times nor a frame rate.")
        # By index if counting began at the start, so that no rounding adds up.
        time = self.n_frames / self.fps
        return time if last is None or time > last else last + 1 / self.fps

    def _packets(self) -> Iterator[av.Packet | None]:
        """Packets of the stream, then None to flush. Counts failed reads and goes on."""
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


class Writer:
    """Encodes uint8 (H,W,3) RGB frames as H.264; the file appears under its name when complete.

    `with Writer(path, fps) as writer: writer.add(rgb)`. The same frames give the same bytes.
    Players apply the `rotation` (degrees counter-clockwise). Raises ValueError for a suffix that
    is not in FORMATS.
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


def write(
    path: str | Path, frames: Iterable[np.ndarray], fps: float | Fraction, **options: int | str
) -> None:
    """Encodes all frames into a file; options are those of `Writer`."""
    with Writer(path, fps, **options) as writer:
        for rgb in frames:
            writer.add(rgb)


def _open(source: str) -> av.container.InputContainer:
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
    """The best video stream, ready for decoding in one thread."""
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
        start = float((stream.start_time or 0) * stream.time_base)
        return 3600 * hours + 60 * minutes + seconds - start
    alone = len(container.streams) == 1  # else the container may last longer than the video
    return container.duration / av.time_base if alone and container.duration else None

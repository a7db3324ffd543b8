"""Which frames of a video: by time, by rate and by number, decoded once and in order."""

import itertools
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TypeVar

import numpy as np

from .jpegs import FolderReader
from .video import Reader, VideoError

ROUNDING = 1e-3  # seconds; containers such as Matroska store times in whole milliseconds

F = TypeVar("F")


@dataclass(frozen=True)
class Timeline:
    """When the frames of a video are shown.

    Attributes:
        times: seconds of every frame since the first, in display order.
        fps: frames per second on average; nan for a single frame of unknown rate.
        note: what is wrong with the video's end, or with the video, so that its number of frames
            says little; "" where all is well.
        origin: seconds on the file's own clock at the first frame.
    """

    times: tuple[float, ...]
    fps: float
    note: str = ""
    origin: float = 0.0

    def count(self, fps: float) -> int:
        """How many frames `resample` gives at this rate."""
        end = self.times[-1] + _shown(np.diff(self.times).min(initial=math.inf))
        count = math.ceil(end * fps)
        while (count - 1) / fps >= end:  # off by one where the product was rounded
            count -= 1
        return count + (count / fps < end)

    def at(self, fps: float, slots: Iterable[int]) -> list[int]:
        """The numbers, from 0, of the frames that `resample` gives k-th at this rate."""
        starts = np.subtract(self.times, ROUNDING)
        times = [slot / fps for slot in slots]
        return (np.searchsorted(starts, times, side="right") - 1).tolist()


def opened(source: Path, frames_fps: float | None = None) -> Reader | FolderReader:
    """A reader for a video file, or for a folder of JPEG frames at `frames_fps`."""
    return FolderReader(source, frames_fps) if Path(source).is_dir() else Reader(source)


def timeline(source: Path, frames_fps: float | None = None) -> Timeline:
    """The times that decoding will give: from the packets where they tell, else by decoding.

    Packets may promise other frames than the decoder delivers, which only decoding can show.
    Raises VideoError as Reader does, or for a folder without frames or without a rate.
    """
    with opened(source, frames_fps) as reader:
        times = reader.packet_times()
        return timeline_of(reader, times) if times else decoded_timeline(source, frames_fps)


def decoded_timeline(source: Path, frames_fps: float | None = None) -> Timeline:
    """The timeline of what can be decoded; takes as long as decoding does."""
    with opened(source, frames_fps) as reader:
        return timeline_of(reader, [time for time, _ in reader.decode()])


def timeline_of(reader: Reader | FolderReader, times: Sequence[float]) -> Timeline:
    """The timeline of a reader that has come to its end.

    The rate is the claimed one, unless the times contradict it by more than one frame.
    """
    fps, steps = reader.fps, len(times) - 1
    if steps and not abs(times[-1] * fps - steps) <= 1:
        fps = steps / times[-1]
    return Timeline(tuple(times), fps, reader.fault, reader.origin)


def resample(frames: Iterable[tuple[float, F]], fps: float) -> Iterator[tuple[float, F]]:
    """At each k / fps the last frame at or before it.

    A slower source repeats frames. The last frame lasts as long as the shortest step before it.
    """
    if not 0 < fps < math.inf:
        raise ValueError(f"fps must be above 0, not {fps}.")
    return _resampled(frames, fps)  # a generator, which would raise later


def _resampled(frames: Iterable[tuple[float, F]], fps: float) -> Iterator[tuple[float, F]]:
    slots = itertools.count()
    slot, last, step = next(slots), None, math.inf
    for time, frame in frames:
        if last is not None:
            step = min(step, time - last[0])
        while slot / fps < time - ROUNDING:
            if last is not None:
                yield slot / fps, last[1]
            slot = next(slots)
        last = time, frame
    while last and slot / fps < last[0] + _shown(step):
        yield slot / fps, last[1]
        slot = next(slots)


class Newest:
    """The frames of `resample`, of a source that does not wait: what comes too late is left out.

    A thread takes frames from the source as they come, at the pace of their times at most. While
    the caller is at work, a frame takes the place of those that still wait for it.

    Args:
        frames: (seconds, frame) of the source.
        fps: frames per second that are wanted.
        clock: gives seconds.

    Attributes:
        dropped: how many of the wanted frames were left out so far.
    """

    def __init__(
        self,
        frames: Iterable[tuple[float, F]],
        fps: float,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.dropped = 0
        self._frames, self._fps, self._clock = frames, fps, clock
        self._changed, self._stopped = threading.Condition(), threading.Event()
        self._waiting: deque[tuple[float, F] | None] = deque()  # None is the end

    def __iter__(self) -> Iterator[tuple[float, F]]:
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(self._read)
            try:
                while item := self._next():
                    yield item
            finally:
                self._stopped.set()
        reading.result()  # raises what the source raised

    def _next(self) -> tuple[float, F] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting)
            return self._waiting.popleft()

    def _read(self) -> None:
        try:
            for item in resample(self._paced(), self._fps):
                with self._changed:
                    # A source that is slower than the rate repeats a frame, which drops nothing.
                    if self._waiting and self._waiting[-1][1] is not item[1]:
                        self.dropped += len(self._waiting)
                        self._waiting.clear()
                    self._waiting.append(item)
                    self._changed.notify()
        finally:
            with self._changed:
                self._waiting.append(None)
                self._changed.notify()

    def _paced(self) -> Iterator[tuple[float, F]]:
        """The frames, none before its time; they end when nobody wants more."""
        begun = None
        for seconds, frame in self._frames:
            begun = self._clock() - seconds if begun is None else begun
            if self._stopped.wait(max(0.0, begun + seconds - self._clock())):
                return
            yield seconds, frame


def frames_at(source: Path, indices: Sequence[int], frames_fps: float | None = None) -> np.ndarray:
    """The frames of the given numbers, uint8 (T,H,W,3).

    Decodes once, converts only wanted frames and stops at the last. Nothing replaces what is
    damaged or missing.

    Args:
        indices: from 0, which may repeat but not go back.

    Raises:
        VideoError: as Reader; for damage before the last frame, or a video that ends before it.
    """
    wanted, pictures = set(indices), {}
    with opened(source, frames_fps) as reader:
        for index, (_, frame) in enumerate(reader.decode()):
            if index in wanted:
                pictures[index] = reader.rgb(frame)
            if index == indices[-1]:
                break
    if reader.status != "ok":
        raise VideoError(f"{source}: {reader.note}")
    if indices[-1] not in pictures:
        raise VideoError(f"{source}: ends after {reader.n_frames} frames, before {indices[-1]}.")
    if len({picture.shape for picture in pictures.values()}) > 1:
        raise VideoError(f"{source}: the picture size changes within the video.")
    return np.stack([pictures[index] for index in indices])


def _shown(step: float) -> float:
    """Seconds that the last frame is on the screen: one more step; a lone one hardly any."""
    return max(2 * ROUNDING, 0.0 if step == math.inf else step) - ROUNDING

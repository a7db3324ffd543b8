"""Which frames of a video: by time, by rate and by number, decoded once and in order."""

import itertools
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TypeVar

import numpy as np

from .jpegs import FolderReader
from .video import Reader, VideoError

ROUNDING = 1e-3  # seconds; containers such as Matroska store times in whole milliseconds

F = TypeVar("F")


@dataclass
class Clip:
    """Frames uint8 (T,H,W,3) at `times` (seconds), with a status.

    "ok": every wanted frame came intact; "partial": something before the last one was damaged
    or lost; "too_short": an intact video that ends early, so the last times are missing.
    """

    frames: np.ndarray
    times: tuple[float, ...]
    status: str
    note: str


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


def resample(frames: Iterable[tuple[float, F]], fps: float | None) -> Iterator[tuple[float, F]]:
    """At each k / fps the last frame at or before it; fps None passes all frames on.

    A slower source repeats frames. The last frame lasts as long as the shortest step before it.
    """
    if fps is None:
        return iter(frames)
    if not 0 < fps < math.inf:
        raise ValueError(f"fps must be above 0, not {fps}.")
    return _pick(frames, (k / fps for k in itertools.count()))


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
        self._waiting: deque[tuple[float, F]] = deque()
        self._ended, self._error = False, None

    def __iter__(self) -> Iterator[tuple[float, F]]:
        thread = threading.Thread(target=self._read, daemon=True)
        thread.start()
        try:
            while item := self._next():
                yield item
        finally:
            self._stopped.set()
            thread.join()
        if self._error:
            raise self._error

    def _next(self) -> tuple[float, F] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended)
            return self._waiting.popleft() if self._waiting else None

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
        except Exception as error:  # for the caller, whose thread this is not
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify()

    def _paced(self) -> Iterator[tuple[float, F]]:
        """The frames, none before its time; they end when nobody wants more."""
        begun = None
        for seconds, frame in self._frames:
            begun = self._clock() - seconds if begun is None else begun
            if self._stopped.wait(max(0.0, begun + seconds - self._clock())):
                return
            yield seconds, frame


def frames_at(source: Path, indices: Sequence[int], frames_fps: float | None = None) -> Clip:
    """The frames of the given numbers, counted from 0, which may repeat but not go back.

    Decodes once, converts only wanted frames and stops at the last. Nothing replaces what is
    damaged or missing, see Clip. Raises VideoError as Reader does.
    """
    if not indices or indices[0] < 0 or any(a > b for a, b in itertools.pairwise(indices)):
        raise ValueError(f"expected one or more frame numbers from 0 up, in order, given {indices}")
    wanted, pictures = set(indices), {}
    with opened(source, frames_fps) as reader:
        for index, (time, frame) in enumerate(reader.decode()):
            if index in wanted:
                pictures[index] = time, reader.rgb(frame)
            if index == indices[-1]:
                break
    present = [pictures[index] for index in indices if index in pictures]
    if not present:
        raise VideoError(f"{source}: ends after {reader.n_frames} frames, before {indices[0]}.")
    times, frames = zip(*present, strict=True)
    if len({picture.shape for picture in frames}) > 1:
        raise VideoError(f"{source}: the picture size changes within the video.")
    status, note, missing = reader.status, reader.note, len(indices) - len(present)
    if status == "ok" and missing:
        status, end = "too_short", f"The video ends after {reader.n_frames} frames"
        note = f"{end}, {missing} of {len(indices)} are missing."
    return Clip(np.stack(frames), times, status, note)


def _pick(frames: Iterable[tuple[float, F]], times: Iterable[float]) -> Iterator[tuple[float, F]]:
    """For each of the rising times the last frame at or before it, until the frames end."""
    wanted = iter(times)
    want = next(wanted, None)
    last, step = None, math.inf
    for time, frame in frames:
        if last is not None:
            step = min(step, time - last[0])
        while want is not None and want < time - ROUNDING:
            if last is not None:
                yield want, last[1]
            want = next(wanted, None)
        if want is None:
            return
        last = time, frame
    while last and want is not None and want < last[0] + _shown(step):
        yield want, last[1]
        want = next(wanted, None)


def _shown(step: float) -> float:
    """Seconds that the last frame is on the screen: one more step; a lone one hardly any."""
    return max(2 * ROUNDING, 0.0 if step == math.inf else step) - ROUNDING

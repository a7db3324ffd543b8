"""Made files with the traps of real ones; and the real ones, where they lie beside the checkout."""

import itertools
import math
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from co3d.data import sampling, video
from co3d.data.video import Reader, VideoError

REAL = Path(__file__).resolve().parents[2] / "shared" / "videos"


def coded(k: int) -> np.ndarray:
    """A 48 x 64 picture that shows the number k as eight black and white bars."""
    bits = np.array([(k >> bit) & 1 for bit in range(8)], np.uint8)
    return np.broadcast_to(255 * bits.repeat(8)[:, None], (48, 64, 3))


def number(rgb: np.ndarray) -> int:
    bars = rgb.reshape(48, 8, 8, 3).mean(axis=(0, 2, 3)) > 127
    return int(sum(1 << bit for bit, on in enumerate(bars) if on))


def film(path: Path, n: int = 30, fps: float | Fraction = 30, **options) -> Path:
    video.write(path, (coded(k) for k in range(n)), fps, **options)
    return path


def encoded(
    path: Path, frames: Iterable[av.VideoFrame], pix_fmt="yuv420p", title="", **context
) -> Path:
    """A 64 x 48 video of frames that may have times of their own."""
    with av.open(str(path), "w") as container:
        container.metadata["title"] = title
        stream = container.add_stream("libx264", rate=30, options={"crf": "5"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, pix_fmt
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        for frame in frames:
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def timed_film(path: Path, ticks: list[int], time_base: Fraction = Fraction(1, 1000)) -> Path:
    """Frame k of the film at `ticks[k]`."""
    frames = [av.VideoFrame.from_ndarray(coded(k), "rgb24") for k in range(len(ticks))]
    for frame, tick in zip(frames, ticks, strict=True):
        frame.pts, frame.time_base = tick, time_base
    return encoded(path, frames, time_base=time_base)


def spoiled(source: Path, target: Path, spoil) -> Path:
    """A copy of source with each packet's bytes passed through `spoil(index, bytes)`."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for k, packet in enumerate(old.demux(old.streams.video[0])):
            data = bytes(packet) and spoil(k, bytes(packet))
            if data:
                copy = av.Packet(data)
                copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
                copy.duration, copy.is_keyframe = packet.duration, packet.is_keyframe
                copy.stream = stream
                new.mux(copy)
    return target


def sounding(path: Path, pictures: int) -> Path:
    """Ten seconds of sound, with so many pictures at 15 fps."""
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=44100, layout="mono")
        if pictures:
            video = container.add_stream("libx264", rate=15)
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
            for k in range(pictures):
                container.mux(video.encode(av.VideoFrame.from_ndarray(coded(k))))
            container.mux(video.encode(None))
        for n in range(430):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.sample_rate, frame.pts = 44100, 1024 * n
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    return path


def read(path: Path) -> tuple[list[float], list[int], Reader]:
    with Reader(path) as reader:
        times, pictures = zip(*reader, strict=True)
    return list(times), [number(picture) for picture in pictures], reader


RATES = [12, 15, Fraction(24000, 1001), 25, Fraction(30000, 1001), 30]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
@pytest.mark.parametrize("fps", RATES, ids=lambda fps: f"{float(fps):.3f}")
def test_every_frame_at_its_time(tmp_path, fps, suffix):
    times, numbers, reader = read(film(tmp_path / f"a{suffix}", 40, fps))
    assert numbers == list(range(40))
    assert (reader.status, reader.n_frames) == ("ok", 40)
    # Matroska rounds to milliseconds.
    assert times == pytest.approx(
        [k / fps for k in range(40)], abs=6e-4 if suffix == ".mkv" else 1e-6
    )
    # AVI has no presentation times, and H.264 comes with B-frames: counted, and said so.
    assert ("counted at" in reader.note) == (suffix == ".avi")


@pytest.mark.parametrize("target", [5, 15, Fraction(24000, 1001), 30, 50])
@pytest.mark.parametrize("fps", RATES, ids=lambda fps: f"{float(fps):.3f}")
def test_resample_takes_the_last_frame_at_or_before(tmp_path, fps, target):
    n, tolerance = round(2 * fps), Fraction(1, 1000)
    with Reader(film(tmp_path / "a.mp4", n, fps)) as reader:
        times, pictures = zip(*sampling.resample(iter(reader), target), strict=True)
    slots = [
        k / Fraction(target) for k in range(math.ceil((n / Fraction(fps) - tolerance) * target))
    ]
    assert len(slots) == pytest.approx(2 * target, abs=1)
    assert times == pytest.approx([float(slot) for slot in slots])
    wanted = [min(n - 1, math.floor((slot + tolerance) * fps)) for slot in slots]
    assert [number(picture) for picture in pictures] == wanted


def test_resample_takes_no_frames_and_refuses_nonsense():
    assert list(sampling.resample([], 15)) == []
    with pytest.raises(ValueError, match="fps must be above 0"):
        sampling.resample([(0.0, "a"), (0.7, "b")], math.nan)


def test_resample_streams_without_reading_ahead():
    taken = []
    source = ((taken.append(k), (k / 30, k))[1] for k in itertools.count())
    picked = [k for _, k in itertools.islice(sampling.resample(source, 15), 10)]
    assert picked == list(range(0, 20, 2))
    assert taken[-1] == 19


@pytest.mark.parametrize("first", [0, 5000])
def test_times_are_the_file_s_own_from_its_first_frame_on(tmp_path, first):
    ticks = [0, 20, 50, 400, 410, 1000]
    path = timed_film(tmp_path / "a.mkv", [first + tick for tick in ticks])
    times, numbers, reader = read(path)
    assert times == pytest.approx([tick / 1000 for tick in ticks])
    assert (numbers, reader.status, reader.note) == ([0, 1, 2, 3, 4, 5], "ok", "")


def test_a_broken_clock_is_counted_on_and_said(tmp_path):
    times, numbers, reader = read(timed_film(tmp_path / "a.mkv", [0, 33, 67, 9_000_000]))
    assert numbers == [0, 1, 2, 3]
    assert np.diff(times).max() < 60 and (np.diff(times) > 0).all()
    assert "no usable presentation times" in reader.note.lower()


def test_no_times_at_all(tmp_path):
    """A bare H.264 stream: FFmpeg gives packets in order and no presentation times."""
    bare = spoiled(film(tmp_path / "a.mp4"), tmp_path / "a.h264", lambda k, data: data)
    times, numbers, reader = read(bare)
    assert numbers == list(range(30))
    assert times == pytest.approx([k / reader.fps for k in range(30)])
    assert "counted at" in reader.note


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_rotation_is_applied(tmp_path, rotation):
    corner = np.zeros((48, 64, 3), np.uint8)
    corner[:16, :16] = 255
    video.write(tmp_path / "a.mp4", [corner] * 3, 30, rotation=rotation)
    expected = np.rot90(corner, rotation // 90)
    with Reader(tmp_path / "a.mp4") as reader:
        for _, rgb in reader:
            assert rgb.shape == expected.shape
            assert rgb.flags.c_contiguous
            assert np.abs(rgb.astype(int) - expected).mean() < 10


@pytest.mark.parametrize(("pix_fmt", "color_range"), [("yuvj420p", 2), ("yuv420p10le", 1)])
def test_full_range_and_ten_bits(tmp_path, pix_fmt, color_range):
    frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 250, np.uint8), "rgb24")
    target = "JPEG" if color_range == 2 else "MPEG"
    frame = frame.reformat(format=pix_fmt, dst_color_range=target)
    path = encoded(tmp_path / "a.mp4", [frame], pix_fmt, color_range=color_range)
    with Reader(path) as reader:
        assert abs(next(iter(reader))[1].mean() - 250) < 3


def test_one_of_two_video_streams_is_read(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        first, second = (container.add_stream("libx264", rate=30) for _ in range(2))
        for stream in (first, second):
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for k in range(10):
            container.mux(first.encode(av.VideoFrame.from_ndarray(coded(k))))
            container.mux(second.encode(av.VideoFrame.from_ndarray(coded(99))))
        for stream in (first, second):
            container.mux(stream.encode(None))
    _, numbers, reader = read(tmp_path / "a.mp4")
    assert (numbers, reader.status) == (list(range(10)), "ok")


def test_metadata_may_be_in_any_encoding(tmp_path):
    frames = [av.VideoFrame.from_ndarray(coded(k), "rgb24") for k in range(10)]
    path = encoded(tmp_path / "a.avi", frames, title="TITLE")
    data = path.read_bytes()
    assert b"TITLE" in data
    path.write_bytes(data.replace(b"TITLE", b"\xff\xfeTI\x80"))
    assert read(path)[1] == list(range(10))


def test_lost_and_damaged_packets_are_survived_and_counted(tmp_path):
    whole = film(tmp_path / "a.mp4", 60)
    zeroed = spoiled(whole, tmp_path / "b.mp4", lambda k, data: b"\0" * 40 if k == 20 else data)
    _, numbers, reader = read(zeroed)
    assert reader.status == "partial" and reader.note
    assert 50 <= len(numbers) == reader.n_frames < 60
    assert numbers[:10] == list(range(10))

    dropped = spoiled(whole, tmp_path / "c.mp4", lambda k, data: b"" if k == 30 else data)
    times, numbers, reader = read(dropped)
    assert (np.diff(times) > 0).all()
    assert len(numbers) == 59


def test_nothing_decodable(tmp_path):
    path = spoiled(film(tmp_path / "a.mp4"), tmp_path / "b.mp4", lambda k, data: b"\0" * 40)
    with Reader(path) as reader:
        with pytest.raises(VideoError, match=r"b\.mp4: not a single frame could be decoded"):
            list(reader)
        assert reader.status == "decode_error"
    with pytest.raises(VideoError, match="not a single frame"):
        sampling.frames_at(path, [0])


def test_cut_in_half(tmp_path):
    path = film(tmp_path / "a.mkv", 200, crf=1)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    _, numbers, reader = read(path)
    assert reader.status == "partial" and reader.note
    assert 50 < len(numbers) < 150 and numbers[:50] == list(range(50))


def test_bad_files_get_one_clear_sentence(tmp_path):
    whole = film(tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "page.mp4").write_text("<!DOCTYPE html><html><body>Not found</body></html>" * 20)
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "notes.txt").write_text("no video\n" * 50)
    (tmp_path / "huge.y4m").write_text("YUV4MPEG2 W8000 H8000 F25:1 Ip A1:1 C420jpeg\nFRAME\n")
    sounding(tmp_path / "audio.mp4", 0)
    sentences = {
        "missing.mp4": "no such file",
        ".": "a folder, not a video file",
        "empty.mp4": r"the file is empty \(0 bytes\)",
        "page.mp4": "is damaged, cut off or no video",
        "cut.mp4": "is damaged, cut off or no video",
        "notes.txt": "there is no video in it",
        "audio.mp4": "there is no video in it",
        "huge.y4m": "claims 8000 x 8000 pixels per frame",
    }
    for name, reason in sentences.items():
        with pytest.raises(VideoError, match=reason) as caught:
            read(tmp_path / name)
        message = str(caught.value)
        assert message.startswith(str(tmp_path / name)) and message.endswith(".")
        assert "\n" not in message


def test_stream_addresses(tmp_path):
    path = film(tmp_path / "a:b %d.mp4")
    assert len(sampling.frames_at(path, [15])) == 1
    with Reader((film(tmp_path / "a.mp4")).as_uri()) as reader:
        assert len(list(reader)) == 30
    with pytest.raises(VideoError, match="nowhere://x: cannot be opened"):
        read("nowhere://x")


def test_cameras_have_numbers(monkeypatch):
    with pytest.raises(VideoError, match=r"^webcam:99: there is no camera here \(/dev/video99\)"):
        read("webcam:99")
    opened = []
    monkeypatch.setattr(Path, "exists", lambda path: True)
    monkeypatch.setattr(Path, "is_char_device", lambda path: True)
    monkeypatch.setattr(av, "open", lambda *where, **how: opened.append((*where, how["format"])))
    for source in ("webcam", "webcam:2"):
        video._open(source)
    assert opened == [("/dev/video0", "v4l2"), ("/dev/video2", "v4l2")]


def test_write_is_atomic_and_deterministic(tmp_path):
    assert film(tmp_path / "a.mp4").read_bytes() == film(tmp_path / "b.mp4").read_bytes()

    def breaks():
        yield coded(0)
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        video.write(tmp_path / "c.mp4", breaks(), 30)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


# File: height, width, frames, frames per second, status, note.
COUNTED = "No usable presentation times, frames counted at 30 fps."
CLIPS = {
    "WUzgd7C1pWA_using_segway.mp4": (256, 340, 327, 29.97, "ok", ""),
    "SOX5yA1l24A_using_segway.mp4": (256, 340, 332, 29.97, "ok", ""),
    "bad_metadata_bytes.avi": (240, 320, 83, 30, "ok", COUNTED),
    "pts_not_monotonic.avi": (240, 560, 72, 30, "ok", COUNTED),
    "rotated_90.mov": (568, 320, 3, 30, "ok", ""),
    "rotated_180.mov": (320, 568, 3, 30, "ok", ""),
    "corrupted.mp4": (720, 1280, 49, 10, "partial", "Packets lost: 1; frames damaged: 1."),
    "unordered.mov": (50, 50, 4, 32, "ok", ""),
    "two_video_streams.mp4": (270, 480, 390, 29.97, "ok", ""),
    "h264_10bits.mp4": (200, 200, 30, 30, "ok", ""),
    "av1.mkv": (360, 640, 125, 25, "ok", ""),
}


@pytest.mark.skipif(not REAL.is_dir(), reason="real clips not found in ../shared/videos")
@pytest.mark.parametrize("name", CLIPS)
def test_real_clip(name):
    height, width, frames, fps, status, note = CLIPS[name]
    with Reader(REAL / name) as reader:
        times, shapes = zip(*((time, rgb.shape) for time, rgb in reader), strict=True)
    assert set(shapes) == {(height, width, 3)} and reader.fps == pytest.approx(fps, abs=1e-3)
    assert (len(times), reader.n_frames) == (frames, frames)
    assert (reader.status, reader.note) == (status, note)
    assert times[0] == 0
    assert np.diff(times) == pytest.approx(1 / fps, abs=1e-3 if status == "ok" else 0.11)


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_sound_may_outlast_the_picture(tmp_path, suffix):
    """A container then lasts longer than its video, which is whole all the same."""
    _, numbers, reader = read(sounding(tmp_path / f"a.{suffix}", 30))
    assert (numbers, reader.status) == (list(range(30)), "ok"), reader.note

"""Made files and, where the checkout has them beside it, real clips with known traps."""

import itertools
import math
import os
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
    bits = [(k >> bit) & 1 for bit in range(8)]
    return (
        np.repeat(np.repeat(bits, 8)[None, :, None], 48, axis=0).repeat(3, 2).astype(np.uint8) * 255
    )


def number(rgb: np.ndarray) -> int:
    bars = rgb.reshape(48, 8, 8, 3).mean(axis=(0, 2, 3)) > 127
    return int(sum(1 << bit for bit, on in enumerate(bars) if on))


def film(path: Path, n: int = 30, fps: float | Fraction = 30, **options) -> Path:
    video.write(path, (coded(k) for k in range(n)), fps, **options)
    return path


def timed_film(path: Path, ticks: list[int], time_base: Fraction) -> Path:
    """Frame k of the film at `ticks[k]`."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = time_base
        for k, tick in enumerate(ticks):
            frame = av.VideoFrame.from_ndarray(coded(k), format="rgb24")
            frame.pts, frame.time_base = tick, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def spoiled(source: Path, target: Path, spoil) -> Path:
    """A copy of source with each packet's bytes passed through `spoil(index, bytes)`."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for k, packet in enumerate(old.demux(old.streams.video[0])):
            data = bytes(packet) and spoil(k, bytes(packet))
            if data:
                copy = av.Packet(data)
                copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
                copy.duration, copy.is_keyframe, copy.stream = (
                    packet.duration,
                    packet.is_keyframe,
                    stream,
                )
                new.mux(copy)
    return target


def audio(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
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
    assert reader.status == "ok"
    assert reader.n_frames == 40
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


def test_resample_without_rate_passes_all_and_refuses_nonsense():
    frames = [(0.0, "a"), (0.7, "b")]
    assert list(sampling.resample(frames, None)) == frames
    assert list(sampling.resample(frames[:1], 15)) == [(0.0, "a")]
    assert list(sampling.resample([], 15)) == []
    for fps in (0, -1, math.nan, math.inf):
        with pytest.raises(ValueError, match="fps must be above 0"):
            sampling.resample(frames, fps)


def test_resample_streams_without_reading_ahead():
    taken = []
    source = ((taken.append(k), (k / 30, k))[1] for k in itertools.count())
    picked = [k for _, k in itertools.islice(sampling.resample(source, 15), 10)]
    assert picked == list(range(0, 20, 2))
    assert taken[-1] == 19


def test_variable_rate(tmp_path):
    ticks = [0, 20, 50, 400, 410, 1000]
    path = timed_film(tmp_path / "a.mp4", ticks, Fraction(1, 1000))
    times, numbers, reader = read(path)
    assert times == pytest.approx([tick / 1000 for tick in ticks])
    assert (numbers, reader.status, reader.note) == ([0, 1, 2, 3, 4, 5], "ok", "")


def test_times_count_from_the_first_frame(tmp_path):
    path = timed_film(tmp_path / "a.mkv", [5000 + 40 * k for k in range(10)], Fraction(1, 1000))
    times, numbers, _ = read(path)
    assert times == pytest.approx([0.04 * k for k in range(10)])
    assert numbers == list(range(10))


def test_a_broken_clock_is_counted_on_and_said(tmp_path):
    hours = [0, 33, 67, 9_000_000, 9_000_033]
    times, numbers, reader = read(timed_film(tmp_path / "a.mkv", hours, Fraction(1, 1000)))
    assert numbers == [0, 1, 2, 3, 4]
    assert np.diff(times).max() < 60
    assert (np.diff(times) > 0).all()
    assert "no usable presentation times" in reader.note.lower()


def test_no_times_at_all(tmp_path):
    """A bare H.264 stream: FFmpeg gives packets in order and no presentation times."""
    with (
        av.open(str(tmp_path / "a.h264"), "w") as new,
        av.open(str(film(tmp_path / "a.mp4"))) as old,
    ):
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(old.streams.video[0]):
            if packet.size:
                packet.stream = stream
                new.mux(packet)
    times, numbers, reader = read(tmp_path / "a.h264")
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
    info = video.probe(tmp_path / "a.mp4")
    assert (info.height, info.width) == expected.shape[:2]
    assert info.rotation % 360 == rotation


def test_probe(tmp_path):
    info = video.probe(film(tmp_path / "a.mp4", 45, Fraction(30000, 1001)))
    assert info.fps == pytest.approx(29.97, abs=1e-3)
    assert info.duration == pytest.approx(1.5015)
    assert (info.width, info.height, info.codec, info.streams) == (64, 48, "h264", 1)


def test_full_range_is_read_as_such(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "5"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        stream.codec_context.color_range = 2
        picture = np.full((48, 64, 3), 250, np.uint8)
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        container.mux(stream.encode(frame.reformat(format="yuvj420p", dst_color_range="JPEG")))
        container.mux(stream.encode(None))
    with Reader(tmp_path / "a.mp4") as reader:
        assert abs(next(iter(reader))[1].mean() - 250) < 3


def test_lost_and_damaged_packets_are_survived_and_counted(tmp_path):
    whole = film(tmp_path / "a.mp4", 60)
    zeroed = spoiled(whole, tmp_path / "b.mp4", lambda k, data: b"\0" * 40 if k == 20 else data)
    _, numbers, reader = read(zeroed)
    assert reader.status == "partial"
    assert reader.note
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
    with pytest.raises(VideoError, match="not a single frame"):
        video.probe(path)


@pytest.mark.parametrize("suffix", [".mkv", ".avi"])
def test_cut_in_half(tmp_path, suffix):
    path = film(tmp_path / f"a{suffix}", 200, crf=1)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    _, numbers, reader = read(path)
    assert reader.status == "partial"
    assert 50 < reader.n_frames < 150
    assert numbers[:50] == list(range(50))
    assert reader.note


def bad_files(folder: Path) -> dict[str, str]:
    film(folder / "whole.mp4")
    whole = (folder / "whole.mp4").read_bytes()
    (folder / "empty.mp4").touch()
    (folder / "random.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    (folder / "page.mp4").write_text("<!DOCTYPE html><html><body>Not found</body></html>" * 20)
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "notes.txt").write_text("no video\n" * 50)
    (folder / "huge.y4m").write_text("YUV4MPEG2 W8000 H8000 F25:1 Ip A1:1 C420jpeg\nFRAME\n")
    audio(folder / "audio.mp4")
    return {
        "missing.mp4": "no such file",
        ".": "a folder, not a video file",
        "empty.mp4": r"the file is empty \(0 bytes\)",
        "random.mp4": "is damaged, cut off or no video",
        "page.mp4": "is damaged, cut off or no video",
        "cut.mp4": "is damaged, cut off or no video",
        "notes.txt": "there is no video in it",
        "audio.mp4": "there is no video in it",
        "huge.y4m": "claims 8000 x 8000 pixels per frame",
    }


def test_bad_files_get_one_clear_sentence(tmp_path):
    for name, reason in bad_files(tmp_path).items():
        for use in (video.probe, read):
            with pytest.raises(VideoError, match=reason) as caught:
                use(tmp_path / name)
            message = str(caught.value)
            assert message.startswith(str(tmp_path / name))
            assert message.endswith(".")
            assert "\n" not in message


def test_stream_addresses(tmp_path):
    path = film(tmp_path / "a:b %d.mp4")
    assert sampling.frames_at(path, [15]).status == "ok"
    with Reader((film(tmp_path / "a.mp4")).as_uri()) as reader:
        assert len(list(reader)) == 30
    with pytest.raises(VideoError, match="nowhere://x: cannot be opened"):
        video.probe("nowhere://x")


def test_cameras_have_numbers(monkeypatch):
    with pytest.raises(
        VideoError, match=r"^webcam:99: there is no camera here \(/dev/video99\)\.$"
    ):
        video.probe("webcam:99")
    opened = []
    monkeypatch.setattr(Path, "exists", lambda path: True)
    monkeypatch.setattr(Path, "is_char_device", lambda path: True)
    monkeypatch.setattr(av, "open", lambda *where, **how: opened.append((*where, how["format"])))
    for source in ("webcam", "webcam:2"):
        video._open(source)
    assert opened == [("/dev/video0", "v4l2"), ("/dev/video2", "v4l2")]
    monkeypatch.setattr(video.sys, "platform", "darwin")
    with pytest.raises(VideoError, match=r"^webcam: cameras have numbers on Linux alone; .*\.$"):
        video.probe("webcam")


def test_nothing_leaks(tmp_path):
    names = ["whole.mp4", *bad_files(tmp_path)]

    def open_all(times: int) -> int:
        for _, name in itertools.product(range(times), names):
            try:
                with Reader(tmp_path / name) as reader:
                    next(iter(reader))
            except VideoError:
                pass
        return len(os.listdir("/proc/self/fd"))

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("counts open files through /proc, which this system lacks")
    assert open_all(1) == open_all(10)


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
    info = video.probe(REAL / name)
    assert (info.height, info.width) == (height, width)
    assert info.fps == pytest.approx(fps, abs=1e-3)
    assert info.streams == (2 if name == "two_video_streams.mp4" else 1)
    with Reader(REAL / name) as reader:
        times = []
        for time, rgb in reader:
            assert rgb.shape == (height, width, 3)
            times.append(time)
    assert (len(times), reader.n_frames, reader.status, reader.note) == (
        frames,
        frames,
        status,
        note,
    )
    assert times[0] == 0
    assert np.diff(times) == pytest.approx(1 / fps, abs=1e-3 if status == "ok" else 0.11)


@pytest.mark.skipif(not REAL.is_dir(), reason="real clips not found in ../shared/videos")
def test_real_clips_in_the_right_order_and_the_right_way_up():
    with Reader(REAL / "pts_not_monotonic.avi") as reader:
        frames = np.stack([rgb.astype(np.float32) for _, rgb in reader])
    steps = np.abs(np.diff(frames, axis=0)).mean((1, 2, 3))
    skips = np.abs(frames[2:] - frames[:-2]).mean((1, 2, 3))
    assert (skips > np.minimum(steps[1:], steps[:-1])).mean() > 0.9
    with av.open(str(REAL / "rotated_90.mov")) as container:
        stored = next(container.decode(video=0)).to_ndarray(format="rgb24")
    with Reader(REAL / "rotated_90.mov") as reader:
        assert np.array_equal(next(iter(reader))[1], np.rot90(stored, -1))


@pytest.mark.skipif(not REAL.is_dir(), reason="real clips not found in ../shared/videos")
def test_real_corruption_spoils_only_what_comes_after_it():
    assert sampling.frames_at(REAL / "corrupted.mp4", [0, 10]).status == "ok"
    assert sampling.frames_at(REAL / "corrupted.mp4", [0, 45]).status == "partial"


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_sound_may_outlast_the_picture(tmp_path, suffix):
    """A container then lasts longer than its video, which is whole all the same."""
    path = tmp_path / f"long_sound.{suffix}"
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libx264", rate=15, options={"crf": "30"})
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("aac", rate=44100, layout="mono")
        for _ in range(30):
            image = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8))
            container.mux(picture.encode(image))
        container.mux(picture.encode(None))
        for n in range(430):  # 10 s
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.sample_rate, frame.pts = 44100, 1024 * n
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    with Reader(path) as reader:
        assert len(list(reader)) == 30
    assert reader.status == "ok", reader.note

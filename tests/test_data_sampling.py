"""Timelines without decoding, frames by number, and folders of JPEG frames."""

import itertools
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_data_video import CLIPS, RATES, REAL, coded, film, number, timed_film

from co3d.data import sampling
from co3d.data.sampling import Timeline, decoded_timeline, frames_at, timeline
from co3d.data.video import VideoError


def jpegs(folder, numbers, name="{:06d}.jpg", coded=coded):
    """Frame k of the film as picture k of a folder."""
    folder.mkdir()
    context = av.CodecContext.create("mjpeg", "w")
    context.height, context.width, _ = coded(0).shape
    context.pix_fmt, context.time_base = "yuvj420p", Fraction(1, 24)
    for k in numbers:
        picture = np.ascontiguousarray(coded(k))
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuvj420p")
        (packet,) = context.encode(frame)
        (folder / f"X-{name.format(k)}").write_bytes(bytes(packet))
    return folder


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
@pytest.mark.parametrize("fps", RATES, ids=lambda fps: f"{float(fps):.3f}")
def test_the_timeline_is_that_of_decoding(tmp_path, fps, suffix):
    path = film(tmp_path / f"a{suffix}", 40, fps)
    assert timeline(path) == decoded_timeline(path)
    assert timeline(path).fps == pytest.approx(fps)
    assert timeline(path).note == ""


def test_variable_rates_and_late_starts(tmp_path):
    ticks = [5000 + at for at in (0, 20, 50, 400, 410, 1000)]
    for suffix in ("mp4", "mkv"):
        line = timeline(timed_film(tmp_path / f"a.{suffix}", ticks, Fraction(1, 1000)))
        assert line.times == pytest.approx([0, 0.02, 0.05, 0.4, 0.41, 1.0])
        assert (line.origin, line.fps) == pytest.approx((5, 5))
    broken = timed_film(tmp_path / "b.mkv", [0, 33, 67, 9_000_000], Fraction(1, 1000))
    assert timeline(broken) == decoded_timeline(broken)


def shortened(source, target, seconds):
    """A copy that begins so much earlier: players and FFmpeg drop what is before time 0."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(old.streams.video[0]):
            if packet.size:
                packet.stream = stream
                ticks = round(seconds / packet.time_base)
                packet.pts, packet.dts = packet.pts - ticks, packet.dts - ticks
                new.mux(packet)
    return target


def test_packets_that_are_not_shown_do_not_count(tmp_path):
    path = shortened(film(tmp_path / "a.mp4", 60), tmp_path / "b.mp4", 0.4)
    line = timeline(path)
    assert line == decoded_timeline(path)
    assert len(line.times) == 48
    assert number(frames_at(path, [0])[0]) == 12


@pytest.mark.skipif(not REAL.is_dir(), reason="real clips not found in ../shared/videos")
@pytest.mark.parametrize("name", CLIPS)
def test_real_timeline(name):
    promised, decoded = timeline(REAL / name), decoded_timeline(REAL / name)
    if name == "corrupted.mp4":  # one of its 50 packets cannot be decoded
        assert (len(promised.times), len(decoded.times)) == (50, 49)
        assert decoded.note
    else:
        assert promised == decoded


@given(
    st.lists(st.integers(1, 400), min_size=0, max_size=30),
    st.one_of(st.sampled_from([5.0, 15.0, 24000 / 1001, 30.0]), st.floats(0.5, 60)),
)
def test_count_and_at_are_those_of_resample(steps, fps):
    times = (0.0, *(step / 1000 for step in itertools.accumulate(steps)))
    line = Timeline(times, 30.0)
    expected = [k for _, k in sampling.resample(((t, k) for k, t in enumerate(times)), fps)]
    assert line.count(fps) == len(expected)
    assert line.at(fps, range(len(expected))) == expected


def test_frames_by_number(tmp_path):
    path = film(tmp_path / "a.mp4", 60)
    assert [number(picture) for picture in frames_at(path, [0, 7, 7, 30])] == [0, 7, 7, 30]
    for indices in ([60], [58, 59, 60, 60]):
        with pytest.raises(VideoError, match="ends after 60 frames, before 60"):
            frames_at(path, indices)


def test_a_folder_of_frames(tmp_path):
    folder = jpegs(tmp_path / "a", range(1, 31))
    (folder / "._X-000001.jpg").write_bytes(b"")
    (folder / "notes.txt").write_text("no frame")
    line = timeline(folder, 24.0)
    assert line == decoded_timeline(folder, 24.0)
    assert (len(line.times), line.fps, line.times[29]) == (30, 24, 29 / 24)
    pictures = frames_at(folder, [0, 9, 9, 29], 24.0)
    assert [number(picture) for picture in pictures] == [1, 10, 10, 30]
    tens = jpegs(tmp_path / "c", [1, 2, 10, 9, 3, 4, 5, 6, 7, 8], "{}.jpeg")
    assert number(frames_at(tens, [8], 24.0)[0]) == 9


def test_frames_that_are_left_out_are_lost(tmp_path):
    folder = jpegs(tmp_path / "a", [1, 2, 3, 6, 7])
    assert timeline(folder, 1.0).times == (0, 1, 2, 5, 6)
    assert len(frames_at(folder, [0, 2], 1.0)) == 2
    with pytest.raises(VideoError, match="JPEG frames missing or damaged: 2."):
        frames_at(folder, [0, 3], 1.0)
    with pytest.raises(VideoError, match="missing or damaged: 2"):
        frames_at(jpegs(tmp_path / "b", [3, 4]), [0], 1.0)


def test_folders_that_cannot_be_read(tmp_path):
    with pytest.raises(VideoError, match="there are no numbered JPEG frames"):
        timeline(jpegs(tmp_path / "a", []), 24.0)
    folder = jpegs(tmp_path / "b", [1])
    with pytest.raises(VideoError, match="needs a rate above 0, given None"):
        timeline(folder, None)
    (folder / "Y-1.jpg").write_bytes(b"")
    with pytest.raises(VideoError, match="two JPEG frames have the same number"):
        timeline(folder, 24.0)


def test_pictures_that_are_none(tmp_path):
    folder = jpegs(tmp_path / "a", [1, 2, 3, 4])
    (folder / "X-000002.jpg").write_bytes(b"")
    (folder / "X-000003.jpg").write_text("#EXTM3U\nhttp://localhost/a.ts\n")
    huge = (folder / "X-000004.jpg").read_bytes()
    at = huge.index(b"\xff\xc0") + 5  # height and width in the frame header
    (folder / "X-000004.jpg").write_bytes(huge[:at] + b"\x75\x30\x75\x30" + huge[at + 4 :])
    cut = (folder / "X-000001.jpg").read_bytes()
    (folder / "X-000001.jpg").write_bytes(cut[: len(cut) // 2])
    for index in range(4):
        with pytest.raises(VideoError, match="is damaged or no JPEG"):
            frames_at(folder, [index], 24.0)

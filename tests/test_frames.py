"""What plans get from made videos, each of whose frames shows its own number."""

import dataclasses
import functools
import pickle
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from test_data_sampling import jpegs
from test_data_video import RATES, spoiled

import co3d
from co3d.data import video
from co3d.data.dataset import Video
from co3d.data.sampling import decoded_timeline, timeline
from co3d.data.transforms import Transform
from co3d.measure import frames as reading
from co3d.measure.frames import decode
from co3d.measure.plans import Plan
from co3d.measure.protocols import control, plan

SIDE = 80


def coded(k):
    """A square that shows the number k as ten black and white bars."""
    bits = np.array([(k >> bit) & 1 for bit in range(10)], np.uint8)
    return np.broadcast_to(np.repeat(255 * bits, 8)[None, :, None], (SIDE, SIDE, 3))


def numbers(clip, transform):
    """The numbers that the frames of an input (3,T,S,S) show."""
    grey = clip[0] * transform.std[0] + transform.mean[0]
    bars = grey.mean(1)[:, [int((bit + 0.5) / 10 * clip.shape[3]) for bit in range(10)]]
    return tuple((2 ** torch.arange(10) * (bars > 0.5)).sum(1).tolist())


def film(path, n, fps):
    video.write(path, map(coded, range(n)), fps)
    return Video("a", "", None, path)


@functools.cache
def net(name, window=None):
    return co3d.create(name, window)


@functools.cache
def plans():
    """Of every protocol, mode and kind of data set."""
    made = [
        plan(net("x3d_xs"), "kinetics400", "paper"),
        plan(net("cox3d_s", 64), "kinetics400", "paper"),
        plan(net("x3d_s"), "kinetics400", "native", views=3),
        plan(net("cox3d_mini"), "kinetics400", "first-valid"),
        plan(net("cox3d_mini"), "kinetics400", "steady"),
        plan(net("slow_8x8_r50"), "charades", "paper"),
        plan(net("coslow_mini"), "synthetic-charades", "steady"),
        plan(net("x3d_mini"), "kinetics400", "native"),
    ]
    made.append(control(net("x3d_mini"), made[4]))
    small = dict(image_size=SIDE, resize=None)
    return [
        dataclasses.replace(one, transform=dataclasses.replace(one.transform, **small))
        for one in made
    ]


def first(frames=10, fps=15.0, **more):
    """The first frames by time, as a stream has them."""
    transform = Transform(SIDE, (0.0,) * 3, (1.0,) * 3)
    given = dict(views=1, crops=1, position=0.0, fill="zeros", transform=transform)
    return Plan(
        **{**given, "protocol": "steady", "mode": "stream", "interval": None, **more},
        frames=frames,
        fps=fps,
    )


def feed(clip, made):
    """Status, note, views and clips of each plan."""
    frames = pickle.loads(pickle.dumps(decode((clip, made))))  # as from another process
    results = []
    for one in made:
        status, note = frames.statuses[one]
        parts = frames.parts(one) if status == "ok" else []
        clips = [torch.from_numpy(frames.clip(*part)) for part in parts]
        indices = frames.views[one] if parts else ()
        results.append(SimpleNamespace(status=status, note=note, indices=indices, clips=clips))
    return results


def shown(fed, made):
    """The numbers in each clip of a plan."""
    return [numbers(clip, made.transform) for clip in fed.clips]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
@pytest.mark.parametrize("fps", RATES, ids=lambda fps: f"{float(fps):.3f}")
def test_every_plan_gets_the_frames_that_it_names(tmp_path, fps, suffix):
    clip = film(tmp_path / f"a{suffix}", round(4 * fps), fps)
    line = decoded_timeline(clip.path)
    for made, fed in zip(plans(), feed(clip, plans()), strict=True):
        assert (fed.status, fed.note) == ("ok", "")
        assert fed.indices == made.indices(line)
        assert len(fed.clips) == made.views * made.crops
        assert fed.clips[0].shape == (3, len(fed.indices[0]), SIDE, SIDE)
        assert shown(fed, made) == [view for view in fed.indices for _ in range(made.crops)]


def test_variable_rate(tmp_path):
    ticks = [0, 20, 50, 400, 410, 1000, 1300, 1700, 2000]
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for k, tick in enumerate(ticks):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(coded(k)), format="rgb24")
            frame.pts, frame.time_base = tick, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    by_time = first(frames=9, fps=5)
    (fed,) = feed(Video("a", "", None, tmp_path / "a.mkv"), [by_time])
    assert shown(fed, by_time) == [(0, 2, 3, 4, 4, 5, 5, 6, 6)]  # at 0, 0.2 ... 1.6 s


def test_a_folder_of_frames(tmp_path):
    folder = jpegs(tmp_path / "a", range(1, 49), coded=coded)
    by_time, clip = first(frames=5, fps=3), Video("a", "", None, folder, frames_fps=24.0)
    (fed,) = feed(clip, [by_time])
    assert fed.indices == ((0, 8, 16, 24, 32),)
    assert shown(fed, by_time) == [(1, 9, 17, 25, 33)]
    (folder / "X-000017.jpg").write_bytes(b"no picture")
    early, late = feed(clip, [first(frames=2, fps=3), by_time])
    assert (early.status, late.status) == ("ok", "decode_error")
    assert late.note == "a/X-000017.jpg: is damaged or no JPEG."


def test_what_cannot_be_fed(tmp_path):
    clip = film(tmp_path / "a.mp4", 60, 15)
    (fed,) = feed(clip, [first(frames=61)])
    assert (fed.status, len(fed.clips), fed.indices) == ("too_short", 0, ())
    assert fed.note == "Too short: 61 frames are needed at 15 fps, there are 60."
    (tmp_path / "b.mp4").write_bytes(clip.path.read_bytes()[:500])
    (fed,) = feed(dataclasses.replace(clip, path=tmp_path / "b.mp4"), [first()])
    assert fed.status == "decode_error"
    assert fed.note.startswith("is damaged, cut off or no video")
    (fed,) = feed(dataclasses.replace(clip, path=tmp_path / "gone.mp4"), [first()])
    assert (fed.status, fed.note) == ("decode_error", "no such file.")


def test_damage_spoils_the_plans_that_reach_it_and_no_others(tmp_path):
    whole = film(tmp_path / "a.mp4", 60, 15)
    path = spoiled(whole.path, tmp_path / "b.mp4", lambda k, data: b"\0" * 40 if k == 40 else data)
    early, late, centre = first(20), first(60), first(10, position=0.5)
    results = feed(dataclasses.replace(whole, path=path), [early, late, centre])
    assert [fed.status for fed in results] == ["ok", "partial", "ok"]
    assert "lost" in results[1].note
    assert shown(results[0], early) == [tuple(range(20))]


def test_a_missing_end_spoils_the_plans_that_count_from_there(tmp_path):
    clip = film(tmp_path / "a.mkv", 200, 15)
    data = clip.path.read_bytes()
    clip.path.write_bytes(data[: len(data) // 2])
    results = feed(clip, [first(20), first(20, position=0.5), first(20, whole=True), first(190)])
    assert [fed.status for fed in results] == ["ok", "partial", "partial", "partial"]
    assert results[1].note.startswith("The file claims 13.3 s but ends after")


def keyless(folder):
    """Without its first packets a film begins to be decodable later than its packets promise."""
    whole = folder / "a.mp4"
    with av.open(str(whole), "w") as container:
        stream = container.add_stream("libx264", rate=15, options={"g": "12", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
        for k in range(80):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(coded(k)), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    path = spoiled(whole, folder / "b.mp4", lambda k, data: b"" if k < 3 else data)
    return Video("a", "", None, path)


def test_packets_that_promise_other_frames_than_come(tmp_path):
    clip = keyless(tmp_path)
    line = decoded_timeline(clip.path)
    assert len(timeline(clip.path).times) == 77 > len(line.times)
    made = [first(20), first(10, position=0.5), first(77)]
    results = feed(clip, made)
    assert [fed.status for fed in results] == ["ok", "ok", "too_short"]
    skipped = 80 - len(line.times)
    for one, fed in zip(made[:2], results, strict=False):
        assert fed.indices == one.indices(line)
        assert shown(fed, one) == [tuple(skipped + number for number in fed.indices[0])]


@pytest.mark.parametrize("made_by", [lambda folder: film(folder / "a.mp4", 80, 15), keyless])
def test_what_a_plan_gets_does_not_depend_on_the_others(tmp_path, made_by):
    clip = made_by(tmp_path)
    many = [first(5), first(70), *plans()[3:6], first(500)]
    for one, fed in zip(many, feed(clip, many), strict=True):
        (alone,) = feed(clip, [one])
        assert (alone.status, alone.note, alone.indices) == (fed.status, fed.note, fed.indices)
        assert all(map(torch.equal, alone.clips, fed.clips))


def test_one_pass_that_stops_at_the_last_wanted_frame(tmp_path, monkeypatch):
    clip = film(tmp_path / "a.mp4", 150, 15)
    decoded, converted, opens = [], [], []
    for owner, name, calls in (
        (video.Reader, "_decoded", decoded),
        (video.Reader, "rgb", converted),
        (reading, "opened", opens),
    ):
        whole = getattr(owner, name)
        counted = lambda *a, whole=whole, calls=calls: calls.append(a) or whole(*a)  # noqa: E731
        monkeypatch.setattr(owner, name, counted)
    feed(clip, [first(10, fps=3), first(10, fps=5)])
    assert len(opens) == 1 and len(decoded) < 60
    assert len(converted) == 18  # 0, 5 ... 45 and 0, 3 ... 27 have 0 and 15 in common


def test_narrow_pictures_and_long_videos_are_errors_of_the_plans_that_cannot(tmp_path, monkeypatch):
    clip = film(tmp_path / "a.mp4", 60, 15)
    monkeypatch.setattr("co3d.data.transforms.MAX_PIXELS", 100 * 100)
    large = dataclasses.replace(first().transform, image_size=160)
    monkeypatch.setattr("co3d.measure.plans.MAX_FED", 50)
    results = feed(clip, [first(), first(transform=large), first(whole=True)])
    assert [fed.status for fed in results] == ["ok", "decode_error", "decode_error"]
    assert "too narrow" in results[1].note
    assert results[2].note == "expected up to 50 frames at 15 fps, given 60"

"""Clip net and stream on the same frames, and the annotated video, say what the networks say."""

from pathlib import Path

import numpy as np
import pytest
import torch

import co3d
from co3d import report
from co3d.data import video
from co3d.data.video import Reader
from co3d.measure import live
from co3d.measure.live import Scores, Step
from co3d.report import overlay, style
from co3d.report.drawings import AGAIN, NEW
from co3d.report.overlay import Side

REAL = Path(__file__).resolve().parents[2] / "shared" / "videos"


@pytest.fixture(scope="module")
def nets():
    torch.manual_seed(0)
    model, clip_net = co3d.create("cox3d_mini"), co3d.create("x3d_mini")
    clip_net.load_state_dict(model.state_dict())
    return model, clip_net, co3d.transform_for("cox3d_mini")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """40 frames at 15 per second."""
    path = tmp_path_factory.mktemp("video") / "noise.mp4"
    frames = np.random.default_rng(0).integers(0, 255, (40, 48, 64, 3), np.uint8)
    video.write(path, frames, 15)
    return path


@pytest.fixture(scope="module")
def watched(nets, clip):
    model, clip_net, transform = nets
    steps = list(co3d.watch(clip, model, transform).steps(keep=True))
    return list(zip(steps, live.clip_steps(clip_net, steps, every=3), strict=True))


def test_both_networks_see_the_same_frames(nets, clip, watched):
    model, clip_net, transform = nets
    with Reader(clip) as reader:
        frames = transform(np.stack([rgb for _, rgb in reader]))
    by_stream = {step.number: step.scores.values for step, _ in watched if step.scores}
    logits = model.steps(frames[None])[0][0].T
    assert list(by_stream) == list(range(model.warmup + 1, 41))
    for wanted, said in zip(co3d.scores(model, logits), by_stream.values(), strict=True):
        assert torch.allclose(said, wanted, rtol=0, atol=1e-5)
    by_clip = {step.number: step.scores.values for _, step in watched if step.scores}
    assert list(by_clip) == list(range(16, 41, 3))
    with torch.no_grad():
        for number, said in by_clip.items():
            wanted = clip_net(frames[None, :, number - 16 : number]).softmax(1)[0]
            assert torch.allclose(said, wanted, rtol=0, atol=1e-6)


def test_pictures_come_with_the_first_network_and_times_with_both(watched):
    assert all(step.picture.shape == (48, 64, 3) for step, _ in watched)
    assert all(step.step_ms > 0 for steps in watched for step in steps)


def test_a_clip_at_every_0_frames_is_refused(nets):
    with pytest.raises(ValueError, match="every 1 or more frames"):
        next(live.clip_steps(nets[1], [], every=0))


@pytest.mark.skipif(not REAL.exists(), reason="the real clips are not beside this checkout")
def test_a_real_video_is_kept_small_and_a_short_rotated_one_refused(nets):
    steps = list(co3d.watch(REAL / "two_video_streams.mp4", nets[0], seconds=2.0).steps(keep=True))
    assert len(steps) == 30 and max(steps[0].picture.shape) == live.LONGEST
    with pytest.raises(ValueError, match="ends after"):
        list(co3d.watch(REAL / "rotated_90.mov", nets[0]))


def test_a_side_tells_what_is_counted(nets):
    model, clip_net, _ = nets
    stream, clips = Side.stream(model), Side.clips(clip_net, every=16)
    counted = report.read("models").query("image_size == 48 and num_classes == 12")
    counted = counted.groupby("model").first()
    assert stream.macs == counted.loc["cox3d_mini", "macs_frame"]
    assert clips.macs == counted.loc["x3d_mini", "macs_clip"]
    assert (stream.color, clips.color) == (style.color("cox3d_mini"), style.CLIP)
    assert (stream.first, stream.real) == (24, 32) and (clips.first, clips.real) == (16, 16)
    assert [stream.spent(n) / stream.macs for n in (1, 24, 100)] == [1, 24, 100]
    assert [clips.spent(n) / clips.macs for n in (1, 15, 16, 31, 32, 100)] == [0, 0, 1, 1, 2, 6]
    assert "no prediction before frame 24" in stream.state(23)
    assert "until frame 32" in stream.state(24) and "until frame 32" in stream.state(31)
    assert stream.state(32) == "each prediction computes the new frame alone"
    assert clips.state(16) == "each prediction computes 16 frames, one at every 16 frames"


SIDES = [
    Side("CoNet", "", NEW, first=2, real=3, begins=1, every=1, macs=1e6),
    Side("Net", "", AGAIN, first=3, real=3, begins=3, every=1, macs=9e6),
]


def made(count=4):
    """Steps of two networks: the first says "a" at frame 2 alone, the second "b" from 3 on."""
    for number in range(1, count + 1):
        image = np.full((30, 40, 3), 90, np.uint8)
        first = Scores(torch.tensor([0.5, 0.2]), "ab") if number == 2 else None
        second = Scores(torch.tensor([0.0, 1.0]), "ab") if number >= 3 else None
        yield (
            Step(number, number / 10, first, 1.0, 3.0, picture=image),
            Step(number, number / 10, second, 1.0, 4.0),
        )


@pytest.mark.parametrize("shape", [(2, 480, 3), (270, 480, 3), (480, 360, 3)])
def test_pictures_of_any_shape_fit(shape):
    step = Step(1, 0.1, None, 1.0, 1.0, picture=np.full(shape, 90, np.uint8))
    image = np.asarray(overlay.picture(SIDES[:1], [(step,)], 1))
    assert image.shape[0] % 2 == image.shape[1] % 2 == 0
    rows, columns = np.nonzero((image == 90).all(2))
    assert rows.max() < image.shape[0] - 30 and columns.max() < overlay.SPLIT
    assert len(rows) >= 100


def width_of(image, color, row):
    """Pixels of a colour in a row of the picture."""
    wanted = [int(color[n : n + 2], 16) for n in (1, 3, 5)]
    return int((np.asarray(image)[row] == wanted).all(1).sum())


def test_bars_are_as_long_as_what_they_show():
    """Of the MACs: 4 against 18 MMACs; and of the last prediction, which stays until the next."""
    image = overlay.picture(SIDES, list(made()), 4)
    full, top = overlay.RIGHT - overlay.SPLIT, overlay.MARGIN
    below = 2 * overlay.MARGIN + overlay.PANEL
    assert width_of(image, NEW, top + 208) == pytest.approx(full * 4 / 18, abs=2)
    assert width_of(image, AGAIN, below + 208) == pytest.approx(full, abs=2)
    assert width_of(image, overlay._light(NEW), top + 68) == pytest.approx(full / 2, abs=2)
    assert width_of(overlay.picture(SIDES, list(made()), 2), AGAIN, below + 208) == 0


def test_an_annotated_video_holds_every_frame(nets, clip, tmp_path):
    model, _, transform = nets
    with overlay.Film(tmp_path / "a.mp4", model, 10) as film:
        for step in co3d.watch(clip, model, transform).steps(keep=True):
            film.add_step(step)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    with Reader(tmp_path / "a.mp4") as reader:
        frames = [rgb for _, rgb in reader]
    assert len(frames) == 40 and reader.fps == 10
    assert frames[0].shape[1] == overlay.WIDTH


def test_a_name_of_no_format_and_a_failure_leave_nothing(nets, tmp_path):
    with pytest.raises(ValueError, match="expected a name that ends in .mp4"):
        overlay.Film(tmp_path / "a.gif", nets[0], 10)
    with pytest.raises(AttributeError), overlay.Film(tmp_path / "a.mp4", nets[0], 10) as film:
        film.add_step(None)
    assert not list(tmp_path.iterdir())

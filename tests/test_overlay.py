"""Clip net and stream on the same frames, and the annotated video, say what the networks say."""

import numpy as np
import pytest
import torch
from PIL import ImageColor

import co3d
from co3d import report
from co3d.data import video
from co3d.data.video import Reader
from co3d.measure import live
from co3d.measure.live import Scores, Step
from co3d.report import overlay
from co3d.report.drawings import AGAIN, NEW
from co3d.report.overlay import Side


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


def test_a_clip_at_every_0_frames_is_refused(nets):
    with pytest.raises(ValueError, match="every 1 or more frames"):
        next(live.clip_steps(nets[1], [], every=0))


def test_a_side_tells_what_is_counted(nets):
    model, clip_net, _ = nets
    stream, clips = Side.stream(model), Side.clips(clip_net, every=16)
    counted = report.read("models").query("image_size == 48 and num_classes == 12")
    counted = counted.groupby("model").first()
    assert stream.macs == counted.loc["cox3d_mini", "macs_frame"]
    assert clips.macs == counted.loc["x3d_mini", "macs_clip"]
    assert (stream.first, stream.real) == (24, 32) and (clips.first, clips.real) == (16, 16)
    assert [stream.spent(n) / stream.macs for n in (1, 24, 100)] == [1, 24, 100]
    assert [clips.spent(n) / clips.macs for n in (1, 15, 16, 31, 32, 100)] == [0, 0, 1, 1, 2, 6]
    states = [stream.state(n).partition(" ")[0] for n in (23, 24, 31, 32)]
    assert states == ["no", "start-up:", "start-up:", "each"]


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


def width_of(image, color, row):
    """Pixels of a colour in a row of the picture."""
    return int((np.asarray(image)[row] == ImageColor.getrgb(color)).all(1).sum())


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


def test_a_failure_leaves_no_video(nets, tmp_path):
    with pytest.raises(AttributeError), overlay.Film(tmp_path / "a.mp4", nets[0], 10) as film:
        film.add_step(None)
    assert not list(tmp_path.iterdir())

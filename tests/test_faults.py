"""What goes wrong is seen: broken videos, label maps that are permuted, too little memory."""

import dataclasses

import numpy as np
import pytest
import torch
from nets import clip_net
from test_sets_rows import frames

from co3d.data import video
from co3d.data.dataset import Dataset, Video
from co3d.measure import accuracy, readings, runs

COUNT = 20
LABELS = tuple(f"class {letter}" for letter in "abcdefghij")
EACH = 8  # videos per class


@pytest.fixture
def twenty(tmp_path):
    """20 videos of the first two classes of a net, whose weights are made."""
    videos = []
    for n in range(COUNT):
        path = tmp_path / "videos" / f"{n}.mp4"
        video.write(path, frames(n, 30), 15)
        videos.append(Video(f"v{n:02d}", f"{n % 2}", n % 2, path, (n % 2,)))
    return Dataset("made", "test", tuple(map(str, range(12))), tuple(videos))


def cut(path):
    path.write_bytes(path.read_bytes()[:900])


def page(path):
    path.write_bytes(b"<!DOCTYPE html><html><body>Video unavailable</body></html>")


@pytest.mark.parametrize("third", ["missing", "empty"])
def test_three_broken_of_twenty(twenty, tmp_path, inline, third):
    net = clip_net()
    with torch.no_grad():
        net.classifier.bias[:2] += 1e3  # of these two it guesses one
    some = readings.readings(
        [("x3d_mini", net), ("cox3d_mini", net)], "made", ["native", "first-valid"]
    )
    whole = accuracy.evaluate(some, twenty, folder=tmp_path / "whole", progress=False)[0]
    videos = list(twenty.videos)
    cut(videos[3].path)
    page(videos[7].path)
    if third == "empty":
        videos[12].path.write_bytes(b"")
    else:
        videos[12] = dataclasses.replace(videos[12], path=None)
    broken = dataclasses.replace(twenty, videos=tuple(videos))
    results = accuracy.evaluate(some, broken, folder=tmp_path / "broken", progress=False)[0]
    for result, before in zip(results, whole, strict=True):
        row, bad = result.row, {"v03", "v07", "v12"}
        found = COUNT - (third == "missing")
        assert [row[name] for name in ("n_expected", "n_found", "n_scored")] == [20, found, 17]
        statuses = {"ok": 17, "decode_error": 2, "missing": 1}
        if third == "empty":
            statuses = {"ok": 17, "decode_error": 3}
        assert result.run.statuses == statuses
        assert result.run.notes.keys() == bad - ({"v12"} if third == "missing" else set())
        right = sum(
            one for v, one in zip(before.videos, before.right, strict=True) if v.id not in bad
        )
        assert 0 < right < 17
        assert row["top1"] == pytest.approx(100 * right / 17)
        assert accuracy.failures_as_wrong(row) == pytest.approx(100 * right / 20)
        assert (result.scores == before.scores[[v.id not in bad for v in before.videos]]).all()


@pytest.fixture(scope="module")
def shades(tmp_path_factory):
    """A grey video for each class, the darkest for the first."""
    folder = tmp_path_factory.mktemp("shades")
    for n in range(len(LABELS)):
        path = folder / f"{n}.mp4"
        video.write(path, np.full((20, 48, 64, 3), shade(n), np.uint8), 15)
    return [folder / f"{n}.mp4" for n in range(len(LABELS))]


def shade(number):
    return 20 + 22 * number


@pytest.fixture
def sees(monkeypatch, inline):
    """A model that tells the classes by their grey, instead of the network."""

    def predict(some, frames):
        records = []
        for reading in some:
            (part,) = frames.parts(reading.plan)
            transform = reading.plan.transform
            grey = 255 * (frames.clip(*part).mean() * transform.std[0] + transform.mean[0])
            scores = [-abs(float(grey) - shade(n)) for n in range(len(LABELS))]
            records.append({"status": "ok", "scores": scores})
        return records

    monkeypatch.setitem(runs.run.__kwdefaults__, "predict", predict)


def numbered(shades):
    """For each video its true class and its file; one of a class looks like the next class."""
    for n in range(len(LABELS) * EACH):
        true = n % len(LABELS)
        yield n, true, shades[(true + (n < len(LABELS))) % len(LABELS)]


def relabelled(shades, order):
    """The videos under a label map that calls class n what is order[n]."""
    return Dataset("made", "test", LABELS, tuple(
        Video(f"v{n}", LABELS[order[true]], order[true], path, (order[true],))
        for n, true, path in numbered(shades)
    ))  # fmt: skip


MAPS = {
    "right": (list(range(10)), ""),
    "shuffled": ([3, 7, 0, 9, 1, 8, 2, 4, 5, 6], "x3d_mini, native, clip: The label map looks per"),
    "swapped": ([0, 1, 6, 3, 4, 5, 2, 7, 8, 9], "Labels look exchanged (class c, class g): "),
}


@pytest.mark.parametrize("case", MAPS)
def test_permuted_label_maps_end_in_a_sentence(shades, sees, tmp_path, case):
    order, sentence = MAPS[case]
    some = readings.readings([("x3d_mini", clip_net(0, 10))], "made", ["native"])
    data = relabelled(shades, order)
    results = accuracy.evaluate(some, data, folder=tmp_path, progress=False)[0]
    same = np.mean([order[n] == n for n in range(10)])
    assert same <= results[0].row["top1"] / 100 + 0.125  # an eighth looks like the next class
    found = accuracy.warnings(results)
    assert len(found) == bool(sentence) and all(sentence in line for line in found)


def test_what_cannot_be_scored_is_refused_before_any_work(twenty, tmp_path):
    of_400 = readings.readings([("x3d_mini", clip_net(0, 400))], "made", ["native"])
    some = readings.readings([("x3d_mini", clip_net())], "made", ["native"])
    unlabelled = dataclasses.replace(twenty.videos[0], class_id=None)
    for net, data, sentence in (
        (of_400, twenty, "expected a model of the 12 classes of made, given x3d_m"),
        (some, dataclasses.replace(twenty, videos=(unlabelled,)), "expected labelled videos"),
    ):
        with pytest.raises(ValueError, match=sentence):
            accuracy.evaluate(net, data, folder=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()

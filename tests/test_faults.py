"""What goes wrong is seen: broken videos, label maps that are permuted, models that do not fit."""

import dataclasses

import numpy as np
import pytest
import torch
from nets import clip_net
from test_sets_rows import frames

from co3d.data import video
from co3d.data.dataset import Dataset, Video
from co3d.measure import accuracy, readings

COUNT, BAD = 20, ("v03", "v07", "v11", "v12")


@pytest.fixture
def twenty(tmp_path):
    """20 videos of the first two classes of a net, whose weights are made."""
    videos = []
    for n in range(COUNT):
        path = tmp_path / "videos" / f"{n}.mp4"
        video.write(path, frames(n, 30), 15)
        videos.append(Video(f"v{n:02d}", f"{n % 2}", n % 2, path, (n % 2,)))
    return Dataset("made", "test", tuple(map(str, range(12))), tuple(videos))


def test_four_broken_of_twenty(twenty, tmp_path, inline):
    net = clip_net()
    with torch.no_grad():
        net.classifier.bias[:2] += 1e3  # of these two it guesses one
    models = [("x3d_mini", net), ("cox3d_mini", net)]
    some = readings.readings(models, "made", ["native", "first-valid"])
    whole = accuracy.evaluate(some, twenty, folder=tmp_path / "whole", progress=False)[0]
    videos = list(twenty.videos)
    videos[3].path.write_bytes(videos[3].path.read_bytes()[:900])
    videos[7].path.write_bytes(b"<!DOCTYPE html><html><body>Video unavailable</body></html>")
    videos[11].path.write_bytes(b"")
    videos[12] = dataclasses.replace(videos[12], path=None)
    broken = dataclasses.replace(twenty, videos=tuple(videos))
    results = accuracy.evaluate(some, broken, folder=tmp_path / "broken", progress=False)[0]
    for result, before in zip(results, whole, strict=True):
        row, good = result.row, np.array([v.id not in BAD for v in before.videos])
        assert [row[name] for name in ("n_expected", "n_found", "n_scored")] == [20, 19, 16]
        assert result.run.statuses == {"ok": 16, "decode_error": 3, "missing": 1}
        assert result.run.notes.keys() == set(BAD[:3])
        right = before.right[good].sum()
        assert 0 < right < 16
        assert row["top1"] == pytest.approx(100 * right / 16)
        assert accuracy.failures_as_wrong(row) == pytest.approx(100 * right / 20)
        assert (result.scores == before.scores[good]).all()


def test_permuted_label_maps_end_in_a_sentence():
    """A net that is right in seven of eight videos, under a label map that calls n order[n]."""
    order, seen = [3, 7, 0, 9, 1, 8, 2, 4, 5, 6], [n % 10 for n in range(80)]
    videos = tuple(Video("", f"class {order[n]}", order[n], None) for n in seen)
    guesses = [(n + (place < 10)) % 10 for place, n in enumerate(seen)]
    scores = np.eye(10, dtype=np.float32)[guesses]
    row = {"top1": 0, "model": "x3d_mini", "protocol": "native", "mode": "clip", "window": None}
    (line,) = accuracy.warnings([accuracy.Result(None, row, scores, videos, None)])
    assert line.startswith("x3d_mini, native, clip: The label map looks permuted")


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

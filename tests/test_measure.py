"""Accuracy: hand-computed metrics, denominators with broken videos, and what each reading reads."""

import dataclasses
import math

import pytest
import torch

import co3d
from co3d.data import synthetic
from co3d.measure import accuracy
from co3d.measure.equivalence import calibrate
from co3d.measure.metrics import top_k, wilson
from co3d.zoo import checkpoints
from co3d.zoo.checkpoints import Weights


def test_top_k_by_hand():
    scores = torch.tensor([[3.0, 2, 1], [1, 3, 2], [1, 2, 3], [3, 1, 2]])
    assert [top_k(scores, [0, 0, 0, 1], k) for k in (1, 2, 3, 9)] == [1, 1, 4, 4]


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),  # Wilson (1927) by hand, z = 1.96
    [(0, 10, 0.0, 27.753), (5, 10, 23.659, 76.341), (10, 10, 72.247, 100.0), (0, 0, 0, 100)],
)
def test_wilson_by_hand(right, n, low, high):
    assert wilson(right, n) == pytest.approx((low, high), abs=1e-3)


@pytest.fixture(scope="module")
def nets():
    """A regular net and two streams with the same random, calibrated weights."""
    torch.manual_seed(0)
    regular = co3d.create("x3d_mini")
    calibrate(regular, torch.randn(4, 3, 16, 48, 48))
    streams = [co3d.continual(regular, gate="frame", window=window) for window in (16, 40)]
    for net, name in zip((regular, *streams), ("x3d_mini", *["cox3d_mini"] * 2), strict=True):
        net.spec, net.weights = co3d.spec(name), Weights("a test", "0" * 64, "nothing", "none")
    return regular, streams


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("CACHE_PATH", str(tmp_path))
    return synthetic.dataset("test", limit=4, progress=False)


def _evaluate(nets, data):
    readings = accuracy.readings(*nets)
    rows = accuracy.evaluate(readings, data, co3d.transform_for("x3d_mini"), 15, progress=False)
    return readings, rows


@torch.no_grad()
def test_readings_read_what_they_say(nets, data):
    regular, streams = nets
    readings, rows = _evaluate(nets, data)
    transform = co3d.transform_for("x3d_mini")
    for n, video in enumerate(data.videos):
        clip = transform(synthetic.decoded(video))[None]
        expected = [regular(clip[:, :, 56:72])[0]]
        fields = [net.receptive_field for net in streams]
        for net, field in zip(streams, fields, strict=True):
            expected.append(net(clip[:, :, :field], pad=False)[0])
        for field in fields:
            views = math.ceil(field / 16)
            starts = [round(i * (field - 16) / (views - 1)) for i in range(views)]
            clips = torch.cat([regular(clip[:, :, at : at + 16]) for at in starts])
            expected.append(clips.softmax(1).mean(0))
        for reading, scores in zip(readings, expected, strict=True):
            assert torch.allclose(reading.scores[n], scores, rtol=0, atol=1e-4 * scores.abs().max())
    assert [row["window"] for row in rows] == [None, 16, 40, None, None]
    assert [row["frames"] for row in rows] == [16, 32, 56, 32, 56]
    assert [row["views"] for row in rows] == [1, 1, 1, 2, 4]
    clip_macs = rows[0]["macs_per_prediction"]
    assert rows[4]["macs_per_prediction"] == 4 * clip_macs
    assert rows[1]["macs_per_prediction"] == rows[2]["macs_per_prediction"] < clip_macs / 10


def test_videos_that_cannot_be_scored_are_counted_and_never_replaced(nets, data):
    videos = list(data.videos)
    videos[1].path.write_bytes(videos[1].path.read_bytes()[:700])
    videos[2] = dataclasses.replace(videos[2], path=None)
    readings, rows = _evaluate(nets, dataclasses.replace(data, videos=tuple(videos)))
    for reading, row in zip(readings, rows, strict=True):
        assert (row["n_expected"], row["n_found"], row["n_scored"]) == (4, 3, 2)
        assert reading.statuses["missing"] == 1 and reading.statuses["ok"] == 2
        assert reading.statuses.total() == 4
        assert row["ci_low"] <= row["top1"] <= row["ci_high"]


def test_short_videos_and_nan_leave_the_denominator(nets, data):
    regular, streams = nets
    wide = co3d.continual(regular, gate="frame", window=200)
    wide.spec, wide.weights = streams[0].spec, regular.weights
    broken = accuracy.clip_reading(regular)
    broken.predict = lambda video: torch.full((12,), float("nan"))
    readings = [accuracy.stream_reading(wide), broken]
    rows = accuracy.evaluate(readings, data, co3d.transform_for("x3d_mini"), 15, progress=False)
    for reading, row, status in zip(readings, rows, ("too_short", "nan"), strict=True):
        assert reading.statuses == {status: 4}
        assert row["n_scored"] == 0 and row["top1"] is None and row["ci_low"] is None


def test_one_odd_video_does_not_end_the_evaluation(nets, data, monkeypatch):
    """A file whose frames change size, or that vanishes, is a status like any other."""
    read = accuracy.Reader.__iter__

    def odd(reader):
        if str(reader.source) == str(data.videos[0].path):
            raise PermissionError("gone")
        for n, (time, image) in enumerate(read(reader)):
            yield time, image[:0] if n == 3 and reader.source == data.videos[1].path else image

    monkeypatch.setattr(accuracy.Reader, "__iter__", odd)
    readings, rows = _evaluate(nets, data)
    assert readings[0].statuses["decode_error"] >= 1 and readings[0].statuses.total() == 4
    assert rows[0]["n_scored"] + readings[0].statuses["decode_error"] == 4


def test_videos_without_a_class_cannot_be_scored(nets, data):
    videos = (dataclasses.replace(data.videos[0], class_id=None),)
    with pytest.raises(ValueError, match="expected labelled videos"):
        _evaluate(nets, dataclasses.replace(data, videos=videos))


@pytest.mark.parametrize("fps", [0, -1, float("nan")])
def test_a_bad_rate_is_no_fault_of_the_videos(nets, data, fps):
    readings = accuracy.readings(*nets)
    with pytest.raises(ValueError, match="expected fps above 0"):
        accuracy.evaluate(readings, data, co3d.transform_for("x3d_mini"), fps, progress=False)


def test_rows_fit_the_table(nets, data, tmp_path):
    from co3d.report import results
    from co3d.report.origin import provenance

    _, rows = _evaluate(nets, data)
    results.write("accuracy", rows, tmp_path, provenance(notebook="a test", seed=0))
    assert len(results.read("accuracy", tmp_path)) == len(rows)
    assert checkpoints.shipped("cox3d_mini").keys() == checkpoints.shipped("x3d_mini").keys()

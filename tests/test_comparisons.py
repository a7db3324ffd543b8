"""Tables of comparisons, from results made by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from co3d.data.dataset import Video
from co3d.measure.accuracy import Result
from co3d.report import comparisons

CLASSES = 3
COMMON = {
    "weights": "made sha256:0",
    "dataset": "kinetics400",
    "split": "val",
    "limit": 0,
    "frames": 16,
    "window": None,
    "top5": 100.0,
    "ci_low": 0.0,
    "ci_high": 100.0,
    "map_official": None,
    "map_common": None,
    "views": 1,
    "crops": 1,
    "position": None,
}


def video(number, *classes):
    one = classes[0] if len(classes) == 1 else None
    return Video(f"v{number}", "" if one is None else "abc"[one], one, None, classes)


def result(model, mode, guesses, *, macs=1e6, numbers=None, **row):
    """A result whose first guesses are given as text; video n is of class n % 3."""
    numbers = range(len(guesses)) if numbers is None else numbers
    classes, guesses = [n % CLASSES for n in numbers], [int(guess) for guess in guesses]
    videos = tuple(video(n, one) for n, one in zip(numbers, classes, strict=True))
    scores = np.eye(CLASSES, dtype=np.float32)[guesses].reshape(len(videos), CLASSES)
    own = {"top1": 100 * np.equal(classes, guesses).mean() if videos else None}
    return made(model, mode, scores, videos, own | {"macs_per_prediction": macs} | row)


def several(model, mode, scores, classes, **row):
    """A result of several labels per video."""
    videos = tuple(video(n, *own) for n, own in enumerate(classes))
    own = {"top1": None, "map_official": 10.0, "map_common": 20.0, "macs_per_prediction": 1.0}
    return made(model, mode, np.array(scores, np.float32), videos, own | row)


def made(model, mode, scores, videos, row):
    own = {"model": model, "mode": mode, "protocol": "native" if mode == "clip" else "steady"}
    counts = {"n_expected": 8, "n_found": 8, "n_scored": len(videos)}
    return Result(None, COMMON | own | counts | row, scores, videos, None)


# Of the classes 0 1 2 0 1 2: the clip is right for 4, the stream for 5 of them, the control for 3.
CLIP = result("x3d_mini", "clip", "012111", macs=2e7)
STREAM = result("cox3d_mini", "stream", "012012"[:5] + "0", window=16, frames=32, macs=2e6)
CONTROL = result("x3d_mini", "clips", "012220", frames=32, macs=4e7)
ALL = [CLIP, STREAM, CONTROL]


def test_nothing_scored_is_a_blank():
    none = result("cox3d_mini", "stream", "", window=64, frames=80)
    (row,) = comparisons.differences([CLIP, none]).to_dict("records")
    assert math.isnan(row["stream - clip"]) and "control - clip" not in row
    shown = comparisons.stated(comparisons.differences([CLIP, none]))
    assert list(shown) == ["window", "stream - clip"] and shown["stream - clip"].tolist() == [""]
    shares = comparisons.by_class([CLIP, none], "abc")
    assert list(shares) == ["X3D-mini clip"]


def test_readings_at_a_glance():
    rows = pd.DataFrame([one.row for one in ALL])
    table = comparisons.by_reading(rows)
    assert list(table) == ["clip", "stream 16", "clips 16"] and list(table.index) == ["X3D-mini"]
    with pytest.raises(ValueError, match="duplicate"):
        comparisons.by_reading(rows.iloc[[0, 1, 1]])
    assert table.loc["X3D-mini"].tolist() == pytest.approx([400 / 6, 500 / 6, 50])
    early = result("cox3d_mini", "stream", "012012", protocol="first-valid", window=16, frames=24)
    none = result("coslow_mini", "stream", "", window=64, frames=70)
    table = comparisons.by_reading(pd.DataFrame([one.row for one in (*ALL, early, none)]))
    assert list(table) == ["clip", "steady 16", "first-valid 16", "steady 64", "clips 16"]
    assert math.isnan(table.loc["Slow-mini", "steady 64"])
    rows = pd.DataFrame([CLIP.row | {"map_common": 20.0}, STREAM.row | {"map_common": 30.0}])
    assert comparisons.by_reading(rows, "map_common").loc["X3D-mini"].tolist() == [20, 30]


def test_differences_over_the_same_videos():
    (row,) = comparisons.differences(ALL).to_dict("records")
    assert row["model"] == "CoX3D-mini" and row["window"] == 16
    assert row["stream - clip"] == pytest.approx(100 / 6)
    assert row["control - clip"] == pytest.approx(-100 / 6)
    assert row["stream - control"] == pytest.approx(200 / 6)
    low, high = row["stream - clip, low"], row["stream - clip, high"]
    assert 0 <= low < 100 / 6 < high == 50
    shown = comparisons.stated(comparisons.differences(ALL))
    assert list(shown) == ["window", *comparisons.GAINS]
    assert shown.loc["CoX3D-mini", "stream - clip"] == f"+16.7 ({low:+.1f} to +50.0)"


def test_differences_are_over_videos_that_both_scored():
    # The clip lacks videos 0 and 1, the stream videos 4 and 5; of 2 and 3 the clip has one right.
    clip = result("x3d_mini", "clip", "2112", numbers=[2, 3, 4, 5])
    stream = result("cox3d_mini", "stream", "1020", numbers=[0, 1, 2, 3], window=16)
    (row,) = comparisons.differences([clip, stream]).to_dict("records")
    assert row["stream - clip"] == pytest.approx(50)
    other = result("cox3d_mini", "stream", "00", numbers=[6, 7], window=16)
    (row,) = comparisons.differences([clip, other]).to_dict("records")
    assert math.isnan(row["stream - clip"])


def test_streams_stand_beside_their_own_clip_net_and_control():
    others = [
        result("x3d_mini", "clip", "111111", weights="another"),
        result("slow_mini", "clip", "111111"),
        result("x3d_mini", "clips", "111111", frames=64),
        result("x3d_mini", "clips", "111111", frames=32, protocol="first-valid"),
    ]
    (row,) = comparisons.trios([*others, *ALL]).to_dict("records")
    assert [row[column] for column in ("result", "result_clip", "result_control")] == [
        *(STREAM, CLIP, CONTROL),
    ]
    assert row["macs_per_prediction_control"] == 4e7
    (alone,) = comparisons.differences([*others, STREAM]).to_dict("records")
    assert alone.keys() == {"model", "window"}


def test_several_labels_are_compared_by_map():
    classes = [(0,), (1,), (0, 1), ()]
    # Class 0 is right at places 1 and 2, class 1 at 1 and 2, nothing is of class 2.
    good = [[9, 1, 0], [1, 9, 0], [8, 8, 0], [0, 0, 0]]
    # Of both classes one positive is first, the other last: (1 + 2/4) / 2.
    bad = [[0, 5, 0], [5, 0, 0], [9, 9, 0], [5, 5, 0]]
    clip = several("x3d_mini", "clip", bad, classes)
    stream = several("cox3d_mini", "stream", good, classes, window=16)
    (row,) = comparisons.differences([clip, stream]).to_dict("records")
    assert row["stream - clip"] == pytest.approx(25)
    assert row["stream - clip, low"] <= 25 <= row["stream - clip, high"]
    shares = comparisons.by_class([clip, stream], "abc")
    assert shares["X3D-mini clip"].tolist()[:2] == pytest.approx([75, 75])
    assert shares["CoX3D-mini 16"].tolist()[:2] == pytest.approx([100, 100])
    assert shares.loc["c"].isna().all()


def test_classes_by_hand():
    shares = comparisons.by_class(ALL, "abc")
    assert list(shares.index) == ["a", "b", "c"]
    # 0 1 2 0 1 2 against 0 1 2 1 1 1, and 0 1 2 0 1 0; the control is left out.
    assert shares["X3D-mini clip"].tolist() == [50, 100, 50]
    assert shares["CoX3D-mini 16"].tolist() == [100, 100, 50] and shares.shape[1] == 2
    few = comparisons.by_class([result("x3d_mini", "clip", "00")], "abc")["X3D-mini clip"]
    assert few.tolist()[:2] == [100, 0] and math.isnan(few["c"])


def test_columns_of_classes_are_told_apart():
    first = result("cox3d_mini", "stream", "012", window=16, protocol="first-valid")
    assert list(comparisons.by_class([*ALL, first], "abc")) == [
        "X3D-mini clip, native",
        "CoX3D-mini 16, steady",
        "CoX3D-mini 16, first-valid",
    ]
    seed = result("x3d_mini", "clip", "012", weights="co3d train --seed 1")
    names = list(comparisons.by_class([CLIP, seed], "abc"))
    assert names == ["X3D-mini clip", "X3D-mini clip, seed 1"]
    with pytest.raises(ValueError, match="one reading of each kind, given X3D-mini clip, X3D"):
        comparisons.by_class([CLIP, CLIP], "abc")


def test_measured_less_published_of_whole_splits_and_the_papers_protocol():
    published = pd.DataFrame(
        [("x3d_s", "clip", 13, None, 50.0), ("cox3d_s", "stream", None, 64, 60.0)],
        columns=["model", "mode", "frames", "window", "top1_percent"],
    )
    clip = result("x3d_s", "clip", "012111", protocol="paper", frames=13).row
    stream = result("cox3d_s", "stream", "012010", protocol="paper", window=64, frames=92).row
    others = [
        clip | {"dataset": "kinetics400-parts-1"},
        clip | {"limit": 100},
        clip | {"protocol": "native"},
        clip | {"top1": None},
        clip | {"frames": 16},
        stream | {"window": 13},
        clip | {"mode": "clips", "window": 64, "model": "cox3d_s"},
        clip | {"views": 10},
        clip | {"position": 0.25},
    ]
    table = comparisons.against_published([*others, clip, stream], published)
    assert table["model"].tolist() == ["X3D-S", "CoX3D-S"]
    assert table["number"].tolist() == [13, 64] and set(table["protocol"]) == {"paper"}
    assert table["points"].tolist() == pytest.approx([400 / 6 - 50, 500 / 6 - 60])
    assert comparisons.against_published(others, published).empty


def test_a_blank_published_number_leaves_a_blank_difference():
    published = pd.DataFrame(
        [("slow_8x8_r50", "clip", 8, None, None), ("coslow_8x8_r50", "stream", None, 8, 30.0)],
        columns=["model", "mode", "frames", "window", "map_percent"],
    )
    rows = [
        several("slow_8x8_r50", "clip", [[1, 0, 0]], [(0,)], frames=8).row,
        several("coslow_8x8_r50", "stream", [[1, 0, 0]], [(0,)], window=8).row,
    ]
    rows = [row | {"dataset": "charades"} for row in rows]
    table = comparisons.against_published(rows, published, "charades")
    assert pd.isna(table["points"][0]) and table["points"][1] == -10

"""The same videos give the same rows of accuracy, in whatever form their set is kept."""

import functools
import shutil
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from nets import clip_net
from trees_data import (
    CHARADES_FORMS,
    KINETICS_LABELS,
    make_charades,
    make_kinetics,
)

from co3d.data import video
from co3d.data.kinetics import KINETICS400_LABELS
from co3d.data.sets import open_set
from co3d.measure import accuracy, metrics, readings

COUNT, MISSING = 40, (5, 17)
FRAMES = 48  # of Charades; 30 are seen at 15 per second, a stream's first output needs 24


def frames(number, count):
    """A square that moves in its own way in its own colours."""
    rng = np.random.default_rng(number)
    clip = np.full((count, 48, 64, 3), rng.integers(0, 255, 3), np.uint8)
    down, right = rng.integers(-3, 4, 2)
    colour = rng.integers(0, 255, 3)
    for n in range(count):
        rows, columns = np.arange(16) + down * n, np.arange(16) + right * n
        clip[n][np.ix_(rows % 48, columns % 64)] = colour
    return clip


@functools.cache
def jpegs(number):
    """The frames of a video of Charades as JPEG files."""
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 64, 48, "yuvj420p"
    encoder.time_base = Fraction(1, 24)
    found = []
    for picture in frames(number, FRAMES):
        found += encoder.encode(av.VideoFrame.from_ndarray(picture, format="rgb24"))
    return [bytes(packet) for packet in [*found, *encoder.encode(None)]]


def write_pictures(folder, number):
    folder.mkdir()
    for k, data in enumerate(jpegs(number), start=1):
        (folder / f"{folder.name}-{k:06d}.jpg").write_bytes(data)


def write_video(path, number):
    """A container around the same JPEG files, 24 per second."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("mjpeg", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for n, data in enumerate(jpegs(number)):
            packet = av.Packet(data)
            packet.stream, packet.time_base = stream, Fraction(1, 24)
            packet.pts = packet.dts = n
            packet.duration, packet.is_keyframe = 1, True
            container.mux(packet)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Writer of the videos of Kinetics: a copy of a file that is encoded once."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(COUNT):
        video.write(folder / f"{number}.mp4", frames(number, 30), 15)
    return lambda path, number: shutil.copy(folder / f"{number}.mp4", path)


@pytest.fixture(scope="module")
def kinetics():
    """A net that guesses one of the ten classes that there are, so that some guesses are right."""
    net = clip_net(1, 400)
    with torch.no_grad():
        net.classifier.bias[[KINETICS400_LABELS.index(label) for label in KINETICS_LABELS]] += 1e3
    return readings.readings([("x3d_mini", net)], "kinetics400", ["native"])


@pytest.fixture
def charades(monkeypatch):
    few = functools.partial(metrics.bootstrap, repeats=20)
    monkeypatch.setattr(metrics, "bootstrap", few)
    net = clip_net(2, 157, scores="sigmoid")
    models = [("x3d_mini", net), ("cox3d_mini", net)]
    return readings.readings(models, "charades", ["native", "first-valid"])


def measured(some, name, root, folder):
    """Rows, predictions and statuses."""
    split = "validate" if name == "kinetics400" else "val"  # names that mean the default one
    data = open_set(name, split, root=root)
    results = accuracy.evaluate(some, data, folder=folder, progress=False)[0]
    return [(r.row, [v.id for v in r.videos], r.scores.tolist(), r.run.statuses) for r in results]


# That every form gives the same videos is tested in test_data_kinetics.
TREES = [
    {"annotation": "list-csv", "convention": "stripped"},
    {"annotation": "csv-older", "convention": "label", "spelling": "validation"},
    {"spelling": "validate", "annotation": "json", "convention": "label", "original": True},
]


@pytest.fixture
def flat(kinetics, clips, tmp_path, inline):
    root = make_kinetics(tmp_path / "flat", count=COUNT, missing=MISSING, clip=clips)
    return measured(kinetics, "kinetics400", root, tmp_path / "flat-runs")


def test_every_tree_of_kinetics_gives_the_same_rows(kinetics, clips, flat, tmp_path, inline):
    for row, _, _, statuses in flat:
        counts = [row[name] for name in ("n_expected", "n_found", "n_scored")]
        assert counts == [COUNT, COUNT - 2, COUNT - 2] and statuses["missing"] == 2
        assert 0 < row["top1"] < row["top5"] < 100 and row["limit"] == 0
    for n, tree in enumerate(TREES):
        root = make_kinetics(tmp_path / f"{n}", **tree, count=COUNT, missing=MISSING, clip=clips)
        assert measured(kinetics, "kinetics400", root, tmp_path / f"{n}-runs") == flat, tree


def test_every_form_of_charades_gives_the_same_rows(charades, tmp_path, inline):
    found = {}
    for form in CHARADES_FORMS:
        writers = {"clip": write_video, "pictures": write_pictures}
        root = make_charades(tmp_path / form, form, frames=FRAMES, missing=(4,), **writers)
        found[form] = measured(charades, "charades", root, tmp_path / f"{form}-runs")
    expected = found["videos"]
    for row, _, _, statuses in expected:
        assert [row["n_expected"], row["n_scored"], statuses["missing"]] == [6, 5, 1]
        assert 0 < row["map_official"] < 100 and row["map_official"] != row["map_common"]
        assert 0 < row["ci_low"] < row["map_common"] < row["ci_high"] < 100
    assert all(one == expected for one in found.values()), found.keys()


def test_several_labels_do_not_depend_on_the_order_of_videos(charades, tmp_path, inline):
    root = make_charades(tmp_path / "set", "frames", pictures=write_pictures)
    table = root / "Charades_v1_test.csv"
    before = measured(charades, "charades", root, tmp_path / "runs")
    head, *lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join([head, *reversed(lines)]))
    after = measured(charades, "charades", root, tmp_path / "runs")
    assert [one[0] for one in after] == [one[0] for one in before]
    assert [one[1][::-1] for one in after] == [one[1] for one in before]

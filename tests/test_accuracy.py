"""Accuracy: what each reading reads, denominators with broken videos, runs that stop and go on."""

import dataclasses
import math
import multiprocessing
import os
import random
import shutil
import signal
import time
from contextlib import redirect_stdout

import pytest
import torch
from nets import clip_net

import co3d
from co3d import __main__ as command_line
from co3d.data import synthetic
from co3d.measure import accuracy, readings

N = 6


@pytest.fixture(scope="module")
def regular():
    return clip_net()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CACHE_PATH", str(tmp_path_factory.mktemp("cache")))
        return synthetic.dataset("test", limit=N, progress=False)


@pytest.fixture
def data(made, tmp_path):
    """Own copies, that a test may break."""
    videos = []
    for video in made.videos:
        path = shutil.copy(video.path, tmp_path / video.path.name)
        videos.append(dataclasses.replace(video, path=path))
    return dataclasses.replace(made, videos=tuple(videos))


def chosen(regular, **options):
    models = [("x3d_mini", regular), ("cox3d_mini", regular)]
    options = {"windows": (16, 40), "controls": True, **options}
    return readings.readings(models, "synthetic-kinetics", ("native", "steady"), **options)


def evaluate(some, data, folder, **options):
    return accuracy.evaluate(some, data, folder=folder, progress=False, **options)[0]


@torch.no_grad()
def test_readings_read_what_they_say(regular, data, tmp_path, inline):
    results = evaluate(chosen(regular), data, tmp_path)
    rows = {(r.row["mode"], r.row["window"], r.row["views"]): r for r in results}
    assert list(rows) == [
        *(("clip", None, 1), ("stream", 16, 1), ("clips", None, 2)),
        *(("stream", 40, 1), ("clips", None, 4)),
    ]
    assert [r.row["frames"] for r in results] == [16, 32, 32, 56, 56]
    transform = co3d.transform_for("x3d_mini")
    for n, video in enumerate(data.videos):
        clip = transform(synthetic.decoded(video))[None]
        expected = {("clip", None, 1): regular(clip[:, :, 56:72])[0]}
        for window, views in ((16, 2), (40, 4)):
            net = co3d.continual(regular, gate="frame", window=window)
            field = net.receptive_field
            expected["stream", window, 1] = net(clip[:, :, :field], pad=False)[0]
            starts = [round(i * (field - 16) / (views - 1)) for i in range(views)]
            clips = torch.cat([regular(clip[:, :, at : at + 16]) for at in starts])
            expected["clips", None, views] = clips.softmax(1).mean(0)
        for key, scores in expected.items():
            found = torch.from_numpy(rows[key].scores[n])
            assert torch.allclose(found, scores, rtol=0, atol=1e-4 * scores.abs().max())
    macs = {key: result.row["macs_per_prediction"] for key, result in rows.items()}
    assert macs["clips", None, 4] == 4 * macs["clip", None, 1]
    assert macs["stream", 16, 1] == macs["stream", 40, 1] < macs["clip", None, 1] / 10


def test_a_stream_that_sees_less_than_a_clip_has_no_control(regular):
    streams = chosen(regular, windows=(1,))[1:]
    assert [(r.plan.mode, r.plan.frames) for r in streams] == [("stream", 17), ("clips", 16)]
    longer = clip_net()
    longer.spec = dataclasses.replace(regular.spec, frames=18)
    assert [r.plan.mode for r in chosen(longer, windows=(1,))] == ["clip", "stream"]


def test_short_videos_and_nan_leave_the_denominator(data, tmp_path, inline):
    net = clip_net(3)
    with torch.no_grad():
        net.classifier.bias[3] = math.nan
    wide = readings.readings([("cox3d_mini", net)], data.name, ["steady"], (200,))
    broken = readings.readings([("x3d_mini", net)], data.name, ["native"])
    results = evaluate([*wide, *broken], data, tmp_path)
    for result, status in zip(results, ("too_short", "nan"), strict=True):
        assert result.run.statuses == {status: N}
        assert result.row["n_scored"] == 0
        assert result.row["top1"] is None and result.row["ci_low"] is None


def test_any_order_of_the_videos_gives_the_same_rows(regular, data, tmp_path, inline):
    turned, some = dataclasses.replace(data, videos=data.videos[::-1]), chosen(regular)
    results = evaluate(some, data, tmp_path / "as"), evaluate(some, turned, tmp_path / "turned")
    assert [result.row for result in results[0]] == [result.row for result in results[1]]


def test_predictions_are_stored_once_and_never_taken_for_others(regular, data, tmp_path, inline):
    some = readings.readings([("x3d_mini", regular)], data.name, ["native"])
    (first,) = evaluate(some, data, tmp_path)
    before = first.run.file.read_bytes(), first.run.file.stat().st_mtime_ns
    (again,) = evaluate(some, data, tmp_path)
    assert (again.run.file.read_bytes(), again.run.file.stat().st_mtime_ns) == before
    assert again.row == first.row and (again.scores == first.scores).all()
    other = readings.readings([("x3d_mini", clip_net(1))], data.name, ["native"])
    moved = readings.readings([("x3d_mini", regular)], data.name, ["native"], position=0)
    part = dataclasses.replace(data, videos=data.videos[:3])
    others = [evaluate(other, data, tmp_path), evaluate(moved, data, tmp_path)]
    others.append(evaluate(some, part, tmp_path, limit=3))
    assert len({result.run.file for (result,) in [[first], *others]}) == 4


def run_sixty(folder):
    """co3d evaluate over 60 videos, in a process of its own; runs and output go to the folder."""
    torch.set_num_threads(1)
    os.environ["LOGS_PATH"] = str(folder)
    command = ["evaluate", "synthetic-kinetics", "--limit", "60", "--models", "x3d_mini,cox3d_mini"]
    with (folder / "shown").open("w") as shown, redirect_stdout(shown):
        command_line.main([*command, "--window", "16", "--window", "32"])


@pytest.mark.slow
def test_ten_kills_end_in_the_bytes_of_one_run(tmp_path):
    """kill -9 at random moments of a run over 60 videos, until it comes to its end."""
    context = multiprocessing.get_context("forkserver")  # imports once for all runs
    context.set_forkserver_preload(["co3d.__main__", "co3d.measure.accuracy", "pandas", __name__])

    def start(name):
        (tmp_path / name).mkdir(exist_ok=True)
        process = context.Process(target=run_sixty, args=(tmp_path / name,))
        process.start()
        return process

    def files(name):
        folder = tmp_path / name / "predictions" / "synthetic-kinetics-test"
        return {path.name: path for path in folder.glob("[!.]*")} if folder.is_dir() else {}

    def lines(name):
        return sum(path.read_bytes().count(b"\n") for path in files(name).values())

    def finish(process, name):
        process.join()
        assert process.exitcode == 0
        table, mark, _ = (tmp_path / name / "shown").read_text().partition("a part of")
        assert table.count("\n") == 4 and mark
        return table  # times come later

    shown = finish(start("whole"), "whole")
    random.seed(0)
    kills = 0
    for _ in range(10):
        process, target = start("cut"), lines("cut") + random.randint(0, 15)
        while process.is_alive() and lines("cut") < target:
            time.sleep(0.002)
        time.sleep(random.random() / 50)
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
    assert kills == 10 and any(name.endswith(".part") for name in files("cut"))
    assert finish(start("cut"), "cut") == shown
    expected, found = files("whole"), files("cut")
    assert found.keys() == expected.keys() and len(found) == 3
    for name, path in expected.items():
        assert path.suffix == ".jsonl" and found[name].read_bytes() == path.read_bytes()

"""Every command answers, prints what it promises, and ends with the right exit code."""

import dataclasses
import os
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

import co3d
from co3d import __main__ as command_line
from co3d.data import video
from co3d.data.synthetic import SYNTHETIC_KINETICS_LABELS
from co3d.measure import live
from co3d.report import notebooks, schema
from co3d.zoo import checkpoints, downloads, specs
from co3d.zoo.specs import Checkpoint


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "x3d_mini.safetensors"
    origin = {"training_data": "synthetic-kinetics", "source": "random", "licence": "none"}
    checkpoints.save(co3d.create("x3d_mini"), path, **origin)
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """3 s at 15 frames per second."""
    path = tmp_path_factory.mktemp("video") / "noise.mp4"
    frames = np.random.default_rng(0).integers(0, 255, (45, 48, 64, 3), np.uint8)
    video.write(path, frames, 15)
    return path


@pytest.mark.parametrize("command", ["", *sorted(command_line.cli.commands)])
def test_every_command_has_help(run, command):
    code, shown, _ = run(*command.split(), "--help")
    assert code == 0 and shown.startswith("Usage: co3d") and len(shown.splitlines()) > 3
    assert "..." not in shown.split("Commands:")[-1] or command  # whole summaries


@pytest.fixture
def places(monkeypatch, tmp_path):
    for name, folder in (("CACHE", "cache"), ("LOGS", "runs"), ("DATASETS", "datasets")):
        monkeypatch.setenv(f"{name}_PATH", str(tmp_path / folder))
    return tmp_path


def test_alone_it_says_what_is_found(run, places):
    code, shown, _ = run()
    names = [line.split()[0] for line in shown.splitlines() if line[0] != " "]
    assert code == 0
    assert names == ["co3d", "device", "engine", "runs", "cache", "datasets", "data", "weights",
                     "notebooks", "next"]  # fmt: skip
    assert f"{places / 'cache'}  (not there yet)" in shown
    assert "synthetic-kinetics: 0 of 2448" in shown and "synthetic-charades: 0 of 720" in shown
    assert "kinetics400: not found: co3d download kinetics400" in shown
    assert "published: 0 of 10 fetched (co3d download weights)" in shown
    assert "A1 run as they are; no real set" in shown
    assert not list(places.iterdir())

    for path in ("kinetics400/annotations/val.csv", "kinetics400/val/a.mp4",
                 "kinetics400/annotations/train.csv", "charades/Charades_v1_test.csv"):  # fmt: skip
        (places / "datasets" / path).parent.mkdir(parents=True, exist_ok=True)
        (places / "datasets" / path).touch()
    fetched = downloads.place(*downloads.published(["x3d_s"])[0])
    fetched.parent.mkdir(parents=True)
    fetched.touch()
    shown = run()[1]
    assert "kinetics400: val (co3d verify kinetics400 counts videos)" in shown
    assert "charades: not found" in shown  # no videos, and no frames
    assert "published: 1 of 10 fetched (x3d_s kinetics400)" in shown
    assert "co3d reproduce --profile full runs them on real sets" in shown


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["stream"], "Missing argument '[MODEL] SOURCE'"),
        (["stream", "cox3d_mini", "CLIP", "more"], "expected one MODEL and one SOURCE"),
        (["stream", "none.onnx", "CLIP"], "expected no --weights with none.onnx"),
        (["stream", "CLIP", "--engine", "fast"], "'fast' is not one of 'eager', 'native'"),
        (["stream", "CLIP", "--threads", "0"], "0 is not in the range"),
        (["stream", "CLIP", "--engine", "torch", "--features", "a.npz"], "expected engine eager"),
        (["stream", "there_is_none.mp4"], "there_is_none.mp4: no such file"),
        (["stream", os.curdir], "a folder, not a video file"),
        (["stream", __file__], "no video"),
        (["stream", "CLIP", "--model", "cox3d_z"], "expected a model such as"),
        (["stream", "CLIP", "--model", "x3d_mini"], "cox3d_mini runs the same weights"),
        (["stream", "CLIP", "--weights", "none.safetensors"], "no weights file none.safetensors"),
        (["stream", "CLIP", "--fps", "-1"], "fps must be above 0"),
        (["stream", "CLIP", "--device", "nope"], "device 'nope' cannot be used"),
        (["stream", "CLIP", "--csv", "CLIP"], "would be replaced"),
        (["evaluate", "synthetic-kinetics", "--split", "nope"], "given 'nope'"),
        (["evaluate", "synthetic-kinetics", "--limit", "-1"], "-1 is not in the range"),
        (["evaluate", "synthetic-kinetics", "--csv", "no/such/folder.csv"], "existing folder"),
        (["train", "x3d_mini", "--epochs", "0"], "0 is not in the range"),
        (["train", "x3d_mini", "--recipe", "none"], "'none' is not one of"),
        (["train", "x3d_mini", "--freeze"], "expected weights to begin from where the body is"),
        (["train", "x3d_mini", "nowhere"], "or a folder of videos, given nowhere"),
        (["train", "cox3d_mini"], "expected a regular net, given cox3d_mini: train x3d_mini"),
        (["reproduce", "-p", "seed", "[1"], "expected -p NAME VALUE"),
        (["stream", "CLIP", "--window", "0"], "window of 1 or more"),
        (["stream", "CLIP", "--csv", "no/such/folder.csv"], "existing folder"),
        (["stream", "CLIP", "--limit-seconds", "1"], "first prediction of cox3d_mini comes with"),
        (["reproduce", "--profile", "huge"], "no profile is called 'huge'"),
        (["reproduce", "--only", "77"], "no notebook begins with '77'"),
        (["stream", "CLIP", "--csv", "a.npz", "--features", "a.npz"], "a.npz would be replaced"),
        (["stream", "CLIP", "--features", "a.npy"], "expected a file that ends in .npz"),
        (["stream", "CLIP", "--save", "a.gif"], "expected a name that ends in .mp4"),
        (["stream", "webcam:99"], "webcam:99: there is no camera here"),
        (["bench", "cox3d-m"], "expected a model such as cox3d_m"),
        (["bench", "coi3d_mini", "--window", "9"], "coi3d_mini: "),
        (["bench", "--repeats", "0"], "0 is not in the range"),
        (["bench", "--device", "meta"], "device 'meta' cannot be used"),
        (["bench", "--csv", "no/such/folder.csv"], "existing folder"),
        (["bench", "--implementation", "fast"], "expected some of co3d eager, "),
        (
            ["bench", "--precision", "int8"],
            "expected some of float32, bfloat16, float16, given 'int8'",
        ),
        (["models", "cox3d-m"], "expected a model such as cox3d_m"),
        (["models", "coi3d_mini", "--window", "9"], "coi3d_mini: "),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run, arguments, sentence, clip, weights):
    if arguments[0] == "stream" and len(arguments) > 1 and "--weights" not in arguments:
        arguments = [*arguments, "--weights", weights]
    code, shown, error = run(*(clip if a == "CLIP" else a for a in arguments))
    told = [line for line in error.splitlines() if line.startswith("co3d: ")]
    assert code == 2 and len(told) == 1 and sentence in told[0]
    assert "Traceback" not in error


def test_a_stream_prints_each_second_and_writes_what_is_asked(run, clip, weights, tmp_path):
    """The predictions are those of the last clip; the classifier on the features gives them."""
    table, archive, film = (tmp_path / f"out.{kind}" for kind in ("csv", "npz", "mp4"))
    options = ("--weights", weights, "--csv", table, "--features", archive, "--save", film)
    code, shown, error = run("stream", clip, *options)
    model, transform = co3d.load("cox3d_mini", weights)
    assert code == 0
    assert f"warm-up {model.warmup} frames ({model.warmup / 15:.1f} s)" in shown
    assert "synthetic motions" in error and "--model cox3d_m" in error
    lines = [line.split() for line in shown.splitlines() if line[:5].strip().isdigit()]
    assert [line[0] for line in lines] == ["0", "1", "2"]
    assert "(start-up)" in lines[1] and "dropped" not in shown
    assert re.search(r"latency per frame: decode [\d.]+ ms, step [\d.]+ ms", shown)

    rows = pd.read_csv(table)
    assert rows["frame"].tolist() == list(range(model.warmup + 1, 46))
    with video.Reader(clip) as reader:
        frames = np.stack([rgb for _, rgb in reader])
    with torch.no_grad():
        by_clip = model(transform(frames)[None][:, :, -model.receptive_field :], pad=False)
    best, last = by_clip.softmax(1)[0].topk(5), rows.iloc[-1]
    labels = [SYNTHETIC_KINETICS_LABELS[n] for n in best.indices]
    probabilities = [f"probability{n}" for n in range(1, 6)]
    assert last["time_s"] == pytest.approx(44 / 15, abs=1e-4)
    assert [last[f"label{n}"] for n in range(1, 6)] == labels
    assert last[probabilities].tolist() == pytest.approx(best.values.tolist(), rel=1e-4)

    with np.load(archive) as stored:  # without pickle
        stored = dict(stored)
    facts = [str(stored[name]) for name in ("model", "fps", "weights", "weights_data")]
    assert facts == ["cox3d_mini", "15", "random", "synthetic-kinetics"]
    assert str(stored["weights_sha256"]) == model.weights.sha256
    assert stored["features"].shape == (len(rows), model.classifier.in_features)
    assert stored["frame"].tolist() == rows["frame"].tolist()
    with torch.no_grad():
        scores = co3d.scores(model, model.classifier(torch.from_numpy(stored["features"])))
    top = scores.topk(5).values.numpy()
    np.testing.assert_allclose(rows[probabilities], top, rtol=1e-5)

    with video.Reader(film) as reader:
        right = [rgb[:, 480:].astype(int) for _, rgb in reader]
    assert len(right) == 45 and reader.fps == 15
    assert abs(right[40] - right[0]).mean() > 1  # bars, once there are predictions


@pytest.mark.parametrize(("last", "count"), [(40, 16), (2, 0)])  # the first comes with frame 24
def test_an_interrupted_stream_leaves_whole_files(
    run, clip, weights, tmp_path, monkeypatch, last, count
):
    whole, steps = live.Watch._step, iter(range(1, last))

    def step(watch, *arguments):
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return whole(watch, *arguments)

    monkeypatch.setattr(live.Watch, "_step", step)
    archive, table = tmp_path / "out.npz", tmp_path / "out.csv"
    options = ("--weights", weights, "--features", archive, "--csv", table)
    code, shown, error = run("stream", clip, *options)
    assert code == 130 and error.endswith("co3d: interrupted\n")
    assert f"{last - 1} frame" in shown
    assert {path.name for path in tmp_path.iterdir()} == {"out.npz", "out.csv"}
    assert np.load(archive)["features"].shape == (count, 128)
    assert len(pd.read_csv(table)) == count


def test_a_stream_that_fails_leaves_no_file(run, clip, weights, tmp_path):
    places = [tmp_path / name for name in ("out.csv", "out.npz", "out.mp4")]
    options = zip(("--csv", "--features", "--save"), places, strict=True)
    options = [text for pair in options for text in pair]
    arguments = ("stream", clip, "--weights", weights, "--limit-seconds", "1")
    assert run(*arguments, *options)[0] == 2
    assert not list(tmp_path.iterdir())


def test_weights_of_charades_give_scores_of_every_class_alone(run, clip, tmp_path, monkeypatch):
    path, table = tmp_path / "charades.safetensors", tmp_path / "out.csv"
    known = Checkpoint("charades", "https://example.org/c", 157, "bgr", "sigmoid")
    for name in ("slow_mini", "coslow_mini"):
        record = dataclasses.replace(co3d.spec(name), checkpoints=(known,))
        monkeypatch.setitem(specs.SPECS, name, record)
    monkeypatch.setattr(downloads, "fetch", lambda *_: path)
    torch.manual_seed(0)
    origin = {"training_data": "charades", "source": "random", "licence": "none"}
    checkpoints.save(co3d.create("slow_mini", num_classes=157), path, **origin)
    code, shown, error = run(
        "stream", clip, "--model", "coslow_mini", "--weights", "charades", "--csv", table
    )
    assert code == 0 and "synthetic" not in error
    rows = pd.read_csv(table)
    assert rows["label1"].str.fullmatch(r"c\d{3}").all()
    assert (rows["probability5"] > 0.2).all()  # random logits are near 0


def test_the_names_of_charades_come_with_the_set(places):
    model = co3d.create("coslow_mini", num_classes=157)
    model.weights = checkpoints.Weights("a test", "", "charades", "")
    codes = [f"c{n:03d}" for n in range(157)]
    assert list(live.class_names(model)) == codes
    (places / "datasets" / "charades").mkdir(parents=True)
    assert list(live.class_names(model)) == codes
    lines = "".join(f"{code} Doing {code}\n" for code in codes)
    (places / "datasets" / "charades" / "Charades_v1_classes.txt").write_text(lines)
    assert list(live.class_names(model)) == [f"Doing {code}" for code in codes]


def test_another_rate_is_warned_of_and_shifts_the_warm_up(run, clip, weights):
    _, shown, error = run("stream", clip, "--weights", weights, "--fps", "30")
    assert "was trained at 15 frames per second; fed at 30" in error
    assert shown.startswith("cox3d_mini: warm-up 23 frames (0.8 s)")


def test_a_reader_that_leaves_is_no_error():
    command = [sys.executable, "-m", "co3d"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_a_failed_notebook_is_exit_code_1(run, monkeypatch):
    def fail(*_):
        raise notebooks.NotebookError("the kernel of 05 died")

    monkeypatch.setattr(notebooks, "reproduce", fail)
    assert run("reproduce")[::2] == (1, "co3d: the kernel of 05 died\n")


def test_parameters_are_passed_on_as_values(run, monkeypatch):
    passed = []
    monkeypatch.setattr(notebooks, "reproduce", lambda *given: passed.extend(given))
    run("reproduce", "--only", "05", "--only", "A1", "-p", "limit", "10", "-p", "retrain", "true")
    assert passed == ["embedded", ("05", "A1"), {"limit": 10, "retrain": True}]


def test_quick_checks_and_draws(run, monkeypatch, tmp_path, weights):
    monkeypatch.setenv("CACHE_PATH", str(tmp_path / "cache"))
    monkeypatch.setenv("LOGS_PATH", str(tmp_path / "runs"))
    whole = co3d.load
    monkeypatch.setattr(co3d, "load", lambda name, _: whole(name, weights))
    code, shown, _ = run("quick")
    assert code == 0 and "match: True" in shown
    assert len(list((tmp_path / "runs" / "quick" / "figures").iterdir())) == 2


def test_models_gives_costs_and_stream_constants(run):
    names = ("cox3d_s", "coi3d_8x8_r50", "x3d_l")
    code, shown, _ = run("models", "--window", "64", *names)
    head, _, *lines = shown.splitlines()
    assert code == 0 and max(map(len, (head, *lines))) <= 160
    cells = {line.split()[0]: " ".join(line.split()[1:]) for line in lines}
    assert list(cells) == list(names)
    # the paper: 0.17 G, receptive field 120, padding 28, first output at frame 92, at 5 per second
    assert cells["cox3d_s"] == (
        "3.794 M 152.7 M 152.7 M 64 120 28 91 92 (18.4 s) 1 0.17 G 166.6 M yes 160.3 M"
    )
    assert cells["coi3d_8x8_r50"] == (
        "28.04 M 5.613 G 3.551 G 64 98 17 80 81 (21.6 s) 2 5.68 G 5.678 G yes 5.647 G"
    )
    assert cells["x3d_l"] == "6.153 M 18.37 G 16 19.17 G 19.17 G yes 19.17 G"


def test_bench_prints_and_writes_a_row_per_form_and_compares_with_a_peer(run, places):
    table = places / "out.csv"
    options = ("--repeats", "1", "--implementation", "co3d eager", "--precision", "float32")
    names = ("coslow_mini", "cor2plus1d_mini", "--threads", "1")
    code, shown, error = run("bench", *names, "--peer", *options, "--csv", table)
    assert code == 0 and error == ""
    assert ", threads 1, GEMM float32 " in shown
    assert "left out: continual-inference, float32 (cor2plus1d_mini): expected CoX3D" in shown
    times, saved = shown.split("time of these in float32 / ours")[1].split("saved per prediction")
    saved, state = saved.split("state / that of continual-inference")
    assert re.search(r"coslow_mini +co3d eager +float32 +1 +\d +\d+\.\d\d +\d+\.\d\d\n", times)
    assert re.search(r"cor2plus1d_mini +co3d eager +float32 .* co3d eager ", saved)
    assert re.search(r"coslow_mini +co3d eager +float32 +\d\.\d\d +0\.\d\d\n", state)
    rows = pd.read_csv(table)
    assert tuple(rows) == schema.TABLES["benchmark"].columns
    assert set(rows["threads"]) == {1} and set(rows["precision"]) == {"float32"}
    (written,) = (places / "runs" / "interactive" / "results").iterdir()
    assert f"rows: {written}" in shown and len(pd.read_csv(written)) == len(rows)

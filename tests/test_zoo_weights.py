"""Weights saved, converted and loaded: what a file says beside its tensors goes with them."""

import dataclasses
import hashlib

import pytest
import torch
import weight_files
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import co3d
from co3d.__main__ import main
from co3d.zoo import checkpoints, downloads, specs
from co3d.zoo.checkpoints import Weights, load_into

ORIGIN = {"training_data": "made", "source": "a test", "licence": "none"}


def saved(path, name="x3d_mini", num_classes=None, **options):
    model = co3d.create(name, num_classes=num_classes)
    checkpoints.save(model, path, **{**ORIGIN, **options})
    return model


def metadata(path):
    with safe_open(path, framework="pt") as file:
        return file.metadata()


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "w.safetensors"


@pytest.fixture
def convert(capsys):
    """Runs co3d convert; returns exit code, stdout and stderr."""

    def run(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main(["convert", *map(str, arguments)])
        return stopped.value.code, *capsys.readouterr()

    return run


@torch.no_grad()
def test_saved_weights_serve_both_twins(path):
    model = saved(path)
    first = path.read_bytes()
    checkpoints.save(model, path, **ORIGIN)
    assert path.read_bytes() == first and list(path.parent.iterdir()) == [path]
    clip = torch.randn(1, 3, 16, 48, 48)
    regular, transform = co3d.load("x3d_mini", path)
    torch.testing.assert_close(regular(clip), model(clip))
    assert transform == co3d.Transform(48, (0.45,) * 3, (0.225,) * 3)
    assert regular.weights == Weights("a test", digest(path), "made", "none", classes=12)
    stream, _ = co3d.load("cox3d_mini", str(path), window=32)
    assert torch.equal(stream.body.conv5.conv.weight, model.body.conv5.conv.weight)


def test_saving_that_fails_leaves_what_was_there(path):
    saved(path)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        saved(path, licence=3)
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_scores_channel_order_and_names_travel_with_the_file(path, convert):
    labels = ("opening a door", "naïve, \x1b[31m\nred")
    saved(path, num_classes=2, scores="sigmoid", channel_order="bgr", labels=labels)
    model, transform = co3d.load("cox3d_mini", path, num_classes=2)
    weights = model.weights
    assert (weights.scores, weights.channel_order) == ("sigmoid", "bgr")
    assert transform.channel_order == "bgr"
    assert weights.labels == ("opening a door", "naïve, [31mred")  # nothing that a terminal obeys
    fresh, transform = co3d.load("x3d_mini", path, num_classes=5, new_head=True)
    assert (fresh.weights.scores, fresh.weights.labels) == ("softmax", ())
    assert transform.channel_order == "bgr"
    out = path.with_name("c.safetensors")
    assert convert(path, out, "--model", "x3d_mini", "--num-classes", 2, "--half")[0] == 0
    copied = load_into(co3d.create("x3d_mini", num_classes=2), out)
    for field in ("scores", "channel_order", "labels", "source", "training_data", "licence"):
        assert getattr(copied, field) == getattr(weights, field)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"scores": "tanh"}, "expected scores softmax or sigmoid and .*, given tanh and rgb"),
        ({"channel_order": "grb"}, "channel_order rgb or bgr in w.safetensors, given softmax and"),
        ({"labels": '["a"]'}, "expected names for 2 classes in w.safetensors"),
        ({"labels": '["a", 1]'}, "expected names for 2 classes"),
        ({"labels": "junk"}, "expected names for 2 classes"),
        ({"model": "x3d_xs"}, "expected weights of x3d_mini, given those of x3d_xs in w.safe"),
        ({"precision": "bfloat16"}, "numbers of other types than expected"),
    ],
)
def test_metadata_that_cannot_be_meant_is_refused(path, more, words):
    saved(path, num_classes=2, half=True)
    save_file(load_file(path), path, metadata={**metadata(path), **more})
    with pytest.raises(ValueError, match=words):
        load_into(co3d.create("x3d_mini", num_classes=2), path)


def test_rounded_weights_are_read_as_float32(path):
    model = saved(path, half=True)
    for x in load_file(path).values():
        assert (x.dtype == torch.float16) == (x.ndim > 1)
    read, _ = co3d.load("x3d_mini", path)
    for key, value in model.state_dict().items():
        rounded = value.half().float() if value.ndim > 1 else value
        assert torch.equal(read.state_dict()[key], rounded)


def test_keys_of_ours_are_strict_too(path):
    saved(path)
    tensors = load_file(path)
    tensors["classifier.other"] = tensors.pop("classifier.bias")
    save_file(tensors, path)
    words = "missing classifier.bias; unexpected classifier.other"
    with pytest.raises(ValueError, match=words):
        co3d.load("x3d_mini", path)


def test_a_file_without_a_head_takes_a_new_one(path):
    saved(path)
    tensors = {k: v for k, v in load_file(path).items() if not k.startswith("classifier.")}
    save_file(tensors, path)
    model, _ = co3d.load("cox3d_mini", path, num_classes=3, new_head=True)
    assert torch.equal(model.body.conv5.conv.weight, tensors["body.conv5.conv.weight"])
    assert model.weights.notes == ("new head of 3 classes in place of the file's none",)
    assert model.weights.classes is None
    with pytest.raises(ValueError, match="missing classifier.weight, classifier.bias"):
        co3d.load("cox3d_mini", path)


def test_names_that_nobody_knows_and_folders(tmp_path):
    with pytest.raises(ValueError, match="synthetic-kinetics:1, synthetic-kinetics:2"):
        co3d.load("x3d_mini", "synthetic-kinetics:9")
    with pytest.raises(ValueError, match="given the folder '"):
        co3d.load("x3d_mini", tmp_path)
    with pytest.raises(FileNotFoundError, match="no weights file"):
        co3d.load("x3d_mini", tmp_path / "none.safetensors")


@pytest.mark.parametrize("name", ["x3d_mini", "slow_mini", "i3d_mini", "slowfast_mini",
                                  "r2plus1d_mini"])  # fmt: skip
def test_shipped_weights_by_data_set_and_seed(name):
    seeds = range(3 if name in ("x3d_mini", "slow_mini") else 1)
    data = ("synthetic-kinetics", "synthetic-charades")
    expected = [f"{kind}:{seed}".removesuffix(":0") for kind in data for seed in seeds]
    # The first is what commands take unless told otherwise
    assert list(checkpoints.shipped(name)) == list(checkpoints.shipped(f"co{name}")) == expected
    for weights in expected:
        kind, _, seed = weights.partition(":")
        for twin in (name, f"co{name}"):
            origin = co3d.load(twin, weights)[0].weights
            assert (origin.training_data, origin.licence) == (kind, "Apache-2.0")
            assert (origin.dialect, origin.notes) == ("ours", ())
            assert origin.scores == ("sigmoid" if "charades" in kind else "softmax")
            assert origin.source.endswith(f"--seed {seed or 0}")
    assert sum(path.stat().st_size for path in checkpoints.SHIPPED.iterdir()) < 3_000_000


def test_convert_writes_ours_with_its_origin(tmp_path, convert):
    tensors = weight_files.values(weight_files.published("ptv_x3d_xs").shapes)
    path = weight_files.write(tmp_path / "ptv.pyth", tensors, "pytorchvideo")
    out = tmp_path / "new" / "ours.safetensors"
    options = ("--model", "cox3d_xs", "--training-data", "kinetics400", "--licence", "Apache-2.0")
    code, shown, error = convert(path, out, *options)
    assert code == 0, error
    facts = dict(line.split(maxsplit=1) for line in shown.splitlines() if line[0] != "s")
    assert facts["model"] == "x3d_xs and cox3d_xs" and facts["dialect"] == "pytorchvideo"
    assert facts["keys"] == "568, 400 classes" and "identity" in facts["note"]
    assert digest(path) in shown and digest(out) in shown
    record = metadata(out)
    note = "body.res2.0.shortcut.bn is not in the file: filled with the identity"
    assert record == {
        "model": "x3d_xs",
        "source": "ptv.pyth",
        "source_sha256": digest(path),
        "dialect": "pytorchvideo",
        "training_data": "kinetics400",
        "licence": "Apache-2.0",
        "notes": note,
        "scores": "softmax",
        "channel_order": "rgb",
    }
    (theirs, _), (ours, _) = co3d.load("x3d_xs", path), co3d.load("cox3d_xs", out)
    assert all(map(torch.equal, theirs.state_dict().values(), ours.state_dict().values()))
    origin = ("ptv.pyth", digest(out), "kinetics400", "Apache-2.0", "pytorchvideo")
    assert ours.weights == Weights(*origin, (note,), digest(path), 400)
    again = tmp_path / "again.safetensors"
    assert convert(out, again, "--model", "x3d_xs")[0] == 0
    assert metadata(again) == record, "the origin survives another conversion"


def test_convert_refuses(path, convert):
    saved(path)
    link, out = path.with_name("link.safetensors"), path.with_name("out.safetensors")
    link.hardlink_to(path)
    before = path.read_bytes()
    for arguments, words in {
        (path, path): "expected another file for the output, given the input",
        (path, link): "expected another file for the output",
        (path, path.with_suffix(".pth")): "expected an output file that ends in .safetensors",
        (path.with_name("none"), out): "there is no weights file",
        (path, out, "--num-classes", 3): "expected 3 classes, given 12",
    }.items():
        code, _, error = convert(*arguments, "--model", "x3d_mini")
        assert code == 2 and error.count("\n") == 1 and words in error
    assert path.read_bytes() == before and {*path.parent.iterdir()} == {path, link}


@pytest.fixture
def charades_mini(tmp_path, monkeypatch):
    """Charades weights as if published for slow_mini; their file, in the cache."""
    monkeypatch.setenv("CACHE_PATH", str(tmp_path / "cache"))
    known = specs.Checkpoint("charades", "https://example.org/c.safetensors", 157, "bgr", "sigmoid")
    for name in ("slow_mini", "coslow_mini"):
        record = dataclasses.replace(specs.SPECS[name], checkpoints=(known,))
        monkeypatch.setitem(specs.SPECS, name, record)
    path = downloads.place(record, known)
    saved(path, "slow_mini", 157, training_data="", source="", licence="")
    return path


def test_a_file_with_the_classes_of_charades_is_taken_for_it(charades_mini):
    for more in ({"num_classes": 157}, {"num_classes": 3, "new_head": True}, {"new_head": True}):
        model, transform = co3d.load("coslow_mini", charades_mini, **more)
        assert transform.channel_order == "bgr" and model.weights.classes == 157
        assert model.weights.training_data == "charades"
        assert model.weights.notes[-1].endswith("157 classes: frames are fed as BGR")
        assert model.weights.scores == ("softmax" if "new_head" in more else "sigmoid")


def test_scores_are_those_of_the_weights(charades_mini):
    logits = torch.randn(2, 157)
    model, _ = co3d.load("coslow_mini", "charades")
    assert torch.equal(co3d.scores(model, logits), logits.sigmoid())
    for model in (co3d.create("slow_mini"), co3d.load("x3d_mini", "synthetic-kinetics")[0]):
        assert torch.equal(co3d.scores(model, logits), logits.softmax(1))


def test_convert_knows_the_files_of_the_cache(charades_mini, path, convert):
    assert convert(charades_mini, path, "--model", "coslow_mini")[0] == 0
    record = metadata(path)
    assert record["source"] == "https://example.org/c.safetensors"
    assert (record["licence"], record["training_data"]) == ("Apache-2.0", "charades")
    elsewhere = path.with_name("copy.pth")
    elsewhere.write_bytes(charades_mini.read_bytes())
    assert convert(elsewhere, path, "--model", "slow_mini")[0] == 2
    options = ("--model", "slow_mini", "--training-data", "charades")
    assert "157 classes" in convert(elsewhere, path, *options)[1]


def test_classes_are_checked_before_a_download(charades_mini, monkeypatch):
    monkeypatch.setattr(downloads, "fetch", lambda *_: pytest.fail("fetched"))
    with pytest.raises(ValueError, match="expected 157 classes as charades has, given .*=3: "):
        co3d.load("slow_mini", "charades", num_classes=3)
    for weights in ("charades", charades_mini):
        with pytest.raises(ValueError, match="expected num_classes of 1 or more, given 0"):
            co3d.load("slow_mini", weights, num_classes=0)

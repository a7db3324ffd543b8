"""What weights files tell beside the weights, and those that come with the package."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import co3d
from co3d.__main__ import main
from co3d.zoo import checkpoints
from co3d.zoo.checkpoints import load_into

MINIS = ("x3d_mini", "slow_mini", "i3d_mini", "slowfast_mini", "r2plus1d_mini")
ORIGIN = {"training_data": "made", "source": "a test", "licence": "none"}


def _saved(path, num_classes=2, **options):
    model = co3d.create("x3d_mini", num_classes=num_classes)
    checkpoints.save(model, path, **ORIGIN, **options)
    return model


def _rewritten(path, **metadata):
    with safe_open(path, framework="pt") as file:
        record = file.metadata()
    save_file(load_file(path), path, metadata={**record, **metadata})


def test_scores_channel_order_and_names_travel_with_the_file(tmp_path):
    path, names = tmp_path / "w.safetensors", ("opening a door", "naïve, \x1b[31m\nred")
    _saved(path, scores="sigmoid", channel_order="bgr", labels=names)
    model, transform = co3d.load("cox3d_mini", path, num_classes=2)
    weights = model.weights
    assert (weights.scores, weights.channel_order) == ("sigmoid", "bgr")
    assert transform.channel_order == "bgr"
    assert weights.labels == ("opening a door", "naïve, [31mred")  # nothing that a terminal obeys
    fresh, transform = co3d.load("x3d_mini", path, num_classes=5, new_head=True)
    assert (fresh.weights.scores, fresh.weights.labels) == ("softmax", ())
    assert transform.channel_order == "bgr"

    main_arguments = ["convert", str(path), str(tmp_path / "c.safetensors"), "--model", "x3d_mini"]
    with pytest.raises(SystemExit) as done:
        main([*main_arguments, "--num-classes", "2", "--half"])
    assert done.value.code == 0
    copied = load_into(co3d.create("x3d_mini", num_classes=2), tmp_path / "c.safetensors")
    assert (copied.scores, copied.channel_order) == ("sigmoid", "bgr")
    assert copied.labels == weights.labels


def test_files_that_tell_nothing_are_as_before(tmp_path):
    _saved(tmp_path / "w.safetensors")
    weights = load_into(co3d.create("x3d_mini", num_classes=2), tmp_path / "w.safetensors")
    assert (weights.scores, weights.channel_order, weights.labels) == ("softmax", "rgb", ())


@pytest.mark.parametrize(
    "metadata, words",
    [
        ({"scores": "tanh"}, "expected softmax or sigmoid for scores in w.safetensors"),
        ({"channel_order": "grb"}, "expected rgb or bgr for channel_order in w.safetensors"),
        ({"labels": '["a"]'}, "expected names for 2 classes in w.safetensors"),
        ({"labels": '["a", 1]'}, "expected names for 2 classes"),
        ({"labels": '{"a": "b"}'}, "expected names for 2 classes"),
        ({"labels": '"ab"'}, "expected names for 2 classes"),
        ({"labels": "junk"}, "expected names for 2 classes"),
        ({"labels": "[" * 100_000}, "expected names for 2 classes"),
        ({"labels": json.dumps(["a" * 2_000_000, "b"])}, "expected names for 2 classes"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path, metadata, words):
    path = tmp_path / "w.safetensors"
    _saved(path)
    _rewritten(path, **metadata)
    with pytest.raises(ValueError, match=words) as caught:
        load_into(co3d.create("x3d_mini", num_classes=2), path)
    assert len(str(caught.value)) < 300


def test_rounded_weights_are_half_the_size_and_read_as_float32(tmp_path):
    path = tmp_path / "w.safetensors"
    model = _saved(path, half=True)
    tensors = load_file(path)
    assert {t.dtype for t in tensors.values() if t.ndim > 1} == {torch.float16}
    assert torch.float16 not in {t.dtype for t in tensors.values() if t.ndim < 2}
    read = co3d.create("x3d_mini", num_classes=2)
    load_into(read, path)
    for key, value in model.state_dict().items():
        rounded = value.half().float() if value.ndim > 1 else value
        assert torch.equal(read.state_dict()[key], rounded)
    _rewritten(path, precision="bfloat16")  # what is not announced is refused as ever
    with pytest.raises(ValueError, match="numbers of other types"):
        load_into(read, path)


def test_shipped_weights_by_data_set_and_seed():
    seeds = {"x3d_mini": 3, "slow_mini": 3}
    for name in MINIS:
        found = list(checkpoints.shipped(name))
        assert found == list(checkpoints.shipped(f"co{name}"))
        assert found[0] == "synthetic-kinetics"  # what commands take unless told otherwise
        for data in ("synthetic-kinetics", "synthetic-charades"):
            mine = [data, *(f"{data}:{seed}" for seed in range(1, seeds.get(name, 1)))]
            assert [known for known in found if known.startswith(data)] == mine
            for known in mine:
                weights = co3d.load(name, known)[0].weights
                assert (weights.training_data, weights.licence) == (data, "Apache-2.0")
                assert weights.scores == ("sigmoid" if "charades" in data else "softmax")
                assert weights.source.endswith(f"--seed {known.partition(':')[2] or 0}")
    assert sum(path.stat().st_size for path in checkpoints.SHIPPED.iterdir()) < 3_000_000
    with pytest.raises(ValueError, match="synthetic-kinetics:1, synthetic-kinetics:2"):
        co3d.load("x3d_mini", "synthetic-kinetics:9")

"""Weights files of every format and of none: read whole, or refused in a sentence. Nothing runs."""

import collections
import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch
import weight_files
from safetensors.torch import save

from co3d.zoo import files

STATE = {
    "conv.weight": torch.randn(4, 3, 1, 2, 2),
    "bn.bias": torch.randn(4),
    "bn.num_batches_tracked": torch.tensor(7),
}
BLOBS = {
    "conv1_w": np.random.default_rng(0).standard_normal((4, 3, 1, 2, 2), np.float32),
    "pred_b": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "pred_lr_w": np.ones(2, np.float32),
    "conv1_w_momentum": np.zeros((4, 3), np.float32),
    "lr": np.zeros(1, np.float32),
    "model_iter": np.zeros(1, np.int64),
}


def torch_file(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def legacy(content):
    """As torch wrote files before 1.6."""
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def zipped(*names):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"N.")
    return buffer.getvalue()


GOOD = {
    "safetensors": save(STATE, metadata={"model": "x3d_mini"}),
    "torch": torch_file({"epoch": 1, "model_state": STATE, "cfg": "A: 1"}),
    "torch before 1.6": legacy({"epoch": 1, "model_state": STATE, "cfg": "A: 1"}),
    "caffe2": weight_files.python2_pickle({"conv1_w": STATE["conv.weight"]}, "_w"),
}


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Writes a file in an empty folder, where a hostile one would leave a mark."""
    monkeypatch.chdir(tmp_path)

    def write(data):
        path = tmp_path / "weights.bin"
        path.write_bytes(data)
        return path

    yield write
    assert not (tmp_path / "ran").exists()


def refusal(path):
    """The sentence: it names the file and stays on one line."""
    with pytest.raises(ValueError) as caught:
        files.read(path)
    sentence = str(caught.value)
    assert sentence.startswith(f"{path.name} ") and sentence.isprintable() and len(sentence) < 300
    return sentence


def equal(tensors, expected):
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[key], expected[key]) for key in expected)


def test_safetensors(file):
    tensors, metadata = files.read(file(GOOD["safetensors"]))
    assert metadata == {"model": "x3d_mini"}
    equal(tensors, STATE)


@pytest.mark.parametrize("write", [torch_file, legacy])
def test_torch_files_of_every_kind(write, file):
    net = torch.nn.Sequential(torch.nn.Conv3d(2, 3, 1), torch.nn.BatchNorm3d(3))
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.randn(2, 2, 2, 2, 2)).sum().backward()
    optimizer.step()
    state = net.state_dict()
    training = {"epoch": 9, "model_state": state, "cfg": "TRAIN: 1\n" * 99, "scaler_state": None}
    training["optimizer_state"] = optimizer.state_dict()
    parameters = collections.OrderedDict(net.named_parameters())
    for content, expected in (
        (training, state),
        ({"state_dict": state}, state),
        (parameters, parameters),
        ({f"module.{key}": x for key, x in STATE.items()}, STATE),
        ({"model.a": torch.ones(1), "b": torch.ones(1)},) * 2,  # no common prefix
    ):
        tensors, _ = files.read(file(write(content)))
        equal(tensors, expected)
        assert not any(x.requires_grad for x in tensors.values())


def test_caffe2_pickles_of_python_2(file):
    """The test's own writer agrees with numpy; training's leftovers are left out."""
    blobs = pickle.loads(GOOD["caffe2"], encoding="latin1")["blobs"]
    assert sorted(blobs) == ["conv1_w", "conv1_w_momentum", "lr", "model_iter"]
    assert np.array_equal(blobs["conv1_w"], STATE["conv.weight"])
    tensors, _ = files.read(file(GOOD["caffe2"]))
    equal(tensors, {"conv1_w": STATE["conv.weight"]})
    tensors["conv1_w"] += 1  # its own memory


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_caffe2_pickles_written_again_by_python_3(protocol, file):
    blobs = {**BLOBS, "half": np.ones(3, ">f2")}
    names = ("conv1_w", "pred_b", "pred_lr_w", "half")
    expected = {name: torch.tensor(blobs[name].astype("f4")) for name in names}
    for content in ({"blobs": blobs, "cfg": ["x"]}, collections.OrderedDict(blobs)):
        equal(files.read(file(pickle.dumps(content, protocol)))[0], expected)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "is empty"),
        (b"\n<!DOCTYPE html><html>Not found</html>", "is an HTML page"),
        ("\ufeff<HTML>".encode("utf-16-le"), "is an HTML page"),
        (b'{"message": "Not Found"}', "is a JSON message"),
        (b"404: Not Found", "is text"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a git-lfs pointer"),
        (b"\x1f\x8b" + bytes(99), "is a packed file"),
        (b"weights".ljust(257, b"\0") + b"ustar", "is a tar archive"),
        (bytes(999), "is no weights file of a known format"),
        (b"PK\x03\x04", "is cut short or damaged: download it again"),
        (zipped("a/b.txt"), "is a zip file, but not of weights"),
        (zipped("a/data.pkl", "a/code/x.py"), "is a zip file, but not of weights"),
        (struct.pack("<Q", 9**5) + b'{"a":', "is not a whole safetensors file"),
        (GOOD["safetensors"][:-9], "is not a whole safetensors file"),
        *((GOOD[name][:-9], "is cut short or damaged") for name in GOOD if "safe" not in name),
    ],
    ids=lambda value: value if isinstance(value, str) else "data",
)
def test_what_is_no_weights_file_is_named(data, sentence, file):
    assert sentence in refusal(file(data))


def test_folders_missing_and_large_files(tmp_path):
    assert "is a folder" in refusal(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no weights file"):
        files.read(tmp_path / "none")
    large = tmp_path / "large"
    with large.open("wb") as stream:
        stream.truncate(files.LARGEST + 1)
    assert "more than any published weights" in refusal(large)


NAN = torch.tensor([1.0, float("nan")])


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (torch_file({"a": torch.ones(2), "b\n": NAN}), "not finite, in b"),
        (save({"a": torch.ones(2), "b": NAN}), "not finite, in b"),
        (weight_files.python2_pickle({"b": NAN}), "not finite, in b"),
        (torch_file({"a": torch.ones(2).to_sparse()}), "other than dense tensors, in a"),
        (torch_file({"model_state": {"a": torch.ones(2), "b": [1]}}), "tensors among its weights"),
        (torch_file({"model_state": {3: torch.ones(2)}}), "among its weights, in 3"),
        (torch_file([torch.ones(2)]), "holds a list in the place of weights"),
        (torch_file({}), "holds no tensors"),
        (pickle.dumps({"blobs": {"a": "b"}}, 2), "other than an array of real numbers, in a"),
        (pickle.dumps({"a": np.ones(2, "i4")}, 2), "other than an array of real numbers, in a"),
        (pickle.dumps([1], 2), "holds a list in the place of weights"),
    ],
)
def test_content_that_is_no_weights(data, sentence, file):
    assert sentence in refusal(file(data))


class Call:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


TOUCH = Call(os.system, "touch ran")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (pickle.dumps(TOUCH, 2), "asks for posix.system, which is not for weights"),
        (pickle.dumps({"blobs": {"a": TOUCH}}, 4), "asks for posix.system"),
        (torch_file(TOUCH), "asks for posix.system"),
        (legacy({"model_state": {"a": TOUCH}}), "asks for posix.system"),
        (pickle.dumps(Call(eval, "open('ran', 'w')"), 2), "asks for __builtin__.eval"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0dndarray.dumps\x93.", "asks for numpy.ndarray.dumps"),
        (b"\x80\x02U\x01aQ.", "damaged"),  # a persistent id
        (b"\x80\x02cnumpy\nndarray\nK\x01\x85R.", "damaged"),  # a call of ndarray
        (pickle.dumps(np.array([TOUCH]), 2), "'|O' in the place of numbers"),
        (pickle.dumps(np.zeros(2, "f4,f4"), 2), "'|V8' in the place of numbers"),
    ],
)
def test_hostile_pickles_run_nothing(data, sentence, file):
    assert sentence in refusal(file(data))


@pytest.mark.parametrize("name", GOOD)
def test_cut_and_flipped_files_are_refused_or_read(name, tmp_path):
    data, path = GOOD[name], tmp_path / "damaged"
    rng = np.random.default_rng(0)
    damaged = [data[:length] for length in range(0, len(data), max(1, len(data) // 50))]
    for place in rng.integers(len(data), size=100):
        damaged.append(data[:place] + bytes([rng.integers(256)]) + data[place + 1 :])
    for content in damaged:
        path.write_bytes(content)
        try:
            assert files.read(path)[0]
        except ValueError as error:
            assert str(error).startswith("damaged ")

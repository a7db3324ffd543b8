"""Weights files of every format and of none: read whole, or refused in a sentence; nothing runs."""

import collections
import gzip
import io
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from co3d.zoo import files

STATE = {
    "conv.weight": torch.randn(4, 3, 1, 2, 2),
    "bn.bias": torch.randn(4),
    "bn.num_batches_tracked": torch.tensor(7),
}
BLOBS = {
    "conv1_w": np.random.default_rng(0).standard_normal((4, 3, 1, 2, 2), np.float32),
    "conv1_w_momentum": np.zeros((4, 3), np.float32),
    "lr": np.zeros(1, np.float32),
    "model_iter": np.zeros(1, np.int64),
    "pred_b": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
}


def torch_file(state, **options):
    buffer = io.BytesIO()
    torch.save(state, buffer, **options)
    return buffer.getvalue()


def legacy(state):
    return torch_file(state, _use_new_zipfile_serialization=False)


def zipped(members, **options):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def array(raw, shape, kind="f4", by_columns=False):
    """An array as Python 2 pickled it by protocol 2."""
    code = kind.encode()
    return b"".join(
        [
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01(",
            *[b"\x8a\x08" + struct.pack("<q", n) for n in shape],
            b"tcnumpy\ndtype\nU" + bytes([len(code)]) + code + b"K\x00K\x01\x87R",
            b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb",
            b"\x88" if by_columns else b"\x89",
            b"T" + struct.pack("<i", len(raw)) + raw + b"tb",
        ]
    )


def array_in_text(raw, shape, kind="f4", by_columns=False):
    """An array as Python 2 pickled it by protocol 0."""
    dims = "".join(f"I{n}\n" for n in shape)
    return (
        "cnumpy.core.multiarray\n_reconstruct\np1\n(cnumpy\nndarray\np2\n(I0\ntp3\nS'b'\ntRp4\n"
        f"(I1\n({dims}tcnumpy\ndtype\n(S'{kind}'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"
        f"I0{int(by_columns)}\nS{repr(raw)[1:]}\ntb"
    ).encode("ascii")


def caffe2(blobs):
    items = [b"U" + bytes([len(name)]) + name.encode() + data for name, data in blobs.items()]
    return b"\x80\x02}q\x00U\x05blobsq\x01}q\x02(" + b"".join(items) + b"us."


def caffe2_in_text(blobs):
    items = [f"S'{name}'\np5\n".encode() + data + b"s" for name, data in blobs.items()]
    return b"(dp0\nS'blobs'\n(d" + b"".join(items) + b"s."


def of_blobs(one):
    """BLOBS, each pickled by `one`."""
    fortran = {k: not v.flags.c_contiguous for k, v in BLOBS.items()}
    return {
        k: one(v.tobytes(order="A"), v.shape, v.dtype.str[1:], fortran[k]) for k, v in BLOBS.items()
    }


GOOD = {
    "safetensors": save(STATE, metadata={"model": "x3d_mini"}),
    "torch": torch_file({"epoch": 1, "model_state": STATE, "cfg": "A: 1"}),
    "torch before 1.6": legacy({"epoch": 1, "model_state": STATE, "cfg": "A: 1"}),
    "caffe2": caffe2(of_blobs(array)),
    "caffe2 in text": caffe2_in_text(of_blobs(array_in_text)),
}


@pytest.fixture
def given_file(tmp_path, monkeypatch):
    """Writes a file in an empty folder, where `touch ran` would leave its mark."""
    monkeypatch.chdir(tmp_path)

    def write(data):
        path = tmp_path / "weights.bin"
        path.write_bytes(data)
        return path

    yield write
    assert not (tmp_path / "ran").exists()


def refusal(path):
    """The sentence, which names the file without its folder and stays on one short line."""
    with pytest.raises(ValueError) as caught:
        files.read(path)
    sentence = str(caught.value)
    assert sentence.startswith(f"{path.name} ") and str(path.parent) not in sentence
    assert sentence.isprintable() and len(sentence) < 600
    return sentence


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_safetensors(given_file):
    format, tensors, metadata = files.read(given_file(GOOD["safetensors"]))
    assert (format, metadata) == ("safetensors", {"model": "x3d_mini"}) and equal(tensors, STATE)


@pytest.mark.parametrize("write", [torch_file, legacy])
def test_torch_files_of_every_kind(write, given_file):
    net = torch.nn.Sequential(torch.nn.Conv3d(2, 3, 1), torch.nn.BatchNorm3d(3))
    state = net.state_dict()
    training = {"epoch": 9, "model_state": state, "cfg": "TRAIN: 1\n" * 99, "scaler_state": None}
    for kind in (torch.optim.SGD, torch.optim.AdamW):
        optimizer = kind(
            net.parameters(), lr=0.1, **({"momentum": 0.9} if "SGD" in str(kind) else {})
        )
        net(torch.randn(2, 2, 2, 2, 2)).sum().backward()
        optimizer.step()
        training["optimizer_state"] = optimizer.state_dict()
        assert equal(files.read(given_file(write(training))).tensors, net.state_dict())
    assert equal(files.read(given_file(write({"state_dict": state}))).tensors, state)
    parameters = collections.OrderedDict(net.named_parameters())
    found = files.read(given_file(write(parameters)))
    assert (found.format, found.metadata) == ("torch", {}) and equal(found.tensors, parameters)
    assert not any(tensor.requires_grad for tensor in found.tensors.values())


@pytest.mark.parametrize("prefix", ["module.", "model."])
def test_a_prefix_goes_if_all_keys_have_it(prefix, given_file):
    longer = {prefix + key: value for key, value in STATE.items()}
    assert equal(files.read(given_file(torch_file(longer))).tensors, STATE)
    longer["other"] = torch.zeros(1)
    assert equal(files.read(given_file(torch_file(longer))).tensors, longer)


@pytest.mark.parametrize("name", ["caffe2", "caffe2 in text"])
def test_caffe2_pickles_of_python_2(name, given_file):
    theirs = pickle.loads(GOOD[name], encoding="latin1")["blobs"]
    assert all(np.array_equal(theirs[k], BLOBS[k]) for k in BLOBS), "the test's own pickles"
    format, tensors, metadata = files.read(given_file(GOOD[name]))
    assert (format, metadata) == ("caffe2", {})
    assert equal(tensors, {k: torch.tensor(BLOBS[k]).float() for k in ("conv1_w", "pred_b")})
    tensors["conv1_w"] += 1  # its own memory


@pytest.mark.parametrize("protocol", range(5))
def test_caffe2_pickles_written_again_by_python_3(protocol, given_file):
    blobs = {**BLOBS, "one": np.float32(3), "half": np.ones(3, ">f2")}
    wanted = {k: torch.tensor(blobs[k].astype("f4")) for k in ("conv1_w", "pred_b", "one", "half")}
    for held in ({"blobs": blobs, "cfg": ["x"]}, collections.OrderedDict(blobs)):
        assert equal(files.read(given_file(pickle.dumps(held, protocol))).tensors, wanted)


def packed(how):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("weights"))
    # The second of packing stands in the header; its number has a "<" now and then: no XML
    return gzip.compress(buffer.getvalue(), mtime=ord("<")) if how == "gz" else buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "is empty"),
        (b"\n<!DOCTYPE html><html>Not found</html>", "is an HTML page"),
        (b"\xef\xbb\xbf<HTML>", "is an HTML page"),
        (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "is an XML message"),
        ("\ufeff<?xml version='1.0'?>".encode("utf-16-le"), "is an XML message"),
        ("\ufeff<?xml version='1.0'?>".encode("utf-16-be"), "is an XML message"),
        (b'{"message": "Not Found"}', "is a JSON message"),
        (b"404: Not Found", "is text"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a git-lfs pointer"),
        (packed("gz"), "is a packed file"),
        (packed("tar"), "is a tar archive"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "is a picture or a video"),
        (b"\x00\x00\x00\x18ftypisom" + bytes(99), "is a picture or a video"),
        (bytes(999), "is no weights file of a known format"),
        (b"PK\x03\x04", "is cut short or damaged"),
        (zipped({"a/b.txt": b"x"}), "is a zip file without weights of torch"),
        (zipped({"a/data.pkl": b"N.", "a/constants.pkl": b"N."}), "is a TorchScript program"),
        (zipped({"a/data.pkl": b"N.", "a/code/x.py": b""}), "is a TorchScript program"),
        (zipped({"a/data.pkl": bytes(9**6)}, compression=zipfile.ZIP_DEFLATED), "(packed or"),
        (struct.pack("<Q", 9**5) + b'{"a":', "is not a whole safetensors file"),
        (GOOD["caffe2"][:-9], "is cut short or damaged: download it again"),
        (GOOD["torch"][:-9], "is cut short or damaged: download it again"),
        (GOOD["torch before 1.6"][:-9], "is cut short or damaged: download it again"),
        (GOOD["safetensors"][:-9], "is not a whole safetensors file"),
    ],
    ids=lambda value: value if isinstance(value, str) else "data",
)
def test_what_is_no_weights_file_is_named(data, sentence, given_file):
    assert sentence in refusal(given_file(data))


def test_folders_and_missing_files(tmp_path):
    assert "is a folder" in refusal(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no weights file"):
        files.read(tmp_path / "none")
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(files.LARGEST + 1)
    assert "more than any published weights" in refusal(large)


NAN = torch.tensor([1.0, float("nan")])


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        ({"a": torch.ones(2), "b": NAN}, "not finite, in b"),
        ({"a": torch.ones(2), "b": -1 / torch.zeros(2)}, "not finite, in b"),
        ({"model_state": {"a": torch.ones(2), "b": [torch.ones(2)]}}, "tensors (list)"),
        ({"model_state": {"a": torch.ones(2), "b": {"c": 1}}}, "weights, in b"),
        ({"model_state": {3: torch.ones(2)}}, "weights, in 3"),
        ({"model_state": [torch.ones(2)]}, "holds a list in the place of weights"),
        ({"a": 1}, "tensors (int) among its weights, in a"),
        ({"a\nb": 1}, "in a\\nb"),
        ([torch.ones(2)], "holds a list in the place"),
        ({}, "holds 0 tensors"),
        ({"a": torch.ones(2, dtype=torch.complex64)}, "torch.ComplexFloatStorage"),
        ({"a": torch.ones(2).to_sparse()}, "_rebuild_sparse_tensor"),
        ({"a": torch.ones(2).to("meta")}, "_rebuild_meta_tensor"),
        ({"a": torch.ones(1).expand(10**6)}, "declares larger tensors than it holds"),
    ],
)
def test_tensors_that_are_no_weights(state, sentence, given_file):
    assert sentence in refusal(given_file(torch_file(state)))
    assert sentence in refusal(given_file(legacy(state)))


def test_odd_tensors_of_the_other_formats(given_file, tmp_path):
    save_file({"a": torch.ones(2), "b": NAN}, tmp_path / "a")
    assert "holds numbers that are not finite, in b" in refusal(tmp_path / "a")
    save_file({"b": torch.ones(2, dtype=torch.complex64)}, tmp_path / "a")
    assert "other than dense tensors of plain numbers, in b" in refusal(tmp_path / "a")
    data = caffe2({"a_w": array(NAN.numpy().tobytes(), (2,))})
    assert "holds numbers that are not finite, in a_w" in refusal(given_file(data))
    data = caffe2({"a_w": array(np.float64(1e300).tobytes(), (), "f8")})
    assert "holds numbers that are not finite, in a_w" in refusal(given_file(data))
    assert "holds a str in the place" in refusal(given_file(pickle.dumps({"blobs": {"a": "b"}})))
    assert "holds a list in the place" in refusal(given_file(pickle.dumps([1])))


def test_only_what_training_leaves_is_left_out(given_file):
    one = array(bytes(4), (1,))
    names = ("lr", "model_iter", "a_w_momentum", "pred_lr_w", "momentum_w", "lr_b")
    found = files.read(given_file(caffe2(dict.fromkeys(names, one)))).tensors
    assert [*found] == ["pred_lr_w", "momentum_w", "lr_b"]
    for kind in ("i4", "b1", "u1"):
        data = caffe2({"a_w": array(bytes(int(kind[1])), (1,), kind)})
        assert "holds whole numbers in the place of weights, in a_w" in refusal(given_file(data))


def test_many_tensors_and_long_headers_are_refused_before_they_are_read(given_file):
    data = save({str(n): torch.zeros(1) for n in range(files.TENSORS + 1)})
    assert f"holds {files.TENSORS + 1} tensors: refused" in refusal(given_file(data))
    header = b'{"__metadata__":{"a":"' + b"a" * files.HEADER + b'"}}'
    data = struct.pack("<Q", len(header)) + header
    assert f"a header of {len(header)} bytes" in refusal(given_file(data))


def test_names_in_a_file_are_quoted(given_file):
    name, shown = "\x1b[2J\n\u202e", r"\x1b[2J\n\u202e"
    kind = name.replace("\x1b", "x").replace("\n", "y") * 999
    header = f'{{"a":{{"dtype":"{kind}"}}}}'
    data = struct.pack("<Q", len(header.encode())) + header.encode()
    assert "is not a whole safetensors file" in refusal(given_file(data))
    for write in (torch_file, legacy):
        assert f"not finite, in {shown}" in refusal(given_file(write({name: NAN})))


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(5, "Input/output error"), "cannot be read: Input/output error"),
        (MemoryError(), "needs more memory than is free"),
        (OSError(22, "Invalid argument"), "is cut short or damaged"),
        (EOFError(), "is cut short or damaged"),
    ],
)
def test_faults_of_the_machine_are_not_those_of_the_file(error, sentence, given_file, monkeypatch):
    def fails(path):
        raise error

    monkeypatch.setitem(files._READERS, "safetensors", fails)
    assert sentence in refusal(given_file(GOOD["safetensors"]))


class Calls:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


TOUCH = Calls(os.system, "touch ran")
TEN_GB = 2_500_000_000
DEEP = 100_000
MADE = array(b"", ()).partition(b"(K\x01(")[0]  # an array before its state is set
LAUGH = b"q\x00h\x00\x86" * 99  # a tuple of twice the same tuple of twice the same
ODD_CALL = "calls what plain weights never call"
HOSTILE = {
    **{f"system by protocol {n}": (pickle.dumps(TOUCH, n), "asks for posix") for n in range(5)},
    "system in blobs": (pickle.dumps({"blobs": {"a": TOUCH}}, 2), "asks for posix.system"),
    "system as text": (b"cos\nsystem\n(S'touch ran'\ntR.", "asks for os.system"),
    "eval": (pickle.dumps(Calls(eval, "open('ran', 'w')"), 2), "asks for __builtin__.eval"),
    "nested": (b"\x80\x02cbuiltins\ngetattr\ncos\nsystem\nU\x01x\x86R.", "builtins.getattr"),
    "dotted": (b"\x80\x04\x8c\x05numpy\x8c\x0dndarray.dumps\x93.", "asks for numpy.ndarray.dumps"),
    "name of odd type": (b"\x80\x04]\x8c\x01a\x93.", "has a list where a name should be"),
    "long name": (b"\x80\x02c" + b"a" * 900 + b"\n\x1b[2J\nt.", "which is not for weights"),
    "instance": (b"(S'touch ran'\nios\nsystem\n.", "pickle instruction b'i'"),
    "object": (b"(cos\nsystem\nS'touch ran'\no.", "asks for os.system"),
    "object of ndarray": (b"(cnumpy\nndarray\nS'touch ran'\no.", "pickle instruction b'o'"),
    "extension": (b"\x80\x02\x82\x01.", "pickle instruction"),
    "new object": (b"\x80\x02cnumpy\nndarray\n)\x81.", "pickle instruction"),
    "later protocol": (b"\x80\x05N.", "later protocol"),
    "persistent id": (b"\x80\x02U\x01aQ.", "persistent ids"),
    "persistent id in text": (b"\x80\x02Pos.system\n.", "persistent ids"),
    "ndarray called": (b"\x80\x02cnumpy\nndarray\nK\x01\x85R.", ODD_CALL),
    "string called": (b"\x80\x02U\x06systemU\x01a\x85R.", ODD_CALL),
    "odd arguments": (b"\x80\x02cnumpy\ndtype\n}R.", ODD_CALL),
    "too many arguments": (b"\x80\x02cnumpy\ndtype\n(" + b"N" * 99 + b"tR.", ODD_CALL),
    "too few arguments": (b"\x80\x02cnumpy\ndtype\n)R.", "damaged"),
    "state of a name": (b"\x80\x02cnumpy\nndarray\n}b.", "sets the state of a Named"),
    "state of a list": (b"\x80\x02]}b.", "sets the state of a list"),
    "state of an array": (MADE + b"}b.", ODD_CALL),
    "other encoding": (b"\x80\x02c_codecs\nencode\nU\x01aU\x05rot13\x86R.", "encodes"),
    "objects": (pickle.dumps(np.array([TOUCH]), 2), "holds 'O8' in the place of numbers"),
    "objects by name": (caffe2({"a": array(bytes(8), (1,), "O8")}), "holds 'O8' in"),
    "structured": (pickle.dumps(np.zeros(2, "f4,f4"), 2), "holds 'V8' in"),
    "dates": (pickle.dumps(np.zeros(2, "M8[s]"), 2), "holds 'M8' in the place"),
    "10 GB shape": (caffe2({"a": array(bytes(4), (TEN_GB,))}), "a size that no weights have"),
    "1 GB shape": (caffe2({"a": array(bytes(4), (1 << 28,))}), "but has 4 bytes"),
    "negative shape": (caffe2({"a": array(bytes(4), (-1, -1))}), "a size that no weights have"),
    "many dimensions": (caffe2({"a": array(bytes(4), (1,) * 99)}), "99 dimensions"),
    "long string": (b"\x80\x02T\xff\xff\xff\x7fabc.", "damaged"),
    "negative string": (b"\x80\x02T\xff\xff\xff\xffabc.", "damaged"),
    "longer string": (b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7fabc.", "damaged"),
    "far memo": (b"\x80\x02Nr\xff\xff\xff\xff0.", "pickle instruction"),
    "long number": (b"\x80\x02L" + b"9" * 10**6 + b"L\n.", "damaged"),
    "long number in binary": (b"\x80\x02\x8b\xff\xff\xff\x7f.", "pickle instruction"),
    "deep lists": (b"\x80\x02" + b"]" * DEEP + b"a" * (DEEP - 1) + b".", "holds a list"),
    "deep marks": (b"\x80\x02" + b"(" * DEEP + b"t" * DEEP + b".", "holds a tuple"),
    "deep key": (b"\x80\x02})" + b"\x85" * DEEP + b"Ns.", "has a tuple for a key"),
    "laughing key": (b"\x80\x02})" + LAUGH + b"Ns.", "has a tuple for a key"),
    "laughing shape": (
        caffe2({"a": MADE + b"(K\x01)" + LAUGH + array(bytes(4), ()).partition(b"(K\x01(t")[2]}),
        "a size that no weights have",
    ),
    "hashes that meet": (b"}(" + b"L%dL\nN" % (2**61 - 1) + b"u.", "has a int for a key"),
    "endless": (b"\x80\x02" + b"N" * 1_000_001 + b".", "more objects than any weights"),
    "text again and again": (
        b"".join(
            [b"\x80\x02X\xa0\x86\x01\x00" + b"a" * DEEP, b"q\x00c_codecs\nencode\nq\x01("]
            + [b"h\x01h\x00U\x06latin1\x86R" * 9, b"t."]
        ),
        "encodes more text than it holds",
    ),
    "list again and again": (
        b"".join(
            [b"\x80\x02K\x01N\x86q\x02](" + b"h\x02" * DEEP + b"eq\x00"]
            + [b"ccollections\nOrderedDict\nq\x01(" + b"h\x01h\x00\x85R" * 999 + b"t."]
        ),
        "more objects than any weights",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles(name, given_file):
    data, sentence = HOSTILE[name]
    assert sentence in refusal(given_file(data))


def forged(old, new, write=torch_file):
    """A torch file of one tensor with other bytes in its pickle, and its sums right again."""
    data = write({"a": torch.ones(7, 9)})
    if write is legacy:
        assert old in data
        return data.replace(old, new)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in members if name.endswith("data.pkl"))
    assert old in members[name]
    members[name] = members[name].replace(old, new)
    return zipped(members)


HUGE = b"\x8a\x05" + TEN_GB.to_bytes(5, "little")
BIG = b"J" + (1 << 29).to_bytes(4, "little")
NUMEL, SHAPE = b"K?", b"K\x07K\x09\x86q"  # of the storage, and of the tensor


@pytest.mark.parametrize("write", [torch_file, legacy])
def test_hostile_torch_files(write, given_file):
    for held in (TOUCH, {"model_state": {"a": TOUCH}}, {"model_state": STATE, "cfg": TOUCH}):
        assert "asks for posix.system" in refusal(given_file(write(held)))
    doubles = "that it does not hold" if write is torch_file else "is cut short"
    for old, new, sentence in [
        (NUMEL, HUGE, "a size that no weights have"),
        (NUMEL, BIG, "declares a storage of 2147483648 bytes"),
        (NUMEL, b"J\xff\xff\xff\xff", "a size that no weights have"),
        (SHAPE, b"K\x07" + HUGE + b"\x86q", "a size that no weights have"),
        (SHAPE, b"K\x07" + BIG + b"\x86q", "that it does not hold"),
        (SHAPE, b"K\x07K\x0a\x86q", "declares a tensor of shape (7, 10) that it does not hold"),
        (b"ctorch\nFloatStorage", b"ctorch\nDoubleStorage", doubles),
        (b"ctorch\nFloatStorage", b"cos\nsystem", "asks for os.system"),
        (b"X\x07\x00\x00\x00storage", b"X\x06\x00\x00\x00module", "persistent ids"),
    ]:
        assert sentence in refusal(given_file(forged(old, new, write))), (old, new)


def test_hostile_headers_and_archives(given_file):
    header = b'{"a":{"dtype":"F32","shape":[2500000000],"data_offsets":[0,10000000000]}}'
    for length in (len(header), 90_000_000):
        data = struct.pack("<Q", length) + header + bytes(64)
        assert "is not a whole safetensors file" in refusal(given_file(data))
    with zipfile.ZipFile(io.BytesIO(GOOD["torch"])) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    assert equal(files.read(given_file(zipped(members))).tensors, STATE)
    del members[next(name for name in members if name.endswith("data/0"))]
    assert "that it does not hold" in refusal(given_file(zipped(members)))
    bomb = zipped({"a/data.pkl": b"N.", "a/data/0": bytes(10**7)}, compression=zipfile.ZIP_LZMA)
    assert "packed or overlapping" in refusal(given_file(bomb))


CHILD = """
import resource, sys
from pathlib import Path
from co3d.zoo import files
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20),) * 2)
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        files.read(path)
    except ValueError as error:
        print(error)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="asks Linux for its memory")
def test_hostile_files_take_little_memory(tmp_path):
    """All of them in one process that may not take more than 256 MB beyond its modules."""
    hostile = [data for data, _ in HOSTILE.values()]
    for write in (torch_file, legacy):
        hostile += [forged(NUMEL, HUGE, write), forged(NUMEL, BIG, write)]
        hostile += [forged(SHAPE, b"K\x07" + BIG + b"\x86q", write)]
    for number, data in enumerate(hostile):
        (tmp_path / f"{number:03}").write_bytes(data)
    child = subprocess.run(
        [sys.executable, "-c", CHILD, tmp_path], capture_output=True, text=True, timeout=120
    )
    assert child.returncode == 0, child.stderr
    assert len(child.stdout.splitlines()) == len(hostile)
    assert "Error" not in child.stdout + child.stderr


def outcome(path, data):
    """Any result will do, and any ValueError: another exception fails the test."""
    path.write_bytes(data)
    try:
        assert files.read(path).tensors
    except ValueError as error:
        assert str(error).startswith(path.name)


@pytest.mark.parametrize("name", GOOD)
def test_cut_files(name, tmp_path):
    data = GOOD[name]
    for length in {*range(0, len(data), max(1, len(data) // 100)), len(data) - 1}:
        outcome(tmp_path / "cut", data[:length])


@pytest.mark.parametrize("name", GOOD)
@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(choices=st.data())
def test_flipped_bytes(name, tmp_path_factory, choices):
    data = bytearray(GOOD[name])
    for _ in range(choices.draw(st.integers(1, 4))):
        data[choices.draw(st.integers(0, len(data) - 1))] ^= choices.draw(st.integers(1, 255))
    outcome(tmp_path_factory.getbasetemp() / "flipped", bytes(data))

"""What cannot be exported or opened is refused with a sentence."""

import re
import sys

import onnx
import pytest
import torch

import co3d
from co3d.deploy import Runner, export

FRAME = torch.zeros(1, 3, 32, 32)
FORMATS = [".onnx", ".xml"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Exports that tests copy: of one phase, of two phases, of a clip net."""
    folder = tmp_path_factory.mktemp("exports")
    nets = {"one": "cox3d_mini", "two": "coi3d_mini", "clip": "x3d_mini"}
    for stem, name in nets.items():
        torch.manual_seed(0)
        example = torch.zeros(1, 3, 16, 32, 32) if stem == "clip" else FRAME
        for suffix in FORMATS:
            export(co3d.create(name), folder / f"{stem}{suffix}", example)
    return folder


@pytest.fixture
def copies(folder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"path": "net.pt"}, "expected a file .onnx, or .xml of OpenVINO, given net.pt"),
        ({"path": "none/net.xml"}, "there is no folder"),
        ({"precision": "float16"}, "expected precision float32, .* given 'float16'"),
        ({"precision": "bfloat16"}, "bfloat16 in OpenVINO .ONNX Runtime has no convolution in it"),
        ({"labels": ["a"]}, "expected 12 labels, one of each class, given 1"),
        ({"example": torch.zeros(1, 3, 16, 32, 32)}, r"expected a frame \(B, C, H, W\)"),
        ({"example": torch.zeros(1, 4, 32, 32)}, "expected 3 channels, given 4"),
        ({"example": FRAME.double()}, "expected torch.float32 as in the weights"),
        ({"model": co3d.create("x3d_mini")}, r"expected a clip \(B, C, T, H, W\)"),
        ({"model": co3d.create("cox3d_mini").double()}, "expected a net in float32 on the CPU"),
        ({"model": co3d.create("cox3d_mini").train()}, "expected evaluation mode"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_export_that_cannot_be_is_refused(tmp_path, options, sentence):
    given = {"model": co3d.create("cox3d_mini"), "path": "net.onnx", "example": FRAME, **options}
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match=sentence):
        export(**{**given, "path": tmp_path / given["path"]})
    assert not list(tmp_path.iterdir())


def test_a_failed_export_leaves_the_old_files(copies, monkeypatch):
    before = {file.name: file.read_bytes() for file in copies.iterdir()}

    def full(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr("onnx.helper.set_model_props", full)
    for suffix in FORMATS:
        with pytest.raises(OSError, match="full"):
            export(co3d.create("cox3d_mini"), copies / f"one{suffix}", FRAME)
    assert {file.name: file.read_bytes() for file in copies.iterdir()} == before


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("stem", ["one", "two", "clip"])
def test_a_truncated_file_is_refused(copies, stem, suffix):
    path = copies / f"{stem}{suffix}"
    data = path.read_bytes()
    for share in (0, 0.3, 0.7, 0.999):
        path.write_bytes(data[: int(share * len(data))])
        with pytest.raises(ValueError, match=re.escape(str(path))):
            Runner(path, threads=1)


def test_weights_that_are_missing_or_of_another_export_are_refused(copies):
    path, weights = copies / "two.xml", copies / "two.bin"
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ValueError, match="is damaged or belongs to another export"):
        Runner(path)
    weights.write_bytes((copies / "one.bin").read_bytes())
    with pytest.raises(ValueError, match="two.xml cannot be opened"):
        Runner(path)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match="expected two.bin in"):
        Runner(path)
    weights.write_bytes(data)
    Runner(path, threads=1)
    path.rename(copies / "other.xml")
    with pytest.raises(FileNotFoundError, match="exported files keep their names"):
        Runner(copies / "other.xml")


def test_files_that_are_no_exports_are_refused(copies):
    with pytest.raises(FileNotFoundError, match="expected none.onnx in"):
        Runner(copies / "none.onnx")
    foreign = onnx.load(copies / "one.onnx")
    del foreign.metadata_props[:]
    onnx.save(foreign, copies / "one.onnx")
    (copies / "one.xml").write_text("<html></html>")
    for suffix in FORMATS:
        with pytest.raises(ValueError, match=f"one{suffix} cannot be opened"):
            Runner(copies / f"one{suffix}")


@pytest.mark.parametrize(
    "old, new, sentence",
    [
        ('"shape": [1, 3, 32, 32]', '"shape": [1, 3, 64, 64]', ""),
        ('"classes": 12', '"classes": 13', ""),
        ('"classes": 12', '"classes": 0', r"cannot be read \(sizes"),
        ('"length": 2,', '"length": 100000000000,', r"cannot be read \(sizes"),
        ('"length": 2,', '"length": 1.5,', r"cannot be read \(sizes"),
        ('"stride": 1', '"stride": 2', ""),
        ('"kind": "step"', '"kind": "clip"', ""),
        ('"precision": "float32"', '"precision": "float64"', ""),
        ('"precision": "float32"', '"precision": "bfloat16"', ""),
        ('"queues": [', '"queue": [', "cannot be read"),
        ('"layout": 2', '"layout": 1', "another version of co3d wrote it: export the net again"),
        ('"layout": 2', '"version": "0"', "another version of co3d wrote it"),
    ],
)
def test_a_record_that_lies_is_refused(copies, old, new, sentence):
    model = onnx.load(copies / "one.onnx")
    (text,) = (one.value for one in model.metadata_props)
    assert old in text
    onnx.helper.set_model_props(model, {"co3d": text.replace(old, new)})
    refuse(model, copies / "one.onnx", sentence)


@pytest.mark.parametrize("old, new", [(".b@2", ".b@x"), ("state.stem", "state.x")])
def test_a_graph_that_does_not_fit_its_record_is_refused(copies, old, new):
    model = onnx.load(copies / "one.onnx")
    renamed = 0
    for node in model.graph.node:
        for names in (node.input, node.output):
            for n, name in enumerate(names):
                names[n] = name.replace(old, new)
    for port in (*model.graph.input, *model.graph.output):
        renamed += old in port.name
        port.name = port.name.replace(old, new)
    assert renamed
    refuse(model, copies / "one.onnx", "")


def refuse(model, path, sentence):
    onnx.save(model, path)
    for runtime in ("onnxruntime", "openvino"):
        with pytest.raises(ValueError, match=f"one.onnx cannot be opened: .*{sentence}"):
            Runner(path, runtime, threads=1)


@pytest.mark.parametrize("place", ["../secret", "one.bin", "one.onnx", "."])
@pytest.mark.parametrize("stem", ["one", "two"])
def test_weights_do_not_come_from_elsewhere(copies, monkeypatch, stem, place):
    monkeypatch.chdir(copies)
    (copies.parent / "secret").write_bytes(bytes(2**20))
    model = onnx.load(copies / f"{stem}.onnx")
    tensor = max(model.graph.initializer, key=lambda one: one.ByteSize())
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=place)
    (copies / f"{stem}.onnx").write_bytes(model.SerializeToString())
    for runtime in ("onnxruntime", "openvino"):
        with pytest.raises(ValueError, match=rf"cannot be opened: .* {tensor.name}\)"):
            Runner(copies / f"{stem}.onnx", runtime)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda one, *_: one.step(FRAME.expand(2, -1, -1, -1)), ValueError, r"frame \(1, 3, 32, 3"),
        (lambda one, *_: one.step("frame"), TypeError, "expected a frame as a tensor, given str"),
        (lambda one, *_: one.step(FRAME, []), TypeError, "expected a state from begin"),
        (lambda one, two, _: one.step(FRAME, two.begin()), ValueError, "expected a state of"),
        (lambda one, *_: one.begin("replicate"), ValueError, "expected fill 'zeros' and emit 'val"),
        (lambda one, *_: one(FRAME), ValueError, "x3d_mini is continual: call step"),
        (lambda one, two, clip: co3d.Stream(clip), ValueError, "x3d_mini needs whole clips: call"),
    ],
)
def test_what_a_runner_cannot_do_is_refused(copies, suffix, call, error, words):
    runners = [Runner(copies / f"{stem}{suffix}", threads=1) for stem in ("one", "two", "clip")]
    with pytest.raises(error, match=words):
        call(*runners)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"threads": 0}, "expected 1 or more threads"),
        ({"runtime": "tensorrt"}, "expected a runtime that runs"),
    ],
)
def test_a_runner_that_cannot_be_is_refused(copies, options, words):
    with pytest.raises(ValueError, match=words):
        Runner(copies / "one.onnx", **options)


def test_a_runtime_that_is_missing_is_named(copies, monkeypatch):
    with pytest.raises(ValueError, match="expected a runtime that runs one.xml"):
        Runner(copies / "one.xml", runtime="onnxruntime")
    for name, suffix in (("openvino", ".xml"), ("onnxruntime", ".onnx"), ("onnx", ".onnx")):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ValueError, match=rf"import of {name} .*pip install 'co3d\["):
            Runner(copies / f"one{suffix}")

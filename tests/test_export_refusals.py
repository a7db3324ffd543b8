"""What cannot be exported or opened is refused with a sentence."""

import re
import shutil
import sys

import onnx
import pytest
import torch
from nets import SIZE, exported, net_of

import co3d
from co3d.deploy import Runner, export

pytestmark = pytest.mark.xdist_group("exports")
FRAME, CLIP = torch.zeros(1, 3, SIZE, SIZE), torch.zeros(2, 3, 16, SIZE, SIZE)
FORMATS = [".onnx", ".xml"]
STEMS = {"one": "cox3d_mini", "two": "coi3d_mini", "clip": "x3d_mini"}


@pytest.fixture(scope="module")
def originals(exports):
    """Files of one phase, of two phases and of a clip net, by their new names."""
    files = {}
    for stem, name in STEMS.items():
        net, example = net_of(name), CLIP if stem == "clip" else FRAME
        for suffix in FORMATS:
            exported(net, example, exports, suffix)
        files |= {f"{stem}{suffix}": exports / f"{name}{suffix}" for suffix in (*FORMATS, ".bin")}
    return files


@pytest.fixture
def copies(originals, tmp_path):
    for name, path in originals.items():
        shutil.copy(path, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"path": "net.pt"}, "expected a file .onnx, or .xml of OpenVINO, given net.pt"),
        ({"path": "none/net.xml"}, "there is no folder"),
        ({"precision": "float16"}, "expected precision float32, .* given 'float16'"),
        ({"precision": "bfloat16"}, "bfloat16 in OpenVINO .ONNX Runtime has no convolution in it"),
        ({"labels": ["a"]}, "expected 12 labels, one of each class, given 1"),
        ({"example": CLIP}, r"expected a frame \(B, C, H, W\)"),
        ({"model": "x3d_mini"}, r"expected a clip \(B, C, T, H, W\)"),
        ({"model": "cox3d_mini", "change": "double"}, "expected a net in float32 on the CPU"),
        ({"model": "cox3d_mini", "change": "train"}, "expected evaluation mode"),
    ],
    ids=str,
)
def test_an_export_that_cannot_be_is_refused(tmp_path, options, sentence):
    options = {"model": "cox3d_mini", "path": "net.onnx", "example": FRAME, **options}
    model = co3d.create(options.pop("model"))
    if change := options.pop("change", None):
        getattr(model, change)()
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match=sentence):
        export(model, tmp_path / options.pop("path"), **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_failed_export_leaves_the_old_files(copies, monkeypatch, suffix):
    before = {file.name: file.read_bytes() for file in copies.iterdir()}

    def full(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr("onnx.helper.set_model_props", full)
    with pytest.raises(OSError, match="full"):
        export(co3d.create("x3d_mini"), copies / f"one{suffix}", CLIP)
    assert {file.name: file.read_bytes() for file in copies.iterdir()} == before


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("stem", STEMS)
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
    path.rename(copies / "other.xml")
    with pytest.raises(FileNotFoundError, match="exported files keep their names"):
        Runner(copies / "other.xml")


@pytest.mark.parametrize("suffix", FORMATS)
def test_files_that_are_no_exports_are_refused(copies, suffix):
    with pytest.raises(FileNotFoundError, match=f"expected none{suffix} in"):
        Runner(copies / f"none{suffix}")
    foreign = onnx.load(copies / "one.onnx")
    del foreign.metadata_props[:]
    onnx.save(foreign, copies / "one.onnx")
    (copies / "one.xml").write_text("<html></html>")
    with pytest.raises(ValueError, match=f"one{suffix} cannot be opened"):
        Runner(copies / f"one{suffix}")


def refuse(model, path, sentence=""):
    path.write_bytes(model.SerializeToString())
    for runtime in ("onnxruntime", "openvino"):
        with pytest.raises(ValueError, match=f"{path.name} cannot be opened: .*{sentence}"):
            Runner(path, runtime, threads=1)


@pytest.mark.parametrize(
    "old, new, sentence",
    [
        (f'"shape": [1, 3, {SIZE}, {SIZE}]', '"shape": [1, 3, 64, 64]', ""),
        ('"classes": 12', '"classes": 13', ""),
        ('"length": 2,', '"length": 100000000000,', r"cannot be read \(sizes"),
        ('"stride": 1', '"stride": 2', ""),
        ('"kind": "step"', '"kind": "clip"', ""),
        ('"precision": "float32"', '"precision": "bfloat16"', ""),
        ('"queues": [', '"queue": [', "cannot be read"),
        ('"layout": 2', '"layout": 1', "another version of co3d wrote it: export the net again"),
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
    for port in (*model.graph.input, *model.graph.output):
        port.name = port.name.replace(old, new)
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [name.replace(old, new) for name in names]
    assert any(new in port.name for port in model.graph.input)
    refuse(model, copies / "one.onnx")


@pytest.mark.parametrize(
    "stem, place", [("one", "../secret"), ("two", "../secret"), ("one", "one.bin"), ("two", ".")]
)
def test_weights_do_not_come_from_elsewhere(copies, monkeypatch, stem, place):
    monkeypatch.chdir(copies)
    (copies.parent / "secret").write_bytes(bytes(2**20))
    model = onnx.load(copies / f"{stem}.onnx")
    tensor = max(model.graph.initializer, key=lambda one: one.ByteSize())
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=place)
    refuse(model, copies / f"{stem}.onnx", rf" {tensor.name}\)")


def torn(runner):
    state = co3d.clone(runner.begin())
    state["layers"]["next"] = ()
    return state


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_a_runner_cannot_do_is_refused(copies, suffix):
    one, two, clips = (Runner(copies / f"{stem}{suffix}", threads=1) for stem in STEMS)
    for state, sentence in (
        (two.begin(), "expected a state of"),
        (torn(one), "given one of another engine"),
        (co3d.stack([one.begin(), one.begin()]), "expected a state of"),
    ):
        with pytest.raises(ValueError, match=sentence):
            one.step(FRAME, state)
    with pytest.raises(ValueError, match="x3d_mini is continual: call step"):
        one(CLIP)
    with pytest.raises(ValueError, match="x3d_mini needs whole clips: call it"):
        co3d.Stream(clips)
    for options in ({"threads": 0}, {"runtime": "tensorrt"}):
        with pytest.raises(ValueError, match="expected (1 or more threads|a runtime that runs)"):
            Runner(copies / f"one{suffix}", **options)


def test_a_runtime_that_is_missing_is_named(copies, monkeypatch):
    with pytest.raises(ValueError, match="expected a runtime that runs one.xml"):
        Runner(copies / "one.xml", runtime="onnxruntime")
    for name, suffix in (("openvino", ".xml"), ("onnxruntime", ".onnx"), ("onnx", ".onnx")):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ValueError, match=rf"import of {name} .*pip install 'co3d\["):
            Runner(copies / f"one{suffix}")

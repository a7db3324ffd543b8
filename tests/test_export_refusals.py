"""What cannot be exported or opened is refused with a sentence."""

import re

import onnx
import pytest
import torch

import co3d
from co3d.deploy import Runner, export, runtimes

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
        ({"path": "net.pt"}, "expected a file .onnx of format onnx or .xml of format openvino"),
        ({"path": "net.xml", "format": "onnx"}, "expected a file .onnx of format onnx"),
        ({"path": "none/net.xml"}, "there is no folder"),
        ({"precision": "float16"}, "expected precision 'float32', .* given 'float16'"),
        ({"precision": "bfloat16"}, "CPU provider of ONNX Runtime has no convolution in bfloat16"),
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

    monkeypatch.setattr("co3d.deploy.record.Record.to_json", full)
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


@pytest.mark.parametrize("suffix", FORMATS)
def test_files_that_are_missing_or_of_another_export_are_refused(copies, suffix):
    path = copies / f"two{suffix}"
    others = [copies / "two.bin"]
    if suffix == ".onnx":
        others = [copies / "two.phase1.onnx", copies / "two.weights"]
    for other in others:
        data = other.read_bytes()
        other.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(ValueError, match="is damaged or belongs to another export"):
            Runner(path)
        other.unlink()
        with pytest.raises(FileNotFoundError, match=f"expected {other.name} in"):
            Runner(path)
        other.write_bytes(data)
    Runner(path, threads=1)
    path.rename(copies / f"other{suffix}")
    with pytest.raises(FileNotFoundError, match="the files of an export keep their names"):
        Runner(copies / f"other{suffix}")


def test_files_that_are_no_exports_are_refused(copies):
    with pytest.raises(FileNotFoundError, match="expected none.onnx in"):
        Runner(copies / "none.onnx")
    with pytest.raises(ValueError, match="that co3d export wrote, given .*phase1.onnx"):
        Runner(copies / "two.phase1.onnx")
    (copies / "one.xml").write_text("<html></html>")
    with pytest.raises(ValueError, match="one.xml cannot be opened"):
        Runner(copies / "one.xml")


@pytest.mark.parametrize(
    "old, new, sentence",
    [
        ('"shape": [1, 3, 32, 32]', '"shape": [1, 3, 64, 64]', "cannot be opened"),
        ('"classes": 12', '"classes": 13', "cannot be opened"),
        ('"classes": 12', '"classes": 0', r"cannot be read \(sizes\)"),
        ('"length": 2,', '"length": 100000000000,', r"cannot be read \(lengths\)"),
        ('"stride": 1', '"stride": 2', r"cannot be read \(lengths\)"),
        ('"kind": "step"', '"kind": "clip"', "cannot be opened"),
        ('.b@2"', '.b@x"', "cannot be opened"),
        ('"state.stem', '"state.other', "cannot be opened"),
        ('"precision": "float32"', '"precision": "float64"', r"cannot be read \(kinds\)"),
        ('"queues": [', '"queue": [', "cannot be read"),
    ],
)
def test_a_record_that_lies_is_refused(copies, old, new, sentence):
    model = onnx.load(copies / "one.onnx")
    (text,) = (one.value for one in model.metadata_props)
    assert old in text
    onnx.helper.set_model_props(model, {"co3d": text.replace(old, new)})
    onnx.save(model, copies / "one.onnx")
    for runtime in ("onnxruntime", "openvino"):
        with pytest.raises(ValueError, match=sentence):
            Runner(copies / "one.onnx", runtime, threads=1)


def test_weights_do_not_come_from_elsewhere(copies):
    (copies.parent / "secret").write_bytes(bytes(4096))
    for stem, place in (("one", "../secret"), ("two", "../secret"), ("two", "one.bin")):
        model = onnx.load(copies / f"{stem}.onnx", load_external_data=False)
        tensor = max(model.graph.initializer, key=lambda one: one.ByteSize())
        tensor.ClearField("raw_data")
        del tensor.external_data[:]
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=place)
        (copies / f"{stem}.onnx").write_bytes(model.SerializeToString())
        with pytest.raises(ValueError, match="refers to a file that is not its own"):
            Runner(copies / f"{stem}.onnx")


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_a_runner_cannot_do_is_refused(copies, suffix):
    runner = Runner(copies / f"one{suffix}", threads=1)
    other, clips = (Runner(copies / f"{stem}{suffix}", threads=1) for stem in ("two", "clip"))
    with pytest.raises(ValueError, match=r"expected a frame \(1, 3, 32, 32\)"):
        runner.step(torch.zeros(2, 3, 32, 32))
    with pytest.raises(TypeError, match="expected a frame as a tensor, given str"):
        runner.step("frame")
    with pytest.raises(TypeError, match="expected a state from begin"):
        runner.step(FRAME, [])
    with pytest.raises(ValueError, match="expected a state of"):
        runner.step(FRAME, other.begin())
    state = runner.begin()
    runner.step(FRAME, state)
    with pytest.raises(ValueError, match="given one consumed"):
        runner.step(FRAME, state)
    with pytest.raises(ValueError, match="expected a state of"):
        runner.step(FRAME, co3d.stack([runner.begin(), runner.begin()]))
    state = co3d.clone(runner.begin())
    state["layers"]["next"] = ()
    with pytest.raises(ValueError, match="given one of another engine"):
        runner.step(FRAME, state)
    with pytest.raises(ValueError, match="expected fill 'zeros' and emit 'valid'"):
        runner.begin("replicate")
    with pytest.raises(ValueError, match="x3d_mini is continual: call step"):
        runner(torch.zeros(1, 3, 16, 32, 32))
    with pytest.raises(ValueError, match="x3d_mini needs whole clips: call it"):
        co3d.Stream(clips)
    with pytest.raises(ValueError, match="expected 1 or more threads"):
        Runner(copies / f"one{suffix}", threads=0)
    with pytest.raises(ValueError, match="expected a runtime that runs"):
        Runner(copies / f"one{suffix}", runtime="tensorrt")


def test_a_runtime_that_is_missing_is_named(copies, monkeypatch):
    with pytest.raises(ValueError, match="expected a runtime that runs one.xml"):
        Runner(copies / "one.xml", runtime="onnxruntime")
    with pytest.raises(ValueError, match=r"expected none to be installed: pip install 'co3d\["):
        runtimes.installed("none")

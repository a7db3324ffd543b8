"""What cannot be exported or opened is refused with a sentence."""

import re

import onnx
import pytest
import torch

import co3d
from co3d.export import Runner, export

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
        ({"precision": "float16"}, "expected state in .* and precision in .* given .*float16"),
        ({"precision": "bfloat16"}, "CPU provider of ONNX Runtime has no convolution in bfloat16"),
        ({"state": "internal"}, "expected state 'explicit' for onnx"),
        ({"labels": ["a"]}, "expected 12 labels, one of each class, given 1"),
        ({"example": torch.zeros(1, 3, 16, 32, 32)}, r"expected a frame \(B, C, H, W\)"),
        ({"example": torch.zeros(1, 4, 32, 32)}, "expected 3 channels, given 4"),
        ({"example": FRAME.double()}, "expected torch.float32 as in the weights"),
        ({"model": "x3d_mini"}, r"expected a clip \(B, C, T, H, W\)"),
        ({"model": "x3d_mini", "state": "internal", "path": "net.xml"}, "of a clip net, which has"),
        (
            {"model": "coi3d_mini", "state": "internal", "path": "net.xml"},
            "given 2: create it with",
        ),
    ],
    ids=str,
)
def test_an_export_that_cannot_be_is_refused(tmp_path, options, sentence):
    model = co3d.create(options.pop("model", "cox3d_mini"))
    path, example = tmp_path / options.pop("path", "net.onnx"), options.pop("example", FRAME)
    with pytest.raises((ValueError, TypeError), match=sentence):
        export(model, path, example, **options)
    assert not list(tmp_path.iterdir())


def test_a_net_that_is_not_ready_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected evaluation mode"):
        export(co3d.create("cox3d_mini").train(), tmp_path / "net.onnx", FRAME)
    with pytest.raises(ValueError, match="expected a net in float32 on the CPU"):
        export(co3d.create("cox3d_mini").double(), tmp_path / "net.onnx", FRAME.double())
    with pytest.raises(FileNotFoundError, match="name a file in an existing folder"):
        export(co3d.create("cox3d_mini"), tmp_path / "none" / "net.onnx", FRAME)


def test_a_failed_export_leaves_the_old_files(folder, tmp_path, monkeypatch):
    from co3d.export import openvino_files

    path = tmp_path / "net.xml"
    export(co3d.create("cox3d_mini"), path, FRAME)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def full(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(openvino_files._Weights, "place", full)
    with pytest.raises(OSError, match="full"):
        export(co3d.create("cox3d_mini"), path, FRAME)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


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
    weights = copies / ("two.bin" if suffix == ".xml" else "two.weights")
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ValueError, match="is damaged or belongs to another export"):
        Runner(path)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match=f"expected {weights.name} beside"):
        Runner(path)
    weights.write_bytes(data)
    phase = copies / f"two.phase1{suffix}"
    with pytest.raises(ValueError, match="expected the graph of phase 0, given that of 1"):
        Runner(phase)
    kept = phase.read_bytes()
    torch.manual_seed(1)
    export(co3d.create("coi3d_mini"), path, FRAME)
    phase.write_bytes(kept)
    with pytest.raises(ValueError, match="belongs to another export"):
        Runner(path)
    phase.unlink()
    with pytest.raises(FileNotFoundError, match=f"expected two.phase1{suffix} beside"):
        Runner(path)
    path.rename(copies / f"other{suffix}")
    with pytest.raises(ValueError, match=f"was exported as two{suffix}"):
        Runner(copies / f"other{suffix}")


def test_files_that_are_no_exports_are_refused(tmp_path, copies):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        Runner(tmp_path / "none.onnx")
    model = onnx.load(copies / "one.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "plain.onnx")
    with pytest.raises(ValueError, match="that co3d export wrote, given .* it has no record"):
        Runner(tmp_path / "plain.onnx")
    onnx.helper.set_model_props(model, {"co3d": '{"phase": 0, "queues": []}'})
    onnx.save(model, tmp_path / "plain.onnx")
    with pytest.raises(ValueError, match="its record cannot be read"):
        Runner(tmp_path / "plain.onnx")
    (tmp_path / "page.xml").write_text("<html></html>")
    with pytest.raises(ValueError, match="it has no record"):
        Runner(tmp_path / "page.xml")
    (tmp_path / "bomb.xml").write_text('<!DOCTYPE a [<!ENTITY b "c">]><net>&b;</net>')
    with pytest.raises(ValueError, match="it has a document type"):
        Runner(tmp_path / "bomb.xml")


@pytest.mark.parametrize(
    "old, new, sentence",
    [
        ('"shape": [1, 3, 32, 32]', '"shape": [1, 3, 64, 64]', "its tensors are not those"),
        ('"classes": 12', '"classes": 13', "its tensors are not those"),
        ('"classes": 12', '"classes": 0', r"cannot be read \(sizes\)"),
        ('"length": 2,', '"length": 100000000000,', r"cannot be read \(lengths\)"),
        ('@"', '@"', None),
        ('"files": ["one.onnx"]', '"files": ["one.onnx", "../x"]', r"cannot be read \(file names"),
        ('.b", 2]', '.b", 9]', r"cannot be read \(depths\)"),
    ],
)
def test_a_record_that_lies_is_refused(copies, old, new, sentence):
    model = onnx.load(copies / "one.onnx")
    (text,) = (one.value for one in model.metadata_props)
    onnx.helper.set_model_props(model, {"co3d": text.replace(old, new)})
    onnx.save(model, copies / "one.onnx")
    if sentence is None:
        Runner(copies / "one.onnx", threads=1)
        return
    assert old in text
    with pytest.raises(ValueError, match=sentence):
        Runner(copies / "one.onnx", threads=1)


def test_weights_do_not_come_from_elsewhere(copies):
    secret = copies.parent / "secret"
    secret.write_bytes(bytes(4096))
    for stem in ("one", "two"):
        model = onnx.load(copies / f"{stem}.onnx", load_external_data=False)
        tensor = max(model.graph.initializer, key=lambda one: one.ByteSize())
        tensor.ClearField("raw_data")
        del tensor.external_data[:]
        tensor.data_location = onnx.TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", "../secret"
        (copies / f"{stem}.onnx").write_bytes(model.SerializeToString())
        with pytest.raises(ValueError, match="refers to a file that is not its own"):
            Runner(copies / f"{stem}.onnx")


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_a_runner_cannot_do_is_refused(copies, suffix):
    runner, other = (Runner(copies / f"one{suffix}", threads=1) for _ in range(2))
    clips = Runner(copies / f"clip{suffix}", threads=1)
    with pytest.raises(ValueError, match=r"expected the shape of the export, \(1, 3, 32, 32\)"):
        runner.step(torch.zeros(1, 3, 48, 48))
    with pytest.raises(ValueError, match=r"given \(2, 3, 32, 32\)"):
        runner.step(torch.zeros(2, 3, 32, 32))
    with pytest.raises(TypeError, match="expected a float32 tensor, given torch.float64"):
        runner.step(FRAME.double())
    with pytest.raises(TypeError, match="expected a float32 tensor, given str"):
        runner.step("frame")
    with pytest.raises(TypeError, match="expected a state that begin or step gave, given list"):
        runner.step(FRAME, [])
    with pytest.raises(ValueError, match="given one of another"):
        runner.step(FRAME, other.begin())
    old = runner.begin()
    runner.step(FRAME, old)
    with pytest.raises(ValueError, match="given one consumed"):
        runner.step(FRAME, old)
    with pytest.raises(ValueError, match="expected fill 'zeros' and emit 'valid'"):
        runner.begin("replicate")
    with pytest.raises(ValueError, match="x3d_mini is continual: call step"):
        runner(torch.zeros(1, 3, 16, 32, 32))
    with pytest.raises(ValueError, match="x3d_mini needs whole clips: call it"):
        clips.step(FRAME)
    with pytest.raises(ValueError, match="expected 1 or more threads"):
        Runner(copies / f"one{suffix}", threads=0)
    with pytest.raises(ValueError, match="expected a runtime that runs"):
        Runner(copies / f"one{suffix}", runtime="tensorrt")
    with pytest.raises(ValueError, match="expected a runtime that runs one.xml"):
        Runner(copies / "one.xml", runtime="onnxruntime")

"""co3d export writes files that a Runner opens, and refuses in one line."""

from functools import partial

import pytest

from co3d.deploy import Runner


@pytest.fixture
def run(run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return partial(run, "export")


def test_a_model_with_its_shipped_weights_is_exported_and_compared(run, tmp_path):
    code, shown, _ = run("cox3d_mini", "--window", "32", "--size", "32")
    assert code == 0 and "cox3d_mini.onnx  0." in shown and "equals cox3d_mini to " in shown
    record = Runner(tmp_path / "cox3d_mini.onnx", threads=1).record
    assert record.window == 32 and record.shape == (1, 3, 32, 32) and len(record.labels) == 12
    assert record.weights["training_data"] == "synthetic-kinetics"


def test_formats_and_options_reach_the_file(run, tmp_path):
    code, shown, _ = run(
        *("coi3d_mini", "--out", "a.xml", "--weights", "none", "--batch", "2"),
        *("--dense", "--precision", "bfloat16", "--size", "32"),
    )
    assert code == 0 and "a.xml  " in shown and "a.bin  " in shown
    record = Runner(tmp_path / "a.xml", threads=1).record
    assert (record.precision, record.stride, record.shape) == ("bfloat16", 1, (2, 3, 32, 32))
    code, shown, _ = run("i3d_mini", "--format", "openvino", "--no-check", "--size", "32")
    assert code == 0 and "equals" not in shown
    assert Runner(tmp_path / "i3d_mini.xml", threads=1).record.kind == "clip"


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["x3d_mini", "--window", "8"], "expected no window for x3d_mini, which takes whole clips"),
        (["cox3d_m"], "no weights come with cox3d_m"),
        (
            ["cox3d_mini", "--out", "a.onnx", "--format", "openvino"],
            "expected a file .xml of openvino, given a.onnx",
        ),
        (["cox3d_mini", "--precision", "bfloat16"], "ONNX Runtime has no convolution in it"),
        (["cox3d_mini", "--out", "none/a.onnx"], "there is no folder"),
    ],
)
def test_what_cannot_be_is_one_line(run, tmp_path, arguments, sentence):
    code, _, error = run(*arguments)
    assert code == 2 and sentence in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())

"""The measured claims: each can fail, and says what it compares."""

import pytest
import torch

import co3d
from co3d.measure import equivalence
from co3d.report import results
from co3d.report.origin import provenance

ALWAYS = {"stream = clip", "steady = unpadded clip", "clip = clip network"}
ALWAYS |= {"first output", "padding", "time reversed"}
OWN = {
    "cox3d_mini": {"gate"},
    "coslowfast_mini": {
        "slow-path sampling",
        "dense[::stride] = stream",
        "dense steady = unpadded clip",
    },
}


@pytest.mark.parametrize("name", OWN)
def test_equalities_hold_and_differences_do_not(name, tmp_path):
    rows = equivalence.rows(name, size=32)
    assert {row["claim"] for row in rows} == ALWAYS | OWN[name]
    for row in rows:
        if row["tolerance"] is None:
            assert row["max_rel_diff"] > 1e-3
        else:
            assert row["max_rel_diff"] < row["tolerance"] == 1e-10
    results.write("equivalence", rows, tmp_path, provenance(notebook="a test", seed=0))
    assert len(results.read("equivalence", tmp_path)) == len(rows)


def test_float32_and_a_choice_of_claims():
    claims = (equivalence.STREAM, equivalence.NATIVE)
    found = equivalence.rows("coslow_mini", 8, size=32, dtype=torch.float32, claims=claims)
    assert [row["claim"] for row in found] == [equivalence.STREAM], "8 is not the native window"
    assert found[0]["window"] == 8 and found[0]["tolerance"] == 1e-4
    assert 0 < found[0]["max_rel_diff"] < 1e-4 and found[0]["dtype"] == "float32"


@pytest.mark.parametrize("broken", ["stream", "padding"])
def test_a_wrong_stream_is_seen(monkeypatch, broken):
    """A state that forgets, or a clip call that pads, is not equal any more."""
    if broken == "stream":
        steps = co3d.nn.StreamNet.steps
        monkeypatch.setattr(
            co3d.nn.StreamNet,
            "steps",
            lambda net, x, *a, **k: steps(net, None if x is None else x.flip(3), *a, **k),
        )
    else:
        features = co3d.nn.StreamNet.features
        monkeypatch.setattr(
            co3d.nn.StreamNet, "features", lambda net, clip, pad=True: features(net, clip, True)
        )
    found = {row["claim"]: row for row in equivalence.rows("coslow_mini", size=32)}
    claim = equivalence.STREAM if broken == "stream" else equivalence.STEADY
    assert found[claim]["max_rel_diff"] > 1e-3


@pytest.mark.parametrize("name", ["cox3d_mini", "coi3d_mini"])
def test_the_error_is_gone_at_the_receptive_field(name):
    _, stream = equivalence.twins(name, None, 32, torch.float64)
    field, stride = stream.receptive_field, stream.stride
    torch.manual_seed(0)
    clip = torch.randn(1, 3, 2 * field + 4 * stride, 32, 32, dtype=torch.float64)
    curve = equivalence.error_over_time(stream, clip)
    frames = [point["frame"] for point in curve]
    assert frames[0] == stream.warmup + 1 and set(map(int.__sub__, frames[1:], frames)) == {stride}
    for point in curve:
        assert (point["max_rel_diff"] < 1e-12) == (point["frame"] >= field)

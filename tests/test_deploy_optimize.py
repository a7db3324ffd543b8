"""Optimised nets: half precision, clips, and what they refuse."""

import copy

import pytest
import torch
from nets import MINIS, SIZE, frames_of, logits_of, net_of

import co3d
from co3d.deploy import OptimizedStream, Runner, export
from co3d.nn import state_bytes

FRAME = torch.zeros(1, 3, SIZE, SIZE)


@pytest.mark.parametrize(
    "name, form",
    [
        *((name, "optimised") for name in MINIS),
        *((name, "openvino") for name in ("cox3d_mini", "coi3d_mini")),
    ],
)
def test_bfloat16_changes_probabilities_little(tmp_path, name, form):
    net, half = net_of(name), torch.bfloat16
    clip = frames_of(net.receptive_field + 40)
    if form == "openvino":
        export(net, tmp_path / "net.xml", FRAME, precision="bfloat16")
        twin = Runner(tmp_path / "net.xml", threads=1)
    else:
        twin = co3d.optimize(net, FRAME, half, threads=1)
        if twin.engine == "native":  # the first frames and the mean stay wide
            full = OptimizedStream(net, FRAME, engine="native").begin()
            assert state_bytes(twin.begin()) < 0.75 * state_bytes(full)
    decisive = 0
    for expected, given in zip(logits_of(net, clip)[0], logits_of(twin, clip)[0], strict=True):
        assert (given is None) == (expected is None)
        if expected is None:
            continue
        assert given.dtype == torch.float32
        assert (given.softmax(1) - expected.softmax(1)).abs().max() < 0.02
        best, second = expected[0].sort(descending=True).values[:2]
        if best - second > 0.05 * expected.abs().max():  # else rounding may turn them
            assert given.argmax() == expected.argmax()
            decisive += 1
    assert decisive


def test_a_clip_net_gives_the_same_logits():
    net = net_of("x3d_mini")
    clip = torch.randn(1, 3, 16, SIZE, SIZE)
    expected = net(clip)
    for dtype, tolerance in ((torch.float32, 3e-5), (torch.bfloat16, 0.1)):
        twin = co3d.optimize(net, clip, dtype)
        given = twin(clip)
        assert given.dtype == torch.float32
        assert (given - expected).abs().max() < tolerance * expected.abs().max()
    with pytest.raises(ValueError, match="for which the net was optimised"):
        twin(clip[:, :, 1:])
    with pytest.raises(TypeError, match="stays on cpu"):
        twin.double()


def optimised(net, engine="native", batch=1):
    return OptimizedStream(net, FRAME.expand(batch, -1, -1, -1), threads=1, engine=engine)


REFUSED = {
    "another frame": (lambda net, twin: twin.step(FRAME[:, :, 1:]), "for which the net was optim"),
    "another dtype": (lambda net, twin: twin.step(FRAME.double()), "for which the net was optim"),
    "no tensor": (lambda net, twin: twin.step([0]), "expected a frame as a tensor"),
    "a state of the net": (
        lambda net, twin: twin.step(FRAME, net.begin()),
        "expected a state from begin",
    ),
    "a state of two streams": (
        lambda net, twin: twin.step(FRAME, optimised(net, batch=2).begin()),
        "expected a state of .*1, 3, 40, 40.*2, 3, 40, 40",
    ),
    "a state taken apart": (
        lambda net, twin: optimised(net, batch=2).step(
            FRAME.expand(2, -1, -1, -1), co3d.unstack(optimised(net, batch=2).begin())[0]
        ),
        "expected a state of",
    ),
    "a state of another engine": (
        lambda net, twin: twin.step(FRAME, optimised(net, "torch").begin()),
        "of another engine",
    ),
    "states at two phases": (
        lambda net, twin: co3d.stack([logits_of(twin, frames_of(n))[1] for n in (60, 61)]),
        "phase",
    ),
    "the end of a clip": (
        lambda net, twin: twin.steps(FRAME.unsqueeze(2), end=True),
        "no padding behind",
    ),
    "fill": (lambda net, twin: twin.begin("replicate"), "fill 'zeros' and emit 'valid'"),
    "dtype": (lambda net, twin: co3d.optimize(net, FRAME, torch.float16), "expected dtype in"),
    "threads": (lambda net, twin: co3d.optimize(net, FRAME, threads=0), "1 or more threads"),
    "engine": (lambda net, twin: optimised(net, "fast"), "expected engine in"),
    "training": (lambda net, twin: co3d.optimize(net.train(), FRAME), r"use \.eval"),
    "a copy": (lambda net, twin: copy.deepcopy(twin), "neither copied nor pickled"),
    "parameters": (lambda net, twin: twin.parameters(), "has no parameters"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused(case):
    call, words = REFUSED[case]
    net = net_of("coi3d_mini")
    with pytest.raises((ValueError, TypeError, AttributeError), match=words):
        call(net, optimised(net))


def test_the_setting_chooses_torch(monkeypatch):
    monkeypatch.setenv("CO3D_ENGINE", "torch")
    assert co3d.optimize(net_of(), FRAME).engine == "torch"

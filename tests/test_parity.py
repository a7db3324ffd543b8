"""All forms of the step of all continual networks give the same logits: `pytest -m "" FILE`.

Frames are smaller than those of the networks, which changes no layer.
"""

import pytest
import torch
from nets import net_of

import co3d
from co3d.deploy import OptimizedStream, Runner, export
from co3d.deploy.native import Engine
from co3d.deploy.step import Explicit

SIZE = 64
FORMS = ("native", "native for AVX2", "torch", "onnxruntime", "openvino")
STREAMS = [name for name in co3d.list_models() if name.startswith("co")]


@pytest.mark.slow
@pytest.mark.parametrize("name", STREAMS)
def test_every_form_equals_the_net_over_warm_up_and_all_phases(tmp_path, name):
    net, frame = net_of(name, SIZE), torch.randn(1, 3, SIZE, SIZE)
    steps = [stepping(form, net, frame, tmp_path) for form in FORMS]
    worst, state = dict.fromkeys(FORMS, 0.0), None
    for number in range(net.warmup + 2 * net.stride):
        frame = torch.randn(1, 3, SIZE, SIZE)
        expected, state = net.step(frame, state)
        for form, step in zip(FORMS, steps, strict=True):
            logits = step(frame, number)
            if expected is None:
                assert logits is None, form
            else:
                difference = (logits - expected).abs().max() / expected.abs().max()
                worst[form] = max(worst[form], difference.item())
    print(name, *(f"{form} {difference:.1e}" for form, difference in worst.items()), sep="  ")
    deep = name == "cox3d_l"
    assert max(worst.values()) < (3e-4 if deep else 1e-4)


def stepping(form, net, frame, folder):
    """A function of a frame and its number, which keeps the state."""
    if form == "native for AVX2":
        engine = Engine(Explicit(net, frame), threads=2, target="-march=x86-64-v3")
        memory = engine.begin()

        def step(frame, number):
            logits, _ = engine.step(frame, number % net.stride, number, memory)
            return None if number < net.warmup else logits

        return step
    if form in ("native", "torch"):
        model = OptimizedStream(net, frame, threads=2, engine=form)
    else:
        path = folder / ("net.onnx" if form == "onnxruntime" else "net.xml")
        export(net, path, frame)
        model = Runner(path, threads=2)
    stream = co3d.Stream(model)
    return lambda frame, _: stream(frame)

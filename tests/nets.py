"""What tests of networks share: streams run to their end, made weights, all forms of a step."""

from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import torch
from torch import Tensor

import co3d
from co3d.deploy import OptimizedStream, Runner, export
from co3d.deploy.native import Engine
from co3d.deploy.step import Explicit
from co3d.measure.equivalence import calibrate
from co3d.nn import ClipNet
from co3d.zoo.checkpoints import Weights

SIZE = 40
STREAMS = [name for name in co3d.list_models() if name.startswith("co")]
MINIS = [name for name in STREAMS if name.endswith("_mini")]
ENGINES = ("native", "torch")
SUFFIXES = {"onnxruntime": ".onnx", "openvino": ".xml", "openvino of ONNX": ".onnx"}
FORMS = (*ENGINES, "onnxruntime", "openvino")


def clip_net(
    seed: int = 0, classes: int | None = None, name: str = "x3d_mini", **weights
) -> ClipNet:
    """A clip net with random, calibrated weights."""
    torch.manual_seed(seed)
    net = co3d.create(name, num_classes=classes)
    calibrate(net, torch.randn(4, 3, 16, 48, 48))
    net.weights = Weights("a test", f"{seed}" * 64, "nothing", "none", **weights)
    return net


def net_of(name: str = "cox3d_mini", size: int = SIZE, **options) -> ClipNet:
    """A net with random weights of seed 0, calibrated on frames of a size."""
    torch.manual_seed(0)
    net = co3d.create(name, **options)
    frames = max(net.spec.frames, net.window if net.spec.continual else 0)
    return calibrate(net, torch.randn(2, 3, frames, size, size))


def chunks(x: Tensor, lengths: list[int]) -> Iterator[Tensor]:
    """The clip in consecutive chunks; the lengths are used in turn."""
    at, turns = 0, cycle(lengths)
    while at < x.shape[2]:
        length = next(turns)
        yield x[:, :, at : at + length]
        at += length


def run(module, x: Tensor, lengths: list[int] = (1,), flush: bool = True, **begin) -> Tensor | None:
    """All outputs of a stream over the clip x, fed in chunks and flushed, joined in time."""
    state, outputs = module.begin(**begin), []
    for part in chunks(x, list(lengths)):
        y, state = module.steps(part, state)
        outputs.append(y)
    if flush:
        outputs.append(module.flush(state)[0])
    outputs = [y for y in outputs if y is not None]
    return torch.cat(outputs, 2) if outputs else None


def frames_of(count: int, batch: int = 1, size: int = SIZE) -> Tensor:
    """Frames (T, B, 3, H, W) of one seed."""
    return torch.randn(count, batch, 3, size, size, generator=torch.Generator().manual_seed(1))


def exported(net: ClipNet, example: Tensor, folder: Path, suffix: str) -> Path:
    """The file of a net in a folder, written if it is not there yet."""
    path = folder / f"{net.spec.name}{suffix}"
    if not path.exists():
        net.weights = Weights("a test", "0" * 64, "nothing", "none", scores="sigmoid")
        labels = [f"class {n} & <co>" for n in range(net.classifier.out_features)]
        export(net, path, example, labels=labels)
    return path


def form_of(form: str, net: ClipNet, frame: Tensor, folder: Path, threads: int = 1):
    """A form of the net's step: one of FORMS or SUFFIXES, or native for a target of the compiler.

    Exports are kept in the folder.
    """
    if form in SUFFIXES:
        path = exported(net, frame, folder, SUFFIXES[form])
        return Runner(path, form.split()[0], threads)
    if form in ENGINES:
        return OptimizedStream(net, frame, threads=threads, engine=form)
    twin = OptimizedStream(net, frame, threads=threads, engine="native")
    twin._backend = Engine(Explicit(net, frame), threads=threads, target=form)
    return twin


def logits_of(model, frames: Tensor, state=None) -> tuple[list[Tensor | None], dict]:
    """What a model gives for each frame of (T, B, C, H, W), and the state behind them."""
    outputs = []
    for frame in frames:
        logits, state = model.step(frame, state)
        outputs.append(logits)
    return outputs, state


def assert_same(given: list, expected: list, tolerance: float = 3e-5) -> None:
    """Logits of the same frames, which differ by a share of the largest of a frame at most."""
    assert [logits is None for logits in given] == [logits is None for logits in expected]
    pairs = [pair for pair in zip(given, expected, strict=True) if pair[0] is not None]
    assert pairs
    for logits, wanted in pairs:
        limit = tolerance * wanted.abs().max().item()
        torch.testing.assert_close(logits, wanted, rtol=0, atol=limit)

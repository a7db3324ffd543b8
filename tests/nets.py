"""What tests of networks share: chunks, streams run to their end, nets with made weights."""

import torch
from torch import Tensor

import co3d
from co3d.measure.equivalence import calibrate
from co3d.nn import ClipNet
from co3d.zoo.checkpoints import Weights


def clip_net(
    seed: int = 0, classes: int | None = None, name: str = "x3d_mini", **weights
) -> ClipNet:
    """A clip net with random, calibrated weights."""
    torch.manual_seed(seed)
    net = co3d.create(name, num_classes=classes)
    calibrate(net, torch.randn(4, 3, 16, 48, 48))
    net.weights = Weights("a test", f"{seed}" * 64, "nothing", "none", **weights)
    return net


def net_of(name: str = "cox3d_mini", size: int = 40, **options) -> ClipNet:
    """A net with random weights of seed 0, calibrated on frames of a size."""
    torch.manual_seed(0)
    net = co3d.create(name, **options)
    frames = max(net.spec.frames, net.window if net.spec.continual else 0)
    return calibrate(net, torch.randn(2, 3, frames, size, size))


def chunks(x: Tensor, lengths: list[int]) -> list[Tensor]:
    """The clip in consecutive chunks; the lengths are used in turn."""
    parts, at, n = [], 0, 0
    while at < x.shape[2]:
        parts.append(x[:, :, at : at + lengths[n % len(lengths)]])
        at, n = at + lengths[n % len(lengths)], n + 1
    return parts


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

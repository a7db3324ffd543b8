"""How far an exported net is from the net itself."""

import torch

from ..nn import ClipNet, StreamNet
from .runner import Runner

TOLERANCES = {"float32": 3e-4, "bfloat16": 0.1}  # of the largest logit


@torch.no_grad()
def difference(model: ClipNet, runner: Runner, seed: int = 0) -> float:
    """The largest difference of their logits on noise, divided by the largest logit.

    Of a continual net from the first frame over the warm-up to a few predictions, at all phases.

    Raises:
        ValueError: if they predict at other frames.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = runner.record.shape
    if not isinstance(model, StreamNet):
        clip = torch.randn(shape, generator=generator)
        return _relative(runner(clip), model(clip))
    one, other, worst = None, None, 0.0
    for number in range(model.warmup + 2 * model.stride):
        frame = torch.randn(shape, generator=generator)
        expected, one = model.step(frame, one)
        given, other = runner.step(frame, other)
        if (given is None) != (expected is None):
            raise ValueError(f"expected the predictions of {runner.record.model}, but at frame "
                             f"{number + 1} one net gives one and the other none")  # fmt: skip
        worst = worst if expected is None else max(worst, _relative(given, expected))
    return worst


def _relative(given: torch.Tensor, expected: torch.Tensor) -> float:
    return ((given - expected).abs().max() / expected.abs().max()).item()

"""What tests of networks share: chunks, calibrated normalisation, streams run to their end."""

import torch
from torch import Tensor, nn


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


def calibrate(model: nn.Module, clip: Tensor) -> nn.Module:
    """Random gamma and beta, and statistics from one training pass over the clip.

    With default initialisation logits are tiny and an equality test can hardly fail.
    """
    generator = torch.Generator().manual_seed(0)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm3d)]
    with torch.no_grad():
        for norm in norms:
            norm.weight.uniform_(0.5, 1.5, generator=generator)
            norm.bias.uniform_(-0.5, 0.5, generator=generator)
            norm.momentum = None
            norm.reset_running_stats()
        model.train()
        model(clip)
    for norm in norms:
        norm.momentum = 0.1
    return model.eval()

"""What tests of networks share: chunks, and streams run to their end."""

import torch
from torch import Tensor


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

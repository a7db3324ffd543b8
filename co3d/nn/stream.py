"""Streams, and what can be done with a state: fork it, stack several into a batch, measure it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .core import Continual, State, iter_tensors, map_tensors


class Stream:
    """Feeds frames to a continual module and keeps the state.

    Args:
        model: any continual module.
        fill, emit: as in `model.begin`.
    """

    def __init__(self, model: Continual, fill: str = "zeros", emit: str = "valid") -> None:
        self.model, self.fill, self.emit = model, fill, emit
        self.reset()

    def reset(self) -> None:
        """Forgets all frames."""
        self.state = self.model.begin(self.fill, self.emit)

    def __call__(self, frame: Tensor) -> Tensor | None:
        """One frame (B, C, H, W) in; logits (B, classes), or None while there are none."""
        y, self.state = self.model.step(frame, self.state)
        return y


def clone(state: State) -> State:
    """A copy that shares no memory with the original: the two streams go separate ways."""
    return map_tensors(Tensor.clone, state)


def stack(states: Sequence[State]) -> State:
    """One state of a batch of streams.

    Raises:
        ValueError: if the states are of other models, frame sizes or phases.
    """
    if not states:
        raise ValueError("expected at least one state, given none")
    batch = sum(state["frame"][0] for state in states if state["frame"] is not None)
    frames = [None if s["frame"] is None else (batch, *s["frame"][1:]) for s in states]
    return _stack([{**s, "frame": frame} for s, frame in zip(states, frames, strict=True)])


def _stack(values: Sequence[Any]) -> Any:
    first = values[0]
    kinds = {type(value) for value in values}
    if kinds <= {tuple, list} and len({len(value) for value in values}) == 1:
        return tuple(_stack(parts) for parts in zip(*values, strict=True))
    if all(isinstance(value, dict) and value.keys() == first.keys() for value in values):
        return {key: _stack([value[key] for value in values]) for key in first}
    if kinds == {Tensor} and len({(v.shape[1:], v.dtype, v.device) for v in values}) == 1:
        return torch.cat(list(values))
    if kinds & {tuple, list, dict, Tensor} or any(value != first for value in values):
        raise ValueError(
            "expected states of one model, frame size and phase (streams that have seen equally "
            "many frames modulo the stride, all in or all past their warm-up), given others"
        )
    return first


def unstack(state: State) -> list[State]:
    """The states of the single streams of a batch.

    Raises:
        ValueError: for a state that has seen no frame, and so has no batch.
    """
    if state["frame"] is None:
        raise ValueError("expected a state that has seen a frame, given a new one")

    batch, *size = state["frame"]
    return [
        {**map_tensors(lambda x, n=n: x[n : n + 1].clone(), state), "frame": (1, *size)}
        for n in range(batch)
    ]


def state_bytes(state: State) -> int:
    """Memory of the tensors that a state holds, in bytes."""
    return sum(x.nbytes for x in iter_tensors(state))

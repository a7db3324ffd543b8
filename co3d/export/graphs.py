"""The graphs of a net: one for each phase of a step, or one for a clip, and the facts of them."""

from typing import Any

import torch
from torch import Tensor, nn

from ..nn import ClipNet, StreamNet, fold
from ..nn.explicit import Explicit, Form
from .lowering import Graph, lowered
from .record import COUNTER, Phase


def step_graphs(
    net: StreamNet, frame: Tensor, form: Form, state: str
) -> tuple[list[Graph], dict[str, Any]]:
    """One graph for each phase, and the facts of a record that they decide.

    Raises:
        ValueError: for internal state of a net that does not have one phase alone.
    """
    explicit = Explicit(net, frame, form)
    if state == "internal":
        graphs, phases = [_internal(explicit, frame)], [Phase((), (), True)]
    else:
        phases = [Phase(one.reads, one.writes, one.emits) for one in explicit.phases]
        graphs = [_explicit(explicit, n, frame) for n in range(len(phases))]
    facts = {
        "kind": "step",
        "window": net.window,
        **{name: getattr(net, name) for name in ("receptive_field", "padding", "warmup", "stride")},
        "queues": tuple(explicit.queues.values()),
        "phases": tuple(phases),
    }
    return graphs, facts


def clip_graphs(net: ClipNet, clip: Tensor) -> tuple[list[Graph], dict[str, Any]]:
    """The graph of a clip net, and the facts of a record that it decides."""
    folded = fold(net)
    folded(clip)  # refuses what does not fit, in its own words
    facts = {"kind": "clip", "window": clip.shape[2], "receptive_field": clip.shape[2]}
    facts |= {"padding": 0, "warmup": 0, "stride": 1, "queues": ()}
    graph = lowered(folded, (clip,), ["clip"], ["logits"])
    return [graph], {**facts, "phases": (Phase((), (), True),)}


def _explicit(net: Explicit, phase: int, frame: Tensor) -> Graph:
    step = net.phases[phase]
    state = [torch.zeros(net.queues[name].shape) for name, _ in step.reads]
    inputs = ["frame", COUNTER, *(f"state.{name}@{depth}" for name, depth in step.reads)]
    outputs = [*(["logits"] if step.emits else []), *(f"state.{name}" for name in step.writes)]
    return lowered(step, (frame, torch.tensor(0), *state), inputs, outputs)


class _Whole(nn.Module):
    """A step that takes and gives all tensors of all queues, and counts its frames."""

    def __init__(self, net: Explicit) -> None:
        super().__init__()
        self.step = net.phases[0]
        self.places = [(q.name, n) for q in net.queues.values() for n in range(1, q.length + 1)]

    def forward(self, frame: Tensor, counter: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        held = dict(zip(self.places, state, strict=True))
        logits, *written = self.step(frame, counter, *(held[one] for one in self.step.reads))
        new = dict(zip(self.step.writes, written, strict=True))
        moved = [new[name] if n == 1 else held[name, n - 1] for name, n in self.places]
        return logits, counter + 1, *moved


def _internal(net: Explicit, frame: Tensor) -> Graph:
    if len(net.phases) > 1:
        raise ValueError(
            f"expected a net of one phase for internal state, given {len(net.phases)}: create it "
            "with dense=True, or export explicit state"
        )
    if any(queue.initial for queue in net.queues.values()):
        raise ValueError("expected internal state that begins with zeros, given a padded max-pool")
    whole = _Whole(net)
    state = [torch.zeros(net.queues[name].shape) for name, _ in whole.places]
    names = [COUNTER, *(f"state.{name}@{n}" for name, n in whole.places)]
    return lowered(
        *(whole, (frame, torch.zeros(()), *state)),
        *(["frame", *names], ["logits", *(f"next.{name}" for name in names)]),
    )

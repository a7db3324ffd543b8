"""The step of a net as functions of tensors, one for each phase of its strides."""

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

from ..fold import fold
from ..net import StreamNet
from .tape import PLAIN, Clock, Form, Queue, Tape
from .trees import lower


class Explicit(nn.Module):
    """The steps of a net at all its phases, over the same parameters.

    Args:
        net: a continual net in evaluation mode.
        frame: one for its shape (B, C, H, W), which is fixed.
        form: how the numbers are computed.

    Attributes:
        queues: the state, by name.
        phases: functions; frame n takes the one of phase n modulo their number.

    Raises:
        TypeError: for a net that is not continual, or a layer without a form on frames.
        ValueError: for a net in training mode, or a frame that does not fit.
    """

    def __init__(self, net: StreamNet, frame: Tensor, form: Form = PLAIN) -> None:
        super().__init__()
        if not isinstance(net, StreamNet):
            raise TypeError(f"expected a continual net, given {type(net).__name__}")
        net._check_input(net._as_chunk(frame))
        folded = fold(net)
        self.timing = net.timing
        self.body = lower(folded.body, Clock(), "", form)
        self.classifier = folded.classifier
        self.frame_shape, self.form = tuple(frame.shape), form
        self.made = {"dtype": frame.dtype, "device": frame.device}  # how tensors are made
        tape = Tape(None, form=form)
        self.dry_run(tape)
        self.queues: dict[str, Queue] = tape.queues
        self.phases = [Step(self, phase) for phase in range(self.timing.stride)]

    @torch.no_grad()
    def run(self, frame: Tensor, tape: Tape) -> Tensor | None:
        """Logits, or None where the phase has none."""
        y = self.body(frame, tape)
        return None if y is None else self.classifier(y.flatten(1))

    def dry_run(self, tape: Tape) -> Tensor | None:
        """As `run` on some frame, without any arithmetic."""
        with FakeTensorMode(allow_non_fake_inputs=True):
            return self.run(torch.zeros(self.frame_shape, **self.made), tape)

    @torch.no_grad()
    def begin(self) -> dict[str, tuple[Tensor, ...]]:
        """The tensors of every queue before the first frame, the last one put in first."""
        return {
            q.name: (torch.full(q.shape, q.initial, **self.made),) * q.length
            for q in self.queues.values()
        }

    @torch.no_grad()
    def step(self, frame: Tensor, number: int, state: dict) -> tuple[Tensor | None, dict]:
        """What a runner does: frame `number`, counted from 0; gives logits or None, and the state.

        For tests and as a model for other runners.
        """
        step = self.phases[number % len(self.phases)]
        read = [state[name][depth - 1] for name, depth in step.reads]
        outputs = list(step(frame, torch.tensor(number), *read))
        logits = outputs.pop(0) if step.emits else None
        state = dict(state)
        for name, x in zip(step.writes, outputs, strict=True):
            state[name] = (x, *state[name])[: self.queues[name].length]
        return logits, state


class Step(nn.Module):
    """The step of a net at frames of one phase.

    Attributes:
        reads: (queue, depth) of the tensors that it takes; depth 1 is the tensor put in last.
        writes: the queues that it puts a tensor into, in the order of its results.
        emits: whether logits are the first of its results; there are none at the other phases.
    """

    def __init__(self, net: Explicit, phase: int) -> None:
        super().__init__()
        self._net = (net,)  # no part of this one, but what it is made of is
        self.body, self.classifier, self.phase = net.body, net.classifier, phase
        state = _Noted(net)
        tape = Tape(phase, state, form=net.form)
        self.emits = net.dry_run(tape) is not None
        self.reads, self.writes = tuple(state), tuple(tape.written)

    def forward(self, frame: Tensor, counter: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        net = self._net[0]
        tensors = dict(zip(self.reads, state, strict=True))
        tape = Tape(self.phase, tensors, counter, net.form)
        logits = net.run(frame, tape)
        return (*((logits,) if self.emits else ()), *tape.written.values())


class _Noted(dict):
    """Made-up state of which all that is read is noted."""

    def __init__(self, net: Explicit) -> None:
        super().__init__()
        self.net = net

    def __missing__(self, key: tuple[str, int]) -> Tensor:
        self[key] = torch.zeros(self.net.queues[key[0]].shape, **self.net.made)
        return self[key]

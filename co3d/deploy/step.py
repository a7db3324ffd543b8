"""The explicit step: a continual net as a list of operations on single frames.

    [logits,] *written = phase(frame, counter, *read)

There is one such pure function for each phase of the temporal strides, in which only the operations
run that are due. Maps are (B, C, H, W) and vectors (B, C). All state lies in queues of tensors: a
runtime hands on pointers and copies nothing. The native engine, `torch.compile` and the exporters
take a net in this form.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ..nn.fold import fold
from ..nn.net import StreamNet
from .lowering import Operations, flatten, lower
from .operations import Map, Operation, Queue, Tape

State = dict[str, tuple[Tensor, ...]]


class Explicit(nn.Module):
    """The steps of a net at all its phases, over the same parameters.

    Args:
        net: a continual net in evaluation mode.
        frame: one for its shape (B, C, H, W), which is fixed.
        channels_last: whether maps lie in queues as (B, H, W, C).

    Attributes:
        operations: in the order in which they run.
        shapes: of each value; 0 is the frame, the last one the logits.
        queues: the state, by name.
        phases: functions; frame n takes the one of phase n modulo their number.

    Raises:
        TypeError: for a net that is not continual, or a layer without a form on frames.
        ValueError: for a net in training mode, or a frame that does not fit.
    """

    def __init__(self, net: StreamNet, frame: Tensor, channels_last: bool = False) -> None:
        super().__init__()
        if not isinstance(net, StreamNet):
            raise TypeError(f"expected a continual net, given {type(net).__name__}")
        net._check_input(net._as_chunk(frame))
        folded, operations = fold(net), Operations()
        vector = lower(folded.body, operations, 0, "")
        flat = operations.add(Map("flatten", vector, net.timing, flatten))
        operations.add(Map("classifier", flat, net.timing, folded.classifier))
        self.operations, self.timing = nn.ModuleList(operations.list), net.timing
        self.frame_shape, self.channels_last = tuple(frame.shape), channels_last
        self.made = {"dtype": frame.dtype, "device": frame.device}  # how tensors are made
        shapes = _Shapes(self)
        tape = Tape(None, channels_last=channels_last)
        self.shapes = [tuple(value.shape) for value in shapes.run(tape)]
        self.queues: dict[str, Queue] = tape.queues
        self.phases = [Phase(self, phase, shapes) for phase in range(self.timing.stride)]

    @torch.no_grad()
    def begin(self) -> State:
        """The tensors of every queue before the first frame, the one put in last first."""
        return {
            queue.name: tuple(
                torch.full(queue.shape, queue.initial, **self.made) for _ in range(queue.length)
            )
            for queue in self.queues.values()
        }

    @torch.no_grad()
    def step(self, frame: Tensor, number: int, state: State) -> tuple[Tensor | None, State]:
        """Feeds frame `number`, counted from 0; gives logits or None, and the next state."""
        phase = self.phases[number % len(self.phases)]
        read = [state[name][depth - 1] for name, depth in phase.reads]
        outputs = list(phase(frame, torch.tensor(number, device=frame.device), *read))
        logits = outputs.pop(0) if phase.emits else None
        state = dict(state)
        for name, x in zip(phase.writes, outputs, strict=True):
            state[name] = (x, *state[name])[: self.queues[name].length]
        return logits, state


class Phase(nn.Module):
    """The step of a net at the frames of one phase, a pure function.

    Attributes:
        reads: (queue, depth) of the tensors that it takes; depth 1 is the tensor put in last.
        writes: the queues that it puts a tensor into, in the order of its results.
        emits: whether logits are the first of its results; at other phases there are none.
    """

    def __init__(self, net: Explicit, phase: int, shapes: "_Shapes") -> None:
        super().__init__()
        self.operations, self.phase, self.channels_last = net.operations, phase, net.channels_last
        shapes.clear()
        tape = Tape(phase, shapes, channels_last=net.channels_last)
        self.emits = shapes.run(tape)[-1] is not None
        self.reads, self.writes = tuple(shapes), tuple(tape.written)

    @torch.no_grad()
    def forward(self, frame: Tensor, counter: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        tensors = dict(zip(self.reads, state, strict=True))
        tape = Tape(self.phase, tensors, counter, self.channels_last)
        logits = run(self.operations, frame, tape)[-1]
        return (*((logits,) if self.emits else ()), *tape.written.values())


def run(operations: Iterable[Operation], frame: Tensor, tape: Tape) -> list[Tensor | None]:
    """All values; the last one is the logits, or None where the phase has none."""
    values: list[Tensor | None] = [frame]
    for operation in operations:
        values.append(operation(tape, *(values[source] for source in operation.sources)))
    return values


class _Shapes(dict):
    """Runs a net on zeros; as a state it makes up and records all that is read of it."""

    def __init__(self, net: Explicit) -> None:
        super().__init__()
        self.net = net

    @torch.no_grad()
    def run(self, tape: Tape) -> list[Tensor | None]:
        """All values."""
        frame = torch.zeros(self.net.frame_shape, **self.net.made)
        return run(self.net.operations, frame, tape)

    def __missing__(self, key: tuple[str, int]) -> Tensor:
        self[key] = torch.zeros(self.net.queues[key[0]].shape, **self.net.made)
        return self[key]

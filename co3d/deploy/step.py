"""The explicit step: a continual net as a list of operations on single frames.

    [logits,] *written = phase(frame, counter, *read)

There is one such pure function for each phase of the temporal strides, in which only the operations
run that are due. Maps are (B, C, H, W) and vectors (B, C). All state lies in queues of tensors: a
runtime hands on pointers and copies nothing. The native engine, `torch.compile` and the exporters
take a net in this form.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..nn.blocks import Node, SqueezeExcite, Tree
from ..nn.blocks import run as run_tree
from ..nn.conv import Conv3d
from ..nn.core import Timing, map_tensors
from ..nn.fold import fold
from ..nn.net import StreamNet
from ..nn.pointwise import Dropout, Flatten, Identity, Pointwise
from ..nn.pool import AvgPool3d, MaxPool3d, RunningWindow
from ..nn.temporal import Delay, Subsample
from .operations import (
    Convolution,
    Gate,
    Join,
    Map,
    Mean,
    Operation,
    Pick,
    Pooling,
    Queue,
    SummingConvolution,
    Tape,
)

State = dict[str, tuple[Tensor, ...]]
FORMS = {
    MaxPool3d: Pooling,
    AvgPool3d: Pooling,
    RunningWindow: Mean,
    Subsample: Pick,
    Delay: Pick,
    SqueezeExcite: Gate,
}


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
        folded, self.operations = fold(net), nn.ModuleList()
        vector = lower(folded.body, self.operations, 0, "")
        vector = lower(Flatten(), self.operations, vector, "flatten")
        lower(folded.classifier, self.operations, vector, "classifier")
        self.timing, self.channels_last = net.timing, channels_last
        self.frame_shape = tuple(frame.shape)
        self.made = {"dtype": frame.dtype, "device": frame.device}  # how tensors are made
        self.queues: dict[str, Queue] = {}
        self.shapes = [tuple(value.shape) for value in self._trace(None)[0]]
        self.phases = [Phase(self, phase) for phase in range(self.timing.stride)]

    @torch.no_grad()
    def _trace(self, phase: int | None) -> tuple[list[Tensor | None], Tape]:
        """All values on zeros, and what is read and written."""
        tape = Tape(phase, self.queues, self.channels_last)
        return run(self.operations, torch.zeros(self.frame_shape, **self.made), tape), tape

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
        outputs = phase(frame, torch.tensor(number, device=frame.device), *read)
        # Copies: an output may be the frame of the caller, or memory of a CUDA graph, and what is
        # compiled for contiguous tensors would be compiled anew for others.
        outputs = [x.clone(memory_format=torch.contiguous_format) for x in outputs]
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

    def __init__(self, net: Explicit, phase: int) -> None:
        super().__init__()
        self.operations, self.queues = net.operations, net.queues
        self.phase, self.channels_last = phase, net.channels_last
        values, tape = net._trace(phase)
        self.emits = values[-1] is not None
        self.reads, self.writes = tuple(tape.reads), tuple(tape.written)

    @torch.no_grad()
    def forward(self, frame: Tensor, counter: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        tensors = dict(zip(self.reads, state, strict=True))
        tape = Tape(self.phase, self.queues, self.channels_last, tensors, counter)
        logits = run(self.operations, frame, tape)[-1]
        return (*((logits,) if self.emits else ()), *tape.written.values())


def kinds(state: Any) -> Any:
    """A state with what each tensor is like in its place: shape, dtype, device and contiguity."""
    return map_tensors(lambda x: (tuple(x.shape), x.dtype, x.device.type, x.is_contiguous()), state)


def run(operations: Iterable[Operation], frame: Tensor, tape: Tape) -> list[Tensor | None]:
    """All values; the last one is the logits, or None where the phase has none."""
    values: list[Tensor | None] = [frame]
    for operation in operations:
        values.append(operation(tape, *(values[source] for source in operation.sources)))
    return values


def lower(layer: nn.Module, operations: nn.ModuleList, source: int, name: str) -> int:
    """Appends the operations of a layer on a value; returns the number of the result.

    Raises:
        TypeError: for a layer without a form on frames.
    """
    if isinstance(layer, Tree):
        return _lower_tree(layer, operations, source, name)
    if isinstance(layer, Identity | Dropout):
        return source
    if isinstance(layer, Conv3d):
        kernel, _, _, stride = layer._time
        sums = kernel > 1 and stride == 1 and layer._keeps_sums
        kind = SummingConvolution if sums else Convolution
    elif isinstance(layer, Pointwise):
        kind = Map
    elif type(layer) in FORMS:
        kind = FORMS[type(layer)]
    else:
        kind = type(layer).__name__
        raise TypeError(f"expected layers with a form on frames, given {kind} {name}")
    operations.append(kind(name, source, _timing(operations, source), layer))
    return len(operations)


def _lower_tree(tree: Tree, operations: nn.ModuleList, source: int, name: str) -> int:
    def lower_node(node: Node, *sources: int) -> int:
        where = f"{name}.{node.name}".lstrip(".")
        if node.part is not None:
            return lower(node.part, operations, sources[0], where)
        timings = [_timing(operations, source) for source in sources]
        operations.append(Join(where, sources, timings, node.join == "cat"))
        return len(operations)

    return run_tree(tree.nodes, source, lower_node)


def _timing(operations: nn.ModuleList, value: int) -> Timing:
    """When a value comes."""
    return operations[value - 1].timing if value else Timing()

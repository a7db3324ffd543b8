"""What runs the steps of an optimised net: the native engine, or torch."""

import copy
import time
from typing import Any

import torch
from torch import Tensor, nn

from .native import Engine
from .step import Explicit

TRIAL = 0.05  # seconds of steps by which a number of threads is chosen


class Native:
    """The native engine, as `OptimizedStream` uses it."""

    name = "native"

    def __init__(self, explicit: Explicit, half: bool, threads: int | None) -> None:
        self.net = engine = Engine(explicit, half, threads or torch.get_num_threads())
        self.begin = engine.begin
        if threads is None and engine.threads > 1:
            engine.threads = min((1, engine.threads), key=lambda n: _seconds(engine, explicit, n))
        self.threads = engine.threads
        self.kinds = {name: (x.shape, x.dtype, x.device) for name, x in engine.begin().items()}

    def fits(self, layers: Any) -> bool:
        """Whether tensors are the memory of streams of this engine."""
        return (
            isinstance(layers, dict)
            and layers.keys() == self.kinds.keys()
            and all(
                (x.shape, x.dtype, x.device) == self.kinds[name] and x.is_contiguous()
                for name, x in layers.items()
            )
        )

    def step(self, frame: Tensor, phase: int, age: int, layers: Any) -> tuple[Tensor | None, Any]:
        """Changes the memory in place."""
        return self.net.step(frame, phase, age, layers), layers


def _seconds(engine: Engine, explicit: Explicit, threads: int) -> float:
    """Of the fastest period with so many threads."""
    frame, memory, best = torch.zeros(explicit.frame_shape), engine.begin(), float("inf")
    engine.threads, period, number = threads, len(explicit.phases), 0
    end = time.perf_counter() + TRIAL
    while number < 2 or time.perf_counter() < end:
        begun = time.perf_counter()
        for phase in range(period):
            engine.step(frame, phase, number * period + phase, memory)
        best, number = min(best, time.perf_counter() - begun), number + 1
    return best


class Torch:
    """The explicit step in torch; on a GPU compiled into CUDA graphs."""

    name = "torch"

    def __init__(self, explicit: Explicit, dtype: torch.dtype, threads: int | None) -> None:
        self.net = copy.deepcopy(explicit).to(dtype)
        self.net.made["dtype"] = dtype
        self.dtype, self.threads = dtype, threads or torch.get_num_threads()
        for weight in self.net.parameters():
            weight.requires_grad_(False)
            if weight.ndim == 4:
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        self.phases = self.net.phases
        self.device = explicit.made["device"]
        if self.device.type == "cuda":
            self.phases = compiled(self.phases)

    def begin(self) -> dict[str, tuple[Tensor, ...]]:
        """The tensors of all queues."""
        return self.net.begin()

    def fits(self, layers: Any) -> bool:
        """Whether tensors are those of all queues."""
        queues = self.net.queues
        return isinstance(layers, dict) and layers.keys() == queues.keys() and all(
            len(tensors) == queues[name].length
            and all((x.shape, x.dtype, x.device.type)
                    == (queues[name].shape, self.dtype, self.device.type) for x in tensors)
            for name, tensors in layers.items()
        )  # fmt: skip

    @torch.no_grad()
    def step(self, frame: Tensor, phase: int, age: int, layers: Any) -> tuple[Tensor | None, Any]:
        """What is put into a queue takes the memory of the oldest, so that none is allocated."""
        step = self.net.phases[phase]
        read = [layers[name][depth - 1] for name, depth in step.reads]
        counter = torch.tensor(age, device=self.device)
        outputs = list(self.phases[phase](frame.to(self.dtype), counter, *read))
        logits = outputs.pop(0).to(frame.dtype, copy=True) if step.emits else None
        oldest = [layers[name][-1] for name in step.writes]
        if oldest:
            replaced = {x.data_ptr() for x in oldest}  # what is handed on may lie there
            kept = [x.clone() if x.data_ptr() in replaced else x for x in outputs]
            with torch.inference_mode():  # in which the stream may have begun
                torch._foreach_copy_(oldest, kept)
        layers = dict(layers)
        for name, x in zip(step.writes, oldest, strict=True):
            layers[name] = (x, *layers[name][:-1])
        return logits, layers


def compiled(phases: list[nn.Module], **options: Any) -> list[Any]:
    """The phases of a step, compiled by torch.

    Args:
        options: of `torch.compile` (default: CUDA graphs).
    """
    options = options or {"mode": "reduce-overhead"}
    return [torch.compile(phase, fullgraph=True, dynamic=False, **options) for phase in phases]

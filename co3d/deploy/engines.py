"""What runs the steps of an optimised net: the native engine, or torch."""

import copy
import time
from typing import Any

import torch
from torch import Tensor

from ..nn.core import map_tensors
from .native import Engine
from .step import Explicit

TRIAL = 0.05  # seconds of steps by which a number of threads is chosen


def kind(x: Tensor) -> tuple:
    """What a tensor of a state is like."""
    return tuple(x.shape), x.dtype, x.device.type


class Native:
    """The native engine, as `OptimizedStream` uses it."""

    name = "native"

    def __init__(self, explicit: Explicit, half: bool, threads: int | None) -> None:
        self.net = engine = Engine(explicit, half, threads or torch.get_num_threads())
        self.begin = engine.begin
        if threads is None and engine.threads > 1:
            engine.threads = min((1, engine.threads), key=lambda n: _seconds(engine, explicit, n))
        self.threads = engine.threads
        self.kinds = map_tensors(kind, engine.begin())

    def fits(self, layers: Any) -> bool:
        """Whether tensors are the memory of streams of this engine."""
        return map_tensors(kind, layers) == self.kinds and all(
            x.is_contiguous() for x in layers.values()
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
        self.net = copy.deepcopy(explicit).to(dtype).requires_grad_(False)
        self.net.made["dtype"] = self.dtype = dtype
        self.threads, self.begin = threads or torch.get_num_threads(), self.net.begin
        for weight in self.net.parameters():
            if weight.ndim == 4:
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        if explicit.made["device"].type == "cuda":
            self.compile(mode="reduce-overhead")
        self.kinds = map_tensors(kind, self.begin())

    def compile(self, **options: Any) -> None:
        """Compiles the functions of all phases, by options of `torch.compile`."""
        self.net.phases = [
            torch.compile(phase, fullgraph=True, dynamic=False, **options)
            for phase in self.net.phases
        ]

    def fits(self, layers: Any) -> bool:
        """Whether tensors are those of all queues."""
        return map_tensors(kind, layers) == self.kinds

    def step(self, frame: Tensor, phase: int, age: int, layers: Any) -> tuple[Tensor | None, Any]:
        """Gives new tensors, and leaves the old ones."""
        logits, layers = self.net.step(frame.to(self.dtype), age, layers)
        return (None if logits is None else logits.to(frame.dtype)), layers

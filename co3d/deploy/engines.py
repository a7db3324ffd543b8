"""The explicit step in torch, for where the native engine cannot run."""

import copy
from typing import Any

import torch
from torch import Tensor

from .step import Explicit, State, kinds


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
        self.kinds = kinds(self.begin())

    def compile(self, **options: Any) -> None:
        """Compiles the functions of all phases, by options of `torch.compile`."""
        self.net.phases = [
            torch.compile(phase, fullgraph=True, dynamic=False, **options)
            for phase in self.net.phases
        ]

    def step(
        self, frame: Tensor, phase: int, age: int, layers: State
    ) -> tuple[Tensor | None, State]:
        """Gives new tensors, and leaves the old ones."""
        logits, layers = self.net.step(frame.to(self.dtype), age, layers)
        return (None if logits is None else logits.to(frame.dtype)), layers

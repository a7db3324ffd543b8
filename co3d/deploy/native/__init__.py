"""The native engine: whole steps in one call, from one C++ file that is compiled at first use."""

import ctypes
import weakref

import numpy as np
import torch
from torch import Tensor

from ..step import Explicit
from .library import NoCompiler, library
from .program import Compiler, Lanes, Unsupported

__all__ = ["Engine", "NoCompiler", "Unsupported"]

Memory = dict[str, Tensor]


class Engine:
    """An explicit step, compiled for the CPU at hand.

    Args:
        explicit: the step, in float32.
        half: whether it computes in bfloat16.
        threads: that share the work of a step.
        target: flags for the compiler in the place of those for this CPU.

    Raises:
        Unsupported: for a layer that the engine cannot run, or bfloat16 on a CPU without dot
            products for it.
        NoCompiler, PermissionError: if the engine cannot be built here.
    """

    def __init__(
        self, explicit: Explicit, half: bool = False, threads: int = 1, target: str = ""
    ) -> None:
        self._library = library(target)
        if half and not self._library.co3d_bfloat16():
            raise Unsupported("the native engine needs a CPU with AVX512-BF16 for bfloat16")
        lanes = Lanes(self._library.co3d_lanes(), self._library.co3d_max_vectors())
        compiler = Compiler(explicit, lanes, half)
        program = compiler.compile()
        self.batch, self.threads = explicit.frame_shape[0], threads
        self.classes = explicit.shapes[-1][1]
        self.columns = -(-self.classes // lanes.lanes) * lanes.lanes
        self.rings, self.state_bytes = list(program.rings.values()), program.state_bytes
        self.initial = {
            ring.number: explicit.queues[name].initial for name, ring in program.rings.items()
        }
        self.emits = [phase.emits for phase in explicit.phases]
        words = [
            np.array([i.words() for i in part], np.int64).reshape(len(part), -1)
            for part in program.instructions
        ]
        if words[0].shape[1] != self._library.co3d_instruction_words():
            raise RuntimeError("the engine and its program are of different versions")
        puts = [np.array(part, np.int32) for part in program.puts]
        counts = np.array([[len(w), len(p)] for w, p in zip(words, puts, strict=True)], np.int64)
        rings = [[ring.offset, ring.slots, ring.layout.bytes] for ring in self.rings]
        # The engine copies all but the weights.
        self._weights = (
            _aligned_copy(program.packed, np.uint8),
            _aligned_copy(program.floats, np.float32),
        )
        arrays = (
            np.concatenate(words),
            np.concatenate(puts),
            counts,
            np.array(program.taps, np.int64),
            np.array(rings, np.int64).reshape(-1, 3),
            compiler.write_tables(),
        )
        instructions, puts, counts, taps, rings, rows = arrays
        self._handle = self._library.co3d_create(
            *(_address(instructions), _address(puts), _address(counts), len(words)),
            *(_address(taps), len(taps), _address(rings), len(rings), _address(rows), len(rows)),
            *(_address(self._weights[0]), _address(self._weights[1]), self.batch),
            *(program.state_bytes, program.scratch_bytes),
            *(-(-program.gate_floats // 16) * 16, threads),
        )
        weakref.finalize(self, self._library.co3d_destroy, self._handle)

    def begin(self) -> Memory:
        """The memory of new streams: `rings` (B, bytes), and `heads` (B, rings), the slot of each
        ring that was written last."""
        memory = torch.empty(self.batch, self.state_bytes, dtype=torch.uint8)
        self._library.co3d_advise(memory.data_ptr(), memory.numel())
        memory.zero_()
        for ring in self.rings:
            if self.initial[ring.number]:
                slots = self._slots(memory, ring)
                kind = torch.bfloat16 if ring.layout.half else torch.float32
                slots.view(kind).fill_(self.initial[ring.number])
        heads = torch.zeros(self.batch, len(self.rings), dtype=torch.int32)
        return {"rings": memory, "heads": heads}

    def step(self, frame: Tensor, phase: int, age: int, memory: Memory) -> Tensor | None:
        """Feeds a frame (B, C, H, W) in float32; changes the memory. Logits, or None."""
        logits = torch.empty(self.batch, self.columns)
        frame, rings, heads = frame.contiguous(), memory["rings"], memory["heads"]
        pointers = frame.data_ptr(), rings.data_ptr(), heads.data_ptr(), logits.data_ptr()
        status = self._library.co3d_step(self._handle, *pointers, phase, age)
        if status == 1:  # streams that were stacked
            self._align(rings, heads)
            status = self._library.co3d_step(self._handle, *pointers, phase, age)
        if status:
            raise MemoryError("there is no memory for a step of the native engine")
        return logits[:, : self.classes] if self.emits[phase] else None

    def _slots(self, memory: Tensor, ring) -> Tensor:
        size = ring.layout.bytes
        part = memory[:, ring.offset : ring.offset + ring.slots * size]
        return part.view(len(memory), ring.slots, size)

    def _align(self, memory: Tensor, heads: Tensor) -> None:
        """Turns the rings of all streams until their heads are those of the first."""
        for ring in self.rings:
            for stream in range(1, self.batch):
                turn = int(heads[0, ring.number] - heads[stream, ring.number])
                slots = self._slots(memory, ring)[stream]
                slots.copy_(slots.roll(turn, 0))
        heads.copy_(heads[:1].expand_as(heads).clone())


def _address(array: np.ndarray) -> int:
    return array.ctypes.data


def _aligned_copy(parts: list[np.ndarray], kind: type) -> np.ndarray:
    """All parts behind one another, from an address that is a multiple of a cache line on."""
    count = sum(len(part) for part in parts)
    room = np.empty(count * kind().itemsize + 64, np.uint8)
    start = -room.ctypes.data % 64
    array = room[start : start + count * kind().itemsize].view(kind)
    return np.concatenate(parts, out=array) if parts else array

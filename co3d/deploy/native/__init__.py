"""The native engine: whole steps in one call, from one C++ file that is compiled at first use."""

import ctypes
import weakref
from collections.abc import Callable

import torch
from torch import Tensor

from ..step import Explicit
from .kinds import Unsupported
from .layout import (
    HUGE_PAGE,
    Instruction,
    Lanes,
    PhaseWords,
    ProgramWords,
    Ring,
    RingWords,
    Tap,
    aligned,
    array,
)
from .library import NoCompiler, load
from .program import Compiler

__all__ = ["Engine", "NoCompiler", "Unsupported"]

Memory = dict[str, Tensor]


class Engine:
    """An explicit step, compiled for the CPU at hand.

    Args:
        explicit: the step, in float32.
        half: whether it computes in bfloat16.
        threads: that share the work of a step at most; `Engine.threads` may be set to 1.
        target: flags for the C++ compiler in the place of those for this CPU.

    Raises:
        Unsupported: for a layer that the engine cannot run, or bfloat16 on a CPU without dot
            products for it.
        NoCompiler, PermissionError: if the engine cannot be built here.
    """

    def __init__(
        self, explicit: Explicit, half: bool = False, threads: int = 1, target: str = ""
    ) -> None:
        self._library = load(target)
        if half and not self._library.co3d_bfloat16():
            raise Unsupported("the native engine needs a CPU with AVX512-BF16 for bfloat16")
        lanes = Lanes(self._library.co3d_lanes(), self._library.co3d_max_vectors())
        if self._library.co3d_instruction_bytes() != ctypes.sizeof(Instruction):
            raise RuntimeError("the engine and layout.py know other instructions")
        net = Compiler(explicit, lanes, half)
        self.batch, self.threads = net.batch, threads
        self.classes = explicit.shapes[-1][1]
        self.columns = lanes.whole(self.classes)
        self.groups, self.state_bytes, self.table = net.groups, net.state_bytes, net.table_length
        self.emits = [phase.emits for phase in explicit.phases]
        self._program = words_of(net, threads, self._empty)
        self._handle = self._library.co3d_create(ctypes.byref(self._program))
        weakref.finalize(self, self._library.co3d_destroy, self._handle)

    def begin(self) -> Memory:
        """The memory of new streams: `rings` (B, bytes), and `slots` (B, entries), a table that
        says what lies in which slot."""
        memory = self._empty(self.batch * self.state_bytes).view(self.batch, -1).zero_()
        for rings in self.groups:
            if rings[0].initial:
                kind = torch.bfloat16 if rings[0].layout.half else torch.float32
                self._memory_of(memory, rings).view(kind).fill_(rings[0].initial)
        return {
            "rings": memory,
            "slots": first_slots(self.groups, self.table).repeat(self.batch, 1),
        }

    def step(self, frame: Tensor, phase: int, age: int, memory: Memory) -> Tensor | None:
        """Feeds a frame (B, C, H, W) in float32, and changes the memory.

        Args:
            phase: of the frame.
            age: frames before it; past all start-ups any number will do.

        Returns:
            Logits (B, classes), or None at a phase that gives none.
        """
        logits = torch.empty(self.batch, self.columns)
        frame, rings, slots = frame.contiguous(), memory["rings"], memory["slots"]
        pointers = frame.data_ptr(), rings.data_ptr(), slots.data_ptr(), logits.data_ptr()
        numbers = phase, age, self.threads
        status = self._library.co3d_step(self._handle, *pointers, *numbers)
        if status == 1:  # streams that were stacked
            self._align(rings, slots)
            status = self._library.co3d_step(self._handle, *pointers, *numbers)
        if status:
            raise MemoryError("there is no memory for a step of the native engine")
        if not self.emits[phase]:
            return None
        return logits if self.columns == self.classes else logits[:, : self.classes]

    def _empty(self, count: int) -> Tensor:
        """Bytes in large pages, as far as the system has them."""
        memory = torch.empty(count, dtype=torch.uint8)
        self._library.co3d_advise(memory.data_ptr(), count)
        return memory

    def _memory_of(self, memory: Tensor, rings: list[Ring]) -> Tensor:
        """(B, slots, bytes) of a group of rings."""
        count = sum(ring.length for ring in rings) + (rings[0].spare >= 0)
        offset, size = rings[0].offset, rings[0].layout.bytes
        return memory[:, offset : offset + count * size].unflatten(1, (count, size))

    @torch.inference_mode()  # in which the streams may have begun
    def _align(self, memory: Tensor, slots: Tensor) -> None:
        """Moves what all streams hold into the slots of the first one."""
        for rings in self.groups:
            group = self._memory_of(memory, rings)
            entries = [n for r in rings for n in range(r.table, r.table + r.length)]
            for stream in range(1, self.batch):
                moved = group[stream][slots[stream, entries]]
                group[stream][slots[0, entries]] = moved
        slots[1:] = slots[0].clone()


def first_slots(groups: list[list[Ring]], length: int) -> Tensor:
    """The table of slots of a new stream."""
    slots = torch.zeros(length, dtype=torch.int32)
    for rings in groups:
        number = 0
        for ring in rings:
            entries = torch.arange(number, number + ring.length)
            slots[ring.table : ring.table + ring.length] = entries
            number += ring.length
        if rings[0].spare >= 0:
            slots[rings[0].spare] = number
    return slots


def words_of(net: Compiler, threads: int, empty: Callable[[int], Tensor]) -> ProgramWords:
    """A program as the engine reads it; it keeps the tensors to which it points.

    Args:
        empty: gives so many bytes.
    """
    phases = [
        PhaseWords(array(Instruction, part), len(part), array(ctypes.c_int32, puts), len(puts))
        for part, puts in zip(net.phases, net.puts, strict=True)
    ]
    rings = [
        RingWords(r.offset, r.layout.bytes, r.table, r.length, r.spare) for r in net.rings.values()
    ]
    parts = [data for _, data in net.packed.values()]
    packed = torch.cat(parts, out=empty(sum(map(len, parts)))) if parts else empty(0)
    rows = net.rows()
    floats = torch.cat([x for _, x in net.floats.values()]) if net.floats else torch.zeros(0)
    words = ProgramWords(
        phases=array(PhaseWords, phases),
        longest=max(map(len, net.phases)),
        taps=array(Tap, net.taps),
        rings=array(RingWords, rings),
        table=net.table_length,
        rows=rows.data_ptr(),
        packed=packed.data_ptr(),
        floats=floats.data_ptr(),
        batch=net.batch,
        state_bytes=net.state_bytes,
        threads=threads,
        scratch_bytes=aligned(net.scratch_bytes + 4 * net.gate_floats * threads, HUGE_PAGE),
        gates_begin=net.scratch_bytes,
        gate_bytes=4 * net.gate_floats,
    )
    words.kept = phases, rows, packed, floats
    return words

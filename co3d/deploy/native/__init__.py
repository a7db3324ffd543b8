"""The native engine: whole steps in one call, from one C++ file that is compiled at first use."""

import ctypes
import weakref

import torch
from torch import Tensor

from ..step import Explicit
from .kinds import Unsupported
from .layout import Instruction, Lanes, ProgramWords, Ring, RingWords, Tap
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
        self.rings, self.state_bytes = list(net.rings.values()), net.state_bytes
        self.emits = [phase.emits for phase in explicit.phases]
        self._program = words_of(net, threads)
        self._handle = self._library.co3d_create(ctypes.byref(self._program))
        weakref.finalize(self, self._library.co3d_destroy, self._handle)

    def begin(self) -> Memory:
        """The memory of new streams: `rings` (B, bytes), and `heads` (B, rings), the slot of each
        ring that was written last."""
        memory = torch.empty(self.batch, self.state_bytes, dtype=torch.uint8)
        self._library.co3d_advise(memory.data_ptr(), memory.numel())
        memory.zero_()
        for ring in self.rings:
            if ring.initial:
                kind = torch.bfloat16 if ring.layout.half else torch.float32
                self._slots(memory, ring).view(kind).fill_(ring.initial)
        heads = torch.zeros(self.batch, len(self.rings), dtype=torch.int32)
        return {"rings": memory, "heads": heads}

    def step(self, frame: Tensor, phase: int, age: int, memory: Memory) -> Tensor | None:
        """Feeds a frame (B, C, H, W) in float32, and changes the memory.

        Args:
            phase: of the frame.
            age: frames before it; past all start-ups any number will do.

        Returns:
            Logits (B, classes), or None at a phase that gives none.
        """
        logits = torch.empty(self.batch, self.columns)
        frame, rings, heads = frame.contiguous(), memory["rings"], memory["heads"]
        pointers = frame.data_ptr(), rings.data_ptr(), heads.data_ptr(), logits.data_ptr()
        numbers = phase, age, self.threads
        status = self._library.co3d_step(self._handle, *pointers, *numbers)
        if status == 1:  # streams that were stacked
            self._align(rings, heads)
            status = self._library.co3d_step(self._handle, *pointers, *numbers)
        if status:
            raise MemoryError("there is no memory for a step of the native engine")
        return logits[:, : self.classes] if self.emits[phase] else None

    def _slots(self, memory: Tensor, ring: Ring) -> Tensor:
        """(B, slots, bytes) of a ring."""
        part = memory[:, ring.offset : ring.offset + ring.slots * ring.layout.bytes]
        return part.unflatten(1, (ring.slots, ring.layout.bytes))

    def _align(self, memory: Tensor, heads: Tensor) -> None:
        """Turns the rings of all streams until their heads are those of the first."""
        for ring in self.rings:
            slots = self._slots(memory, ring)
            for stream in range(1, self.batch):
                turn = int(heads[0, ring.number] - heads[stream, ring.number])
                slots[stream] = slots[stream].roll(turn, 0)
        heads[1:] = heads[0].clone()


def words_of(net: Compiler, threads: int) -> ProgramWords:
    """A program as the engine reads it; it keeps the tensors to which it points."""
    phases = [instruction for phase in net.phases for instruction in phase]
    puts = [ring for phase in net.puts for ring in phase]
    counts = [len(part) for pair in zip(net.phases, net.puts, strict=True) for part in pair]
    rings = [RingWords(r.offset, r.slots, r.layout.bytes) for r in net.rings.values()]
    rows, packed, floats = net.rows(), _joined(net.packed), _joined(net.floats)
    words = ProgramWords(
        instructions=(Instruction * len(phases))(*phases),
        puts=(ctypes.c_int32 * len(puts))(*puts),
        counts=(ctypes.c_int64 * len(counts))(*counts),
        phases=len(net.phases),
        taps=(Tap * len(net.taps))(*net.taps),
        rings=(RingWords * len(rings))(*rings),
        ring_count=len(rings),
        rows=rows.data_ptr(),
        packed=packed.data_ptr(),
        floats=floats.data_ptr(),
        batch=net.batch,
        state_bytes=net.state_bytes,
        scratch_bytes=net.scratch_bytes,
        gate_floats=net.gate_floats,
        threads=threads,
    )
    words.tensors = rows, packed, floats
    return words


def _joined(parts: dict[object, tuple[int, Tensor]]) -> Tensor:
    return torch.cat([x for _, x in parts.values()]) if parts else torch.zeros(0)

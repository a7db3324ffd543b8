"""The native engine: whole steps in one call, from one C++ file that is compiled at first use."""

import ctypes
import time
import weakref

import torch
from torch import Tensor

from ..step import Explicit, kinds
from .layout import Lanes, Unsupported
from .library import NoCompiler, load
from .program import Program

__all__ = ["Engine", "NoCompiler", "Unsupported"]

Memory = dict[str, Tensor]
TRIAL = 0.05  # seconds of steps by which a number of threads is chosen


class Engine:
    """An explicit step, compiled for the CPU at hand.

    Args:
        explicit: the step, in float32.
        half: whether it computes in bfloat16.
        threads: that share the work of a step (default: one, or those of torch if it is faster).
        target: flags for the C++ compiler in the place of those for this CPU.

    Raises:
        Unsupported: for a layer that the engine cannot run, or bfloat16 on a CPU without dot
            products for it.
        NoCompiler, PermissionError: if the engine cannot be built here.
    """

    name = "native"

    def __init__(
        self,
        explicit: Explicit,
        half: bool = False,
        threads: int | None = None,
        target: str = "",
    ) -> None:
        self._library = load(target)
        if half and not self._library.co3d_bfloat16():
            raise Unsupported("the native engine needs a CPU with AVX512-BF16 for bfloat16")
        lanes = Lanes(self._library.co3d_lanes(), self._library.co3d_max_vectors())
        self.program = net = Program(explicit, lanes, half)
        self.batch, self.threads = net.batch, threads or torch.get_num_threads()
        self.classes, self.columns = explicit.shapes[-1][1], net.layouts[-1].bytes // 4
        self.emits = [phase.emits for phase in explicit.phases]
        words, self._memory = net.words(self.threads, self._empty)
        self._handle = self._library.co3d_create(ctypes.byref(words))
        weakref.finalize(self, self._library.co3d_destroy, self._handle)
        self.kinds = kinds(self.begin())
        if threads is None and self.threads > 1:
            frame = torch.zeros(explicit.frame_shape)
            self.threads = min((1, self.threads), key=lambda n: self._seconds(frame, n))

    def begin(self) -> Memory:
        """The memory of new streams: `rings` (B, bytes), and `slots` (B, entries), a table that
        says what lies where."""
        size, slots = self.program.state_bytes, self.program.slots
        return {
            "rings": self._empty(self.batch * size).view(self.batch, size).zero_(),
            "slots": torch.tensor(slots, dtype=torch.int32).repeat(self.batch, 1),
        }

    def step(
        self, frame: Tensor, phase: int, age: int, memory: Memory
    ) -> tuple[Tensor | None, Memory]:
        """Feeds a frame (B, C, H, W) in float32, and changes the memory.

        Args:
            phase: of the frame.
            age: frames before it; past all start-ups any number will do.

        Returns:
            Logits (B, classes), or None at a phase that gives none, and the same memory.
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
            return None, memory
        return (logits if self.columns == self.classes else logits[:, : self.classes]), memory

    def _seconds(self, frame: Tensor, threads: int) -> float:
        """Of the fastest period with so many threads."""
        self.threads, memory, times = threads, self.begin(), []
        end = time.perf_counter() + TRIAL
        while len(times) < 2 or time.perf_counter() < end:
            begun = time.perf_counter()
            for phase in range(len(self.emits)):
                self.step(frame, phase, len(times), memory)
            times.append(time.perf_counter() - begun)
        return min(times)

    def _empty(self, count: int) -> Tensor:
        """Bytes in large pages, as far as the system has them."""
        memory = torch.empty(count, dtype=torch.uint8)
        self._library.co3d_advise(memory.data_ptr(), count)
        return memory

    @torch.inference_mode()  # in which the streams may have begun
    def _align(self, memory: Tensor, slots: Tensor) -> None:
        """Moves what all streams hold to where the first one holds it."""
        for stream in range(1, self.batch):
            before = memory[stream].clone()
            for ring in self.program.rings.values():
                size, entries = ring.layout.bytes, range(ring.table, ring.table + ring.length)
                for entry in entries:
                    source, goal = slots[stream, entry], slots[0, entry]
                    memory[stream, goal : goal + size] = before[source : source + size]
        slots[1:] = slots[0].clone()

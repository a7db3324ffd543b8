"""How values of a step lie in memory, and the words that `engine.cpp` reads."""

import ctypes
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from torch import Tensor

from .. import operations as ops

CHUNKS = 8  # into which the work of an instruction is cut at most


class Kind(IntEnum):
    """Of instructions."""

    INPUT, PRODUCT, DEPTHWISE, SCALE, POOL, AVERAGE, TILES_IN, TILES_OUT, SUMS = range(9)


class Base(IntEnum):
    """Of places."""

    NOWHERE, LOGITS, SCRATCH, SPARE, STATE = range(5)


class Lanes(NamedTuple):
    """What the engine was compiled for: numbers in a vector, vectors in a block of columns."""

    lanes: int
    block: int

    def blocks(self, columns: int) -> list[tuple[int, int]]:
        """Blocks of columns, (start, end): few and alike, an even number for two threads, or one.

        `product` in engine.cpp cuts them likewise.
        """
        vectors = -(-columns // self.lanes)
        count = -(-vectors // self.block)
        count += count > 1 and count % 2
        cuts = [vectors * n // count * self.lanes for n in range(count + 1)]
        return list(zip(cuts, cuts[1:], strict=False))


class Layout(NamedTuple):
    """A map as rows of pixels with a border of zeros, in elements.

    The border at the sides lies between two rows: it is the right one of a row and the left one of
    the next.

    Attributes:
        size: height and width.
        channels: where each lies in a pixel.
        step: from one pixel to the next.
        half: bfloat16 rather than float32.
    """

    size: tuple[int, int]
    channels: tuple[int, ...]
    step: int
    top: int = 0
    bottom: int = 0
    side: int = 0
    half: bool = False

    @property
    def pitch(self) -> int:
        """Elements from one row to the next."""
        return (self.size[1] + self.side) * self.step

    @property
    def element(self) -> int:
        """Bytes of an element."""
        return 2 if self.half else 4

    @property
    def bytes(self) -> int:
        """Of a map with its border."""
        rows = self.top + self.size[0] + self.bottom
        return aligned((rows * self.pitch + self.side * self.step) * self.element)

    @property
    def is_scattered(self) -> bool:
        """Whether zeros lie between the channels."""
        return self.channels[-1] != len(self.channels) - 1

    def spread(self, x: Tensor, length: int | None = None) -> Tensor:
        """Numbers (..., C), each where its channel lies in a pixel; zeros elsewhere."""
        wide = x.new_zeros(*x.shape[:-1], length or self.step)
        wide[..., list(self.channels)] = x.detach()
        return wide


@dataclass
class Ring:
    """A queue in the memory of a stream.

    Attributes:
        first: the frame before which zeros are put in.
        table: where its slots begin in the table of a stream, the newest first.
        spare: where in that table the slot is that a new map takes; -1: it takes the oldest one's.
    """

    number: int
    layout: Layout
    length: int
    first: int
    table: int = 0
    spare: int = -1


class Place(NamedTuple):
    """Where a value lies during a step.

    Attributes:
        base: a `Base`, or Base.STATE + the number of a ring.
        offset: bytes.
        back: slots from the newest one of a ring.
        first: the frame before which zeros are written.
    """

    layout: Layout
    base: int
    offset: int = 0
    back: int = 0
    first: int = 0


class Unsupported(TypeError):
    """A layer that the engine cannot run."""


def unsupported(operation: ops.Operation) -> Unsupported:
    """The error that names an operation."""
    kind = type(operation.function if type(operation) is ops.Map else operation).__name__
    return Unsupported(f"the native engine has no form of {kind} {operation.name}")


def chunks(work: int, worth: int) -> int:
    """Into how many chunks work is cut, each worth the trouble."""
    return max(1, min(CHUNKS, work // worth))


def aligned(n: int, to: int = 64) -> int:
    """The next multiple."""
    return -(-n // to) * to


def _words(names: str, kind: type = ctypes.c_int64) -> list[tuple[str, type]]:
    return [(name, kind) for name in names.split()]


class View(ctypes.Structure):
    """Pixels of a place, and the table of where each begins."""

    _fields_ = _words("base back offset rows length")


class Instruction(ctypes.Structure):
    """What the engine does in one go."""

    _fields_ = [
        *_words("kind"),
        *_words("out add", View),
        *_words("first first_sums activation rows vectors in_half out_half tap taps weights bias"),
        *_words("size in_size kernel stride padding dilation grid", ctypes.c_int64 * 2),
        *_words("pitch step channels inner sums parts"),
        *_words("repeats in_repeat out_repeat weights_repeat"),
    ]


class Words(ctypes.Structure):
    """A program."""

    _fields_ = [
        *_words("phases instructions puts taps rings rows constants", ctypes.c_void_p),
        *_words("longest table batch threads scratch_bytes spare"),
    ]

"""How values of a step lie in memory, and the words that the engine knows: see `engine.cpp`."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

LOGITS, SCRATCH, STATE = range(1, 4)  # places
ALIGNMENT, HUGE_PAGE = 64, 1 << 21  # bytes


class Lanes(NamedTuple):
    """What the engine was compiled for: numbers in a vector, vectors in a block of columns."""

    lanes: int
    block: int

    def whole(self, channels: int) -> int:
        """Channels, padded to whole vectors."""
        return aligned(channels, self.lanes)

    def vectors(self, channels: int) -> int:
        """Vectors that hold so many channels."""
        return -(-channels // self.lanes)

    def blocks(self, vectors: int) -> list[tuple[int, int]]:
        """Blocks of columns, (start, end) in vectors: as few and as alike as can be."""
        count = -(-vectors // self.block)
        return [(vectors * n // count, vectors * (n + 1) // count) for n in range(count)]


class Layout(NamedTuple):
    """A map as rows of pixels with a border of zeros, in elements.

    The border at the sides lies between two rows: it is the right one of a row and the left one of
    the next. `step` is the distance of two pixels; `channels` tells where each channel lies.
    """

    height: int
    width: int
    channels: tuple[int, ...]
    step: int
    top: int = 0
    bottom: int = 0
    side: int = 0
    half: bool = False  # bfloat16

    @property
    def pitch(self) -> int:
        """Elements from one row to the next."""
        return (self.width + self.side) * self.step

    @property
    def size(self) -> int:
        """Bytes of an element."""
        return 2 if self.half else 4

    @property
    def first(self) -> int:
        """Bytes to the first pixel inside the border."""
        return (self.top * self.pitch + self.side * self.step) * self.size

    @property
    def bytes(self) -> int:
        """Of a map with its border."""
        rows = self.top + self.height + self.bottom
        return aligned((rows * self.pitch + self.side * self.step) * self.size)


def vector(channels: int, lanes: Lanes) -> Layout:
    """One pixel of float32."""
    return Layout(1, 1, tuple(range(channels)), lanes.whole(channels))


class Place(NamedTuple):
    """Where a value lies during a step; `back` counts the slots of a ring from the newest."""

    layout: Layout
    place: int
    offset: int = 0  # bytes
    ring: int = 0
    back: int = 0


@dataclass
class Ring:
    """A queue in the memory of a stream.

    Attributes:
        keeps_oldest: whether that is read after something new was put in, which then needs a spare
            slot; rings of one group share it.
        table: where its slots begin in the table of a stream, the newest first.
        spare: where in that table the spare slot of its group is; -1: none.
        offset: bytes to the slots of its group in the memory of a stream.
    """

    number: int
    layout: Layout
    length: int
    initial: float
    keeps_oldest: bool = False
    table: int = 0
    spare: int = -1
    offset: int = 0

    @property
    def group(self) -> tuple:
        """Equal for rings whose slots may be exchanged."""
        return self.layout, self.initial


def aligned(n: int, to: int = ALIGNMENT) -> int:
    """The next multiple."""
    return -(-n // to) * to


def array(kind: type, items: Sequence) -> ctypes.Array:
    """Items side by side in memory."""
    return (kind * len(items))(*items)


def _words(names: str) -> list[tuple[str, type]]:
    return [(name, ctypes.c_int64) for name in names.split()]


class Map(ctypes.Structure):
    """Where numbers lie, and the table of their rows."""

    _fields_ = _words("place ring back offset rows")


class Tap(ctypes.Structure):
    """A part of the sums of a product."""

    _fields_ = [("map", Map), *_words("length")]


class RingWords(ctypes.Structure):
    """A ring."""

    _fields_ = _words("offset slot table length spare")


class Instruction(ctypes.Structure):
    """What the engine does in one go."""

    _fields_ = [
        *_words("kind"),
        ("out", Map),
        ("add", Map),
        *_words("first infinite first_sums activation rows vectors in_half out_half"),
        *_words("tap taps weights bias height width in_height in_width"),
        *_words("kernel_h kernel_w stride_h stride_w pad_h pad_w dilation_h dilation_w"),
        *_words("pitch step channels inner sums parts"),
        *_words("repeats in_repeat out_repeat weights_repeat grid_rows grid_vectors"),
    ]

    def __init__(self, kind: int, out: Map, **words: int | Map) -> None:
        defaults = dict.fromkeys(("bias", "sums"), -1)
        defaults |= dict.fromkeys(("height", "width", "in_height", "in_width", "parts"), 1)
        defaults |= dict.fromkeys(("kernel_h", "kernel_w", "stride_h", "stride_w"), 1)
        defaults |= dict.fromkeys(
            ("dilation_h", "dilation_w", "repeats", "grid_rows", "grid_vectors"), 1
        )
        super().__init__(kind=kind, out=out, **defaults | words)


class PhaseWords(ctypes.Structure):
    """The instructions of a phase, and the rings that it puts something into."""

    _fields_ = [
        ("instructions", ctypes.POINTER(Instruction)),
        *_words("count"),
        ("puts", ctypes.POINTER(ctypes.c_int32)),
        *_words("put_count"),
    ]


class ProgramWords(ctypes.Structure):
    """All of it."""

    _fields_ = [
        ("phases", ctypes.POINTER(PhaseWords)),
        *_words("longest"),
        ("taps", ctypes.POINTER(Tap)),
        ("rings", ctypes.POINTER(RingWords)),
        *_words("table"),
        ("rows", ctypes.c_void_p),
        ("packed", ctypes.c_void_p),
        ("floats", ctypes.c_void_p),
        *_words("batch state_bytes threads scratch_bytes gates_begin gate_bytes"),
    ]

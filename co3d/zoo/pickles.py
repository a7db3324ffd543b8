"""Reads pickles without running them: an own small machine that only knows plain values.

Python's unpickler looks names up and calls what it finds, hashes whatever is used as a key and
allocates what is declared. This one has the instructions that plain weights need and no others.
A name gives the stand-in of the caller, or is refused, and every length is held against the file.
"""

import codecs
import mmap
import struct
from collections.abc import Callable, Mapping
from typing import NamedTuple

OPCODES = 1_000_000  # some 30 per array
LONGEST = 2**61 - 2  # from here on ints share their hashes, and a dict of them would never end
LINE = 1000  # bytes of a number or a name in text
ARGUMENTS = 9  # of a call, an id or a state: a list of them cannot be used again and again

_CONSTANTS = {b"N": None, b"\x88": True, b"\x89": False, b")": ()}
_NUMBERS = {b"J": "<i", b"K": "<B", b"M": "<H", b"G": ">d"}
# The strings of Python 2 stay bytes, and so does what Python 3 wrote as bytes
_BYTES = {b"T": "<i", b"U": "<B", b"B": "<I", b"C": "<B", b"\x8e": "<Q"}
_TEXTS = {b"X": "<I", b"\x8c": "<B", b"\x8d": "<Q"}
_TUPLES = {b"\x85": 1, b"\x86": 2, b"\x87": 3}
_PUTS = {b"q": "<B", b"r": "<I"}
_GETS = {b"h": "<B", b"j": "<I"}


class Refused(ValueError):
    """Why a file is not taken, as the part of the sentence that follows its name."""


class Named(NamedTuple):
    """What a name in a pickle gives: `make` stands in for calling it, None where that is wrong."""

    name: str
    make: Callable[..., object] | None


def text(value: object) -> str:
    """A string of either Python."""
    if isinstance(value, bytes):
        return value.decode("latin1")
    if not isinstance(value, str):
        raise Refused(f"has a {type(value).__name__} where a name should be")
    return value


def quoted(value: object, limit: int = 80) -> str:
    """Text of a file for a sentence: short, on one line, and nothing that a terminal obeys."""
    shown = str(value)[: limit + 1]
    shown = "".join(c if c.isascii() and c.isprintable() else ascii(c)[1:-1] for c in shown)
    return shown if len(shown) <= limit else f"{shown[: limit - 3]}..."


def _short(values: object) -> tuple:
    if type(values) is not tuple or len(values) > ARGUMENTS:
        raise Refused("calls what plain weights never call: refused, nothing was run")
    return values


class Reader:
    """Loads one pickle after another from `data`, from `at` on.

    Args:
        stand_ins: for every name that a pickle may use, what is called in its place. Objects
            made by a stand-in take part in BUILD by a method `build`.
        persistent: what is called with a persistent id; refused without.
    """

    def __init__(
        self,
        data: bytes | mmap.mmap,
        stand_ins: Mapping[str, Callable[..., object] | None],
        persistent: Callable[[object], object] | None = None,
    ) -> None:
        own = {"collections.OrderedDict": self._ordered, "_codecs.encode": self._encode}
        self.data, self.at = data, 0
        self.stand_ins, self.persistent = {**own, **stand_ins}, persistent
        self.steps, self.encoded = OPCODES, len(data)

    def load(self) -> object:
        """The next pickle: plain values and what the stand-ins made.

        Raises:
            Refused: for a name, a call or an instruction that plain weights do not need.
            Exception: some other, if the pickle is cut short or damaged.
        """
        self.stack, self.marks, self.memo = [], [], {}
        while (code := self._take(1)) != b".":
            self._count(1)
            if not self._push(code):
                self._combine(code)
        return self.stack.pop()

    def _count(self, steps: int) -> None:
        self.steps -= steps
        if self.steps < 0:
            raise Refused("holds more objects than any weights do: refused")

    def _take(self, length: int) -> bytes:
        chunk = self.data[self.at : self.at + length]
        if length < 0 or len(chunk) != length:
            raise EOFError
        self.at += length
        return chunk

    def _line(self, limit: int = LINE) -> bytes:
        end = self.data.find(b"\n", self.at, self.at + limit)
        if end < 0:
            raise EOFError
        return self._take(end + 1 - self.at)[:-1]

    def _number(self, form: str) -> int | float:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _push(self, code: bytes) -> bool:
        """Pushes the value that `code` stands for, if it stands for one."""
        if code in _CONSTANTS:
            value = _CONSTANTS[code]
        elif code in _NUMBERS:
            value = self._number(_NUMBERS[code])
        elif code in _BYTES:
            value = self._take(self._number(_BYTES[code]))
        elif code in _TEXTS:
            value = self._take(self._number(_TEXTS[code])).decode("utf-8", "surrogatepass")
        elif code in _GETS:
            value = self.memo[self._number(_GETS[code])]
        elif code == b"]":
            value = []
        elif code == b"}":
            value = {}
        elif code == b"g":
            value = self.memo[int(self._line())]
        elif code == b"\x8a":
            value = int.from_bytes(self._take(self._number("<B")), "little", signed=True)
        elif code in (b"I", b"L"):
            line = self._line().rstrip(b"L")
            value = {b"00": False, b"01": True}.get(line) if line in (b"00", b"01") else int(line)
        elif code == b"F":
            value = float(self._line())
        elif code == b"S":
            value = codecs.escape_decode(self._line(len(self.data)).strip()[1:-1])[0]
        elif code == b"V":
            value = self._line(len(self.data)).decode("raw-unicode-escape")
        elif code == b"c":
            value = self._named(self._line(), self._line())
        else:
            return False
        self.stack.append(value)
        return True

    def _combine(self, code: bytes) -> None:
        """Does what `code` says with the values on the stack."""
        stack = self.stack
        if code == b"\x80":
            if self._number("<B") > 4:
                raise Refused("is a pickle of a later protocol than 4: refused")
        elif code == b"\x95":  # a frame's length, of no use here
            self._take(8)
        elif code == b"(":
            self.marks.append(len(stack))
        elif code in _PUTS:
            self.memo[self._number(_PUTS[code])] = stack[-1]
        elif code == b"p":
            self.memo[int(self._line(10))] = stack[-1]
        elif code == b"\x94":
            self.memo[len(self.memo)] = stack[-1]
        elif code in _TUPLES:
            stack[-_TUPLES[code] :] = [tuple(stack[-_TUPLES[code] :])]
        elif code == b"t":
            stack.append(tuple(self._marked()))
        elif code == b"l":
            stack.append(self._marked())
        elif code == b"d":
            stack.append(self._set({}, self._marked()))
        elif code == b"s":
            value, key = stack.pop(), stack.pop()
            self._set(stack[-1], [key, value])
        elif code == b"u":
            items = self._marked()
            self._set(stack[-1], items)
        elif code in (b"a", b"e"):
            items = self._marked() if code == b"e" else [stack.pop()]
            list.extend(stack[-1], items)
        elif code == b"\x93":
            name, module = stack.pop(), stack.pop()
            stack.append(self._named(module, name))
        elif code == b"R":
            arguments, function = stack.pop(), stack.pop()
            if not isinstance(function, Named) or function.make is None:
                raise Refused("calls what plain weights never call: refused, nothing was run")
            stack.append(function.make(*_short(arguments)))
        elif code == b"b":
            self._build(stack.pop())
        elif code in (b"Q", b"P"):
            identity = stack.pop() if code == b"Q" else self._line()
            if self.persistent is None:
                raise Refused("asks for objects from outside itself (persistent ids): refused")
            stack.append(self.persistent(_short(identity)))
        else:
            raise Refused(
                f"is damaged or no plain weights (pickle instruction {code!r} at "
                f"{self.at - 1}): refused, nothing was run"
            )

    def _marked(self) -> list[object]:
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def _named(self, module: object, name: object) -> Named:
        full = f"{text(module)}.{text(name)}"
        if full not in self.stand_ins:
            raise Refused(
                f"asks for {quoted(full)}, which is not for weights: refused, nothing was run"
            )
        return Named(full, self.stand_ins[full])

    def _set(self, target: object, items: list[object]) -> dict:
        """Only plain keys: the hash of a nest of tuples can take for ever or end the process."""
        for key, value in zip(items[::2], items[1::2], strict=True):
            key = text(key) if isinstance(key, bytes) else key
            if type(key) is not str and not (type(key) is int and abs(key) <= LONGEST):
                raise Refused(f"has a {type(key).__name__} for a key: refused")
            dict.__setitem__(target, key, value)
        return target

    def _build(self, state: object) -> None:
        target = self.stack[-1]
        if hasattr(target, "build"):
            target.build(_short(state))
        elif type(target) is not dict:  # where torch keeps the versions of modules
            raise Refused(f"sets the state of a {type(target).__name__}: refused")

    def _ordered(self, items: list | tuple = ()) -> dict:
        self._count(len(items))
        return self._set({}, [part for key, value in items for part in (key, value)])

    def _encode(self, string: str, encoding: object) -> bytes:
        """How Python 3 writes bytes for Python 2."""
        self.encoded -= len(string)
        if self.encoded < 0 or text(encoding) not in ("latin1", "latin-1"):
            raise Refused("encodes more text than it holds: refused")
        return str.encode(string, "latin1")

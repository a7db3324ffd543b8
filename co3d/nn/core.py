"""What every continual module has in common: timing, state, and the checks at the door.

A module maps a clip (B, C, T, H, W) to a clip. Fed frame by frame it gives the same columns, as
soon as the frames that they depend on have been seen. Between frames it hands on a *state*: plain
dicts, tuples, numbers and tensors, so that it can be saved, forked and stacked.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

State = dict[str, Any]
FILLS = ("zeros", "replicate")
EMITS = ("valid", "always")
STATE_KEYS = {"model", "closed", "frame", "dtype", "layers"}


class Timing(NamedTuple):
    """How output columns lie over input frames: column j sees frames j * stride - padding onward.

    Attributes:
        receptive_field: input frames that one output depends on, d(k - 1) + 1 for one convolution.
        padding: zero frames before a clip that output 0 looks back on.
        stride: input frames from one output to the next.
        skew: by how many frames the padding behind a clip is shorter than that before it.
    """

    receptive_field: int = 1
    padding: int = 0
    stride: int = 1
    skew: int = 0

    def then(self, after: "Timing") -> "Timing":
        """The timing of this module followed by `after`."""
        return Timing(
            self.receptive_field + (after.receptive_field - 1) * self.stride,
            self.padding + after.padding * self.stride,
            self.stride * after.stride,
            self.skew + after.skew * self.stride,
        )

    @classmethod
    def joined(cls, timings: Iterable["Timing"]) -> "Timing":
        """The timing of branches of one stride whose columns are joined by index."""
        timings = list(timings)
        padding = max(t.padding for t in timings)
        field = padding + 1 + max(t.delay for t in timings)
        surplus = min(t.surplus for t in timings)
        return cls(field, padding, timings[0].stride, 2 * padding - field - surplus)

    @property
    def surplus(self) -> int:
        """A clip of T frames has (T + surplus) // stride + 1 outputs."""
        return 2 * self.padding - self.skew - self.receptive_field

    @property
    def delay(self) -> int:
        """Frames that pass before the first output appears."""
        return self.receptive_field - 1 - self.padding


class Continual(nn.Module):
    """A module that can be stepped; layers have a class of `torch.nn` beside it.

    By default it treats every frame alone. Others have a `timing` and two methods without checks:
    `_begin(start, fill, emit)` returns the first state and the index of the first output, where
    `start` is that of the first input; `_steps(x, state, end)` takes a chunk (or None with `end`)
    and returns the outputs that it completes (or None) with the next state. It must not write to
    the old one.
    """

    any_rank = False  # whether inputs may be vectors as well as maps
    differs_in_training = False

    @property
    def timing(self) -> Timing:
        """How its output frames lie over its input frames."""
        return Timing()

    @property
    def receptive_field(self) -> int:
        """Input frames that one output depends on."""
        return self.timing.receptive_field

    @property
    def warmup(self) -> int:
        """Frames before the first output (receptive_field - 1 - padding)."""
        return self.timing.delay

    def begin(self, fill: str = "zeros", emit: str = "valid") -> State:
        """The state before the first frame.

        Args:
            fill: what stands in for the frames before the first one: "zeros" (a clip's padding),
                or "replicate" (copies of each layer's first input).
            emit: "valid" holds outputs back until the padded clip net would have them; "always"
                emits from the first frame on (for the paper's study of the start-up), behind a
                stride from the first of its phase, which each of joined branches has to see.

        Raises:
            ValueError: for another fill or emit, if a module inside has no step, or if one that
                behaves otherwise in training (normalisation, dropout) is not in evaluation mode.
        """
        if fill not in FILLS or emit not in EMITS:
            raise ValueError(
                f"expected fill in {FILLS} and emit in {EMITS}, given {fill!r} and {emit!r}"
            )
        check_evaluation(self)
        layers, _ = self._begin(0, fill, emit)
        facts = {"model": self._signature(), "closed": False, "frame": None, "dtype": None}
        return {**facts, "layers": layers}

    @torch.no_grad()
    def steps(
        self, x: Tensor | None, state: State | None = None, end: bool = False
    ) -> tuple[Tensor | None, State]:
        """Feeds a chunk (B, C, T, H, W) and returns all outputs that it completes.

        Any cutting of a clip into chunks gives the same outputs. `end=True` adds the padding after
        the last frame and closes the state; then `x` may be None. No gradients are recorded.

        Returns:
            Outputs (B, C', T', H', W'), or None while there are none, and the next state.

        Raises:
            ValueError: for a wrong shape, device or state, or an empty chunk without `end`.
            TypeError: for something that is no floating-point tensor, or of another dtype.
        """
        state = self.begin() if state is None else state
        self._check_state(state)
        if self.training:  # set since the stream began
            check_evaluation(self)
        if isinstance(x, Tensor) and x.ndim > 2 and x.shape[2] == 0:
            x = None
        if x is None and not end:
            raise ValueError("expected at least one frame, given an empty chunk without end=True")
        state = {**state, "closed": end}
        if x is not None:
            self._check_input(x)
            frame = (x.shape[0], x.shape[1], *x.shape[3:])
            _check_frame(frame, x, state)
            state |= {"frame": frame, "dtype": str(x.dtype)}
        y, layers = self._steps(x, state["layers"], end)
        return y, {**state, "layers": layers}

    def step(self, x: Tensor, state: State | None = None) -> tuple[Tensor | None, State]:
        """Feeds one frame (B, C, H, W); returns its output (B, C', H', W') or None, and the state.

        Raises:
            ValueError, TypeError: as `steps`.
        """
        y, state = self.steps(self._as_chunk(x), state)
        return (None if y is None else y.squeeze(2)), state

    def flush(self, state: State) -> tuple[Tensor | None, State]:
        """The outputs that the padding after the last frame completes; closes the state."""
        return self.steps(None, state, end=True)

    def _prepare(self) -> None:
        """Refuses what a stream cannot do."""

    def _begin(self, start: int, fill: str, emit: str) -> tuple[Any, int]:
        return (), start

    def _steps(self, x: Tensor | None, state: Any, end: bool) -> tuple[Tensor | None, Any]:
        return (None if x is None else self.forward(x)), state

    def _signature(self) -> str:
        """Names the structure of the module, not its weights: twins of other weights may share."""
        if "_signature_cache" not in self.__dict__:
            digest = hashlib.sha256(repr(self).encode()).hexdigest()[:12]
            self.__dict__["_signature_cache"] = f"{type(self).__name__}-{digest}"
        return self.__dict__["_signature_cache"]

    def _as_chunk(self, x: Tensor) -> Tensor:
        self._check_rank(x, "frame (B, C, H, W)", 4)
        return x.unsqueeze(2)

    def _check_rank(self, x: Tensor, what: str, rank: int) -> None:
        if not isinstance(x, Tensor):
            raise TypeError(f"expected a {what} as a tensor, given {type(x).__name__}")
        any_rank = all(getattr(part, "any_rank", True) for part in self.modules())
        if x.ndim != rank and not (any_rank and x.ndim >= rank - 2):
            raise ValueError(f"expected a {what}, given shape {tuple(x.shape)}")

    def _check_input(self, x: Tensor) -> None:
        """Rank, channels, dtype and device of a clip against the weights."""
        self._check_rank(x, "clip (B, C, T, H, W)", 5)
        channels = _expected_channels(self)
        if channels is not None and x.shape[1] != channels:
            raise ValueError(f"expected {channels} channels, given {x.shape[1]}")
        if not x.is_floating_point():
            raise TypeError(f"expected floating-point frames, given {x.dtype}")
        weight = next(self.parameters(), x)
        if x.dtype != weight.dtype:
            raise TypeError(f"expected {weight.dtype} as in the weights, given {x.dtype}")
        if x.device != weight.device:
            raise ValueError(f"expected device {weight.device} as in the weights, given {x.device}")

    def _check_state(self, state: Any) -> None:
        if not isinstance(state, dict) or not state.keys() >= STATE_KEYS:
            raise TypeError(
                f"expected a state from begin(), step() or steps(), given {type(state).__name__}"
            )
        signature = self._signature()
        if state["model"] != signature:
            raise ValueError(
                f"expected a state of this model, {signature}, given one of {state['model']}"
            )
        if state["closed"]:
            raise ValueError("expected an open state, given one that was closed by end=True")


def _expected_channels(module: nn.Module) -> int | None:
    """Of the input, as the first layer says that has a number of them; None if any will do."""
    for part in module.modules():
        if isinstance(part, nn.Flatten) or getattr(part, "join", None) == "cat":
            return None  # what follows has other channels
        for name in ("in_channels", "num_features", "in_features"):
            if hasattr(part, name):
                return getattr(part, name)
    return None


def _check_frame(frame: tuple[int, ...], x: Tensor, state: State) -> None:
    """Size, dtype and device of new frames against those that the state has seen."""
    if state["frame"] is None:
        return
    seen = tuple(state["frame"])
    if frame != seen:
        what = "batch" if frame[0] != seen[0] else "frame size"
        raise ValueError(f"expected the {what} of the state, {seen}, given {frame}")
    if state["dtype"] != str(x.dtype):  # of the frames: what layers hold may differ (autocast)
        raise TypeError(f"expected {state['dtype']} as in the state, given {x.dtype}")
    device = next((kept.device for kept in iter_tensors(state["layers"])), x.device)
    if device != x.device:
        raise ValueError(f"expected device {device} as in the state, given {x.device}")


def check_evaluation(module: Any) -> None:
    """Raises ValueError for a part in training that behaves otherwise in evaluation."""
    for name, part in module.named_modules():
        if part.training and getattr(part, "differs_in_training", False):
            where = f"{type(part).__name__} {name}".rstrip()
            raise ValueError(f"expected evaluation mode, given {where} in training: use .eval()")


def iter_tensors(state: Any) -> Iterator[Tensor]:
    """All tensors of a state, in order."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, dict | tuple | list):
        for value in state.values() if isinstance(state, dict) else state:
            yield from iter_tensors(value)


def map_tensors(function: Callable, state: Any) -> Any:
    """The same state with `function` applied to every tensor."""
    if isinstance(state, Tensor):
        return function(state)
    if isinstance(state, dict):
        return {key: map_tensors(function, value) for key, value in state.items()}
    if isinstance(state, tuple | list):
        return tuple(map_tensors(function, value) for value in state)
    return state

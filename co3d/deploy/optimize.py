"""Networks for inference alone, as fast as the machine at hand allows."""

import copy
import os
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ..nn.core import EMITS, FILLS, State
from ..nn.fold import fold
from ..nn.net import ClipNet, StreamNet
from .engines import Torch
from .native import Engine, NoCompiler, Unsupported
from .operations import Queue
from .step import Explicit, kinds

ENGINES = ("native", "torch")
STATE_KEYS = {"model", "frame", "dtype", "age", "layers"}


def optimize(
    model: ClipNet,
    example: Tensor,
    dtype: torch.dtype = torch.float32,
    threads: int | None = None,
) -> "OptimizedStream | OptimizedClip":
    """The fast twin of a net, for inference on inputs of one shape.

    Args:
        model: in evaluation mode; it stays as it is.
        example: a frame (B, C, H, W) for a continual net, a clip (B, C, T, H, W) for another one;
            only shape, dtype and device matter. Logits have its dtype.
        dtype: of weights, maps and state: float32, bfloat16, float16 (on a GPU), or float64 (in
            torch, for checks).
        threads: of a step on the CPU (default: one, or those of torch where that is faster).

    Raises:
        TypeError: for another dtype, or a layer without a form on frames.
        ValueError: for a net in training mode, or an example that does not fit.
    """
    if isinstance(model, StreamNet):
        return OptimizedStream(model, example, dtype, threads)
    return OptimizedClip(model, example, dtype)


class OptimizedStream:
    """A continual net for inference on frames of one shape, by the same `step`.

    On a CPU the native engine runs it where there is a C++ compiler and a form of every layer, else
    the explicit step in torch. On a GPU the explicit step is compiled into CUDA graphs.

    `step` consumes the state that it is given, which is empty afterwards: fork it before with
    `co3d.clone`. Any number of streams may be stepped at a time, also from several threads.

    Args:
        net, frame, dtype, threads: as of `optimize`.
        engine: "native", which raises where it cannot run, or "torch" (default: the environment's
            CO3D_ENGINE, or as above).

    Attributes:
        engine: which one runs.
        threads: that share the work of a step.
        receptive_field, padding, warmup, stride, window: as of the net, in frames.

    Raises:
        TypeError, ValueError: as `optimize`; ValueError also for an unknown engine.
    """

    def __init__(
        self,
        net: StreamNet,
        frame: Tensor,
        dtype: torch.dtype = torch.float32,
        threads: int | None = None,
        engine: str | None = None,
    ) -> None:
        _take_example(self, net, frame, dtype)
        if threads is not None and threads < 1:
            raise ValueError(f"expected 1 or more threads, given {threads}")
        explicit = Explicit(net, frame)
        self._describe(f"{net._signature()} optimised", net, explicit.queues.values())
        self._backend = self._backend_of(explicit, threads, engine)
        self.engine, self.threads = self._backend.name, self._backend.threads

    def _describe(self, original: str, source: Any, queues: Iterable[Queue]) -> None:
        """Sets what a state has to say of itself, and takes the numbers of a net or its record."""
        self.original = original
        self._facts = {"model": original, "frame": self.shape, "dtype": str(self.dtype)}
        for name in ("receptive_field", "padding", "warmup", "stride", "window"):
            setattr(self, name, getattr(source, name))
        # Past this age a stream is as old as ever, but for its phase.
        oldest = max((queue.first for queue in queues), default=0)
        self._settled = -(-max(oldest, self.warmup) // self.stride) * self.stride

    def _backend_of(
        self, explicit: Explicit, threads: int | None, engine: str | None
    ) -> Engine | Torch:
        chosen = engine or os.environ.get("CO3D_ENGINE") or None
        if chosen not in (None, *ENGINES):
            raise ValueError(f"expected engine in {ENGINES}, given {chosen!r}")
        is_native = self.device.type == "cpu" and self.dtype in (torch.float32, torch.bfloat16)
        if is_native and self.given == torch.float32 and chosen != "torch":
            try:
                return Engine(explicit, self.dtype == torch.bfloat16, threads)
            except (Unsupported, NoCompiler, PermissionError) as error:
                if chosen == "native":
                    raise
                warnings.warn(f"{error}; the step runs in torch", stacklevel=5)
        elif chosen == "native":
            raise ValueError(
                f"expected float32 frames on the CPU and dtype float32 or bfloat16 for the native "
                f"engine, given {self.given} on {self.device} and {self.dtype}"
            )
        return Torch(explicit, self.dtype, threads)

    def __repr__(self) -> str:
        facts = f"shape={self.shape}, dtype={self.dtype}, engine={self.engine}"
        return f"OptimizedStream({self.original}, {facts})"

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"an optimised net steps and has no {name}: ask the net that it was made of"
        )

    def __reduce__(self) -> Any:
        raise TypeError("an optimised net is neither copied nor pickled: optimise the net again")

    def begin(self, fill: str = FILLS[0], emit: str = EMITS[0]) -> State:
        """The state before the first frame.

        Raises:
            ValueError: for another fill or emit than these.
        """
        if (fill, emit) != (FILLS[0], EMITS[0]):
            raise ValueError(
                f"expected fill 'zeros' and emit 'valid' of an optimised net, given {fill!r} and "
                f"{emit!r}: the net itself has the others"
            )
        return self._state(0, self._backend.begin())

    def step(self, frame: Tensor, state: State | None = None) -> tuple[Tensor | None, State]:
        """Feeds a frame (B, C, H, W); gives logits (B, classes) or None, and the next state.

        Raises:
            ValueError: for other frames, or a state of another net, batch or size, or one already
                consumed.
            TypeError: for something that is no tensor, or no state.
        """
        check_input(self, frame, "frame")
        state = self.begin() if state is None else state
        self._check_state(state)
        age, layers = state["age"], state["layers"]
        state.clear()
        logits, layers = self._backend.step(frame, age % self.stride, age, layers)
        logits = None if age < self.warmup else logits
        age = age + 1 if age < self._settled else self._settled + (age + 1) % self.stride
        return logits, self._state(age, layers)

    def steps(
        self, x: Tensor | None, state: State | None = None, end: bool = False
    ) -> tuple[Tensor | None, State]:
        """Feeds a chunk (B, C, T, H, W), one frame after the other.

        Returns:
            Logits (B, classes, T'), or None while there are none, and the next state.

        Raises:
            ValueError, TypeError: as `step`; ValueError also for end=True.
        """
        if end:
            raise ValueError("expected end=False of an optimised net, which has no padding behind "
                             "a clip, given True: the net itself has it")  # fmt: skip
        if not isinstance(x, Tensor) or x.ndim != 5 or x.shape[2] < 1:
            raise ValueError("expected a chunk (B, C, T, H, W) of one frame or more")
        outputs = []
        for frame in x.unbind(2):
            logits, state = self.step(frame, state)
            if logits is not None:
                outputs.append(logits)
        return (torch.stack(outputs, 2) if outputs else None), state

    def _state(self, age: int, layers: Any) -> State:
        return {**self._facts, "closed": False, "age": age, "layers": layers}

    def _check_state(self, state: State) -> None:
        if state == {}:
            raise ValueError("expected the state that the last step returned, given one consumed: "
                             "fork a state with co3d.clone before a step")  # fmt: skip
        if not isinstance(state, dict) or not state.keys() >= STATE_KEYS:
            raise TypeError(
                f"expected a state from begin() or step(), given {type(state).__name__}"
            )
        given = {name: state[name] for name in self._facts}
        given["frame"] = tuple(given["frame"])
        if given != self._facts:
            raise ValueError(f"expected a state of {self._facts}, given one of {given}")
        if not self._fits(state["layers"]):
            raise ValueError(
                f"expected a state of the {self.engine} engine on {self.device}, given one of "
                "another engine or device"
            )

    def _fits(self, layers: Any) -> bool:
        return isinstance(layers, dict) and kinds(layers) == self._backend.kinds


class OptimizedClip(ClipNet):
    """A regular net for inference on clips of one shape, called as the net.

    Normalisation is part of the convolutions. Arguments and errors are those of `optimize`.
    """

    def __init__(self, net: ClipNet, clip: Tensor, dtype: torch.dtype = torch.float32) -> None:
        net.body._check_input(clip)
        folded = copy.deepcopy(fold(net)).to(dtype)
        super().__init__(folded.body, folded.classifier)
        _take_example(self, net, clip, dtype)
        self.requires_grad_(False).eval()

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            f"an optimised net stays on {self.device} in {self.dtype}: optimise the net again"
        )

    @torch.no_grad()
    def features(self, clip: Tensor, pad: bool = True) -> Tensor:
        """The vector before the classifier, (B, D).

        Raises:
            ValueError: for a clip of another shape, dtype or device.
            TypeError: for something that is no tensor.
        """
        check_input(self, clip, "clip")
        return super().features(clip.to(self.dtype), pad)

    @torch.no_grad()
    def forward(self, clip: Tensor, pad: bool = True) -> Tensor:
        """Logits (B, classes) of a clip (B, C, T, H, W); raises as `features`."""
        return self.classifier(self.features(clip, pad)).to(self.given)


def _take_example(twin: Any, net: ClipNet, example: Tensor, dtype: torch.dtype) -> None:
    """Sets what inputs of an optimised net are like, and what is known of its origin."""
    known = [torch.float32, torch.bfloat16, torch.float64]
    known += [torch.float16] if example.is_cuda else []
    if dtype not in known:
        names = ", ".join(str(name).removeprefix("torch.") for name in known)
        raise TypeError(f"expected dtype in {names} on {example.device}, given {dtype}")
    twin.shape, twin.dtype = tuple(example.shape), dtype
    twin.given, twin.device = example.dtype, example.device
    for name in ("spec", "weights"):
        if hasattr(net, name):
            setattr(twin, name, getattr(net, name))


def check_input(twin: Any, x: Tensor, what: str) -> None:
    """Raises TypeError or ValueError for what is not the frame or clip that a twin was made for."""
    if not isinstance(x, Tensor):
        raise TypeError(f"expected a {what} as a tensor, given {type(x).__name__}")
    if (x.shape, x.dtype, x.device) != (twin.shape, twin.given, twin.device):
        raise ValueError(
            f"expected a {what} {twin.shape} of {twin.given} on {twin.device}, for which the net "
            f"was optimised, given {tuple(x.shape)} of {x.dtype} on {x.device}"
        )

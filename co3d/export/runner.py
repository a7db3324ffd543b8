"""Runs exported files: a stream frame by frame with the API of a continual net, or clips."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..data.transforms import Transform
from ..nn.core import State
from ..nn.explicit import Kinds, Places, Rounds
from .reading import read
from .record import input_names, output_names
from .runtimes import RUNTIMES, Bound, OnnxRuntime, OpenVino

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Runner:
    """An exported net, ready to run on the CPU.

    Of a continual net `step` gives what the net's own gives, so that `co3d.Stream(runner)` works;
    a clip net is called. Shapes are those of the export, tensors are float32.

    `step` consumes the state passed in: its tensors are written over from the next step on, and
    only the state returned may be used. `co3d.clone(state)` forks one with explicit state; there
    may be any number of streams at a time, each from its own `begin`.

    Args:
        path: the file that `export` was given.
        runtime: "onnxruntime" or "openvino" (default: that of the format; OpenVINO runs both).
        threads: of the runtime (default: those of torch).

    Attributes:
        record: what the file says of itself.

    Raises:
        FileNotFoundError: if the file, or one that belongs to it, is not there.
        ValueError: for a file that is damaged or was not written by `export`, files that do not
            belong together, or a runtime that is not installed or does not run the format.
    """

    def __init__(
        self, path: str | Path, runtime: str | None = None, threads: int | None = None
    ) -> None:
        path = Path(path)
        default = "openvino" if path.suffix == ".xml" else "onnxruntime"
        if runtime not in (None, *RUNTIMES) or (runtime or default) == RUNTIMES[0] != default:
            raise ValueError(f"expected a runtime that runs {path.name}, given {runtime!r}")
        if threads is not None and threads < 1:
            raise ValueError(f"expected 1 or more threads, given {threads}")
        kind = OnnxRuntime if (runtime or default) == RUNTIMES[0] else OpenVino
        self.record, self._runtime = read(path, kind, threads or torch.get_num_threads())
        record = self.record
        kinds = Kinds(record.shape, record.classes, state=PRECISIONS[record.precision])
        queues = record.queues if record.state == "explicit" else ()  # else a runtime holds them
        self._rounds = Rounds(
            *(record.digest, kinds, record.warmup, queues, record.phases, self._bind)
        )
        self._clip: tuple[Tensor, Tensor, Bound] | None = None

    @property
    def receptive_field(self) -> int:
        """Input frames that one output depends on."""
        return self.record.receptive_field

    @property
    def padding(self) -> int:
        """Aggregated temporal padding before a clip, in frames."""
        return self.record.padding

    @property
    def warmup(self) -> int:
        """Frames before the first output."""
        return self.record.warmup

    @property
    def stride(self) -> int:
        """Frames from one output to the next."""
        return self.record.stride

    @property
    def window(self) -> int:
        """Span of the running average, in input frames."""
        return self.record.window

    @property
    def transform(self) -> Transform:
        """The input transform of the weights."""
        facts = self.record.transform
        mean, std = tuple(facts["mean"]), tuple(facts["std"])
        return Transform(facts["image_size"], mean, std, facts["channel_order"])

    def scores(self, logits: Tensor) -> Tensor:
        """Scores of the classes, each between 0 and 1, as `co3d.scores`."""
        return logits.sigmoid() if self.record.scores == "sigmoid" else logits.softmax(1)

    def begin(self, fill: str = "zeros", emit: str = "valid") -> State:
        """The state before the first frame.

        Raises:
            ValueError: for another fill or emit than these, which need the net itself, or if this
                is a clip net.
        """
        return self._stream().begin(fill, emit)

    def step(self, frame: Tensor, state: State | None = None) -> tuple[Tensor | None, State]:
        """Feeds a frame (B, C, H, W); gives logits (B, classes) or None, and the next state.

        Raises:
            ValueError: for another shape, or a state of another net or one already consumed.
            TypeError: for something that is no float32 tensor, or no state.
        """
        stream = self._stream()
        self._check(frame)
        return stream.step(frame, state)

    def __call__(self, clip: Tensor) -> Tensor:
        """Logits (B, classes) of a clip (B, C, T, H, W).

        Raises:
            ValueError, TypeError: as `step`, or if this is a continual net.
        """
        self._expect("clip")
        self._check(clip)
        if self._clip is None:
            given = torch.empty(self.record.shape)
            logits = torch.empty(self.record.shape[0], self.record.classes)
            bound = self._runtime.bind(0, {"clip": given}, {"logits": logits})
            self._clip = given, logits, bound
        given, logits, run = self._clip
        np.copyto(given.numpy(), clip.detach().numpy())
        run()
        return logits.clone()

    def _expect(self, kind: str) -> None:
        if self.record.kind != kind:
            does = {"step": "is continual: call step", "clip": "needs whole clips: call it"}
            raise ValueError(f"expected another call: {self.record.model} {does[self.record.kind]}")

    def _check(self, x: Tensor) -> None:
        if not isinstance(x, Tensor) or x.dtype != torch.float32:
            given = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"expected a float32 tensor, given {given}")
        if x.device.type != "cpu":
            raise ValueError(f"expected a tensor on the CPU, given one on {x.device}")
        if tuple(x.shape) != self.record.shape:
            raise ValueError(
                f"expected the shape of the export, {self.record.shape}, given {tuple(x.shape)}"
            )

    def _stream(self) -> Rounds:
        self._expect("step")
        return self._rounds

    def _bind(self, places: Places) -> Bound:
        record, phase = self.record, places.phase
        counter = [places.counter] if record.state == "explicit" else []
        given = [places.frame, *counter, *places.read]
        inputs = dict(zip(input_names(record, phase), given, strict=True))
        outputs = dict(zip(output_names(record, phase), places.results, strict=True))
        return self._runtime.bind(phase, inputs, outputs)

"""Opens exported files and runs them.

Files may come from anywhere. Nothing in them is executed but their graphs, by a runtime; what they
say is checked before it is used, and they lead to no other files.
"""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data.transforms import Transform
from .optimize import OptimizedStream, check_input
from .record import PRECISIONS, Record
from .runtimes import Graph, digest_of, read
from .step import kinds


class Runner(OptimizedStream):
    """An exported net on the CPU: a continual one is stepped as an optimised one, others called.

    Shapes are those of the export, tensors are float32.

    Args:
        path: the file that `export` was given.
        runtime: "onnxruntime" or "openvino" (default: that of the format; OpenVINO runs both).
        threads: of the runtime (default: those of torch).

    Attributes:
        record: what the file says of itself; others as of `OptimizedStream`.

    Raises:
        FileNotFoundError: if the file, or that of its weights, is not there.
        ValueError: for a file that is damaged or was not written by `export`, or a runtime that is
            not installed or does not run the format.
    """

    def __init__(
        self, path: str | Path, runtime: str | None = None, threads: int | None = None
    ) -> None:
        path = Path(path)
        runtimes = ("openvino",) if path.suffix == ".xml" else ("onnxruntime", "openvino")
        self.engine, self.threads = runtime or runtimes[0], threads or torch.get_num_threads()
        if self.engine not in runtimes:
            raise ValueError(f"expected a runtime that runs {path.name}, given {runtime!r}")
        if threads is not None and threads < 1:
            raise ValueError(f"expected 1 or more threads, given {threads}")
        files = [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]
        for file in files:
            if not file.is_file():
                sentence = f"expected {file.name} in {path.parent}: exported files keep their names"
                raise FileNotFoundError(sentence)
        self.given, self.device = torch.float32, torch.device("cpu")
        try:
            self.record, phases = read(path, self.engine, self.threads)
            self.shape, self.dtype = self.record.shape, PRECISIONS[self.record.precision]
            original = f"{self.record.model} {digest_of(path)[:12]} in {self.engine}"
            self._describe(original, self.record, self.record.queues)
            self._backend = Rings(self.record, phases)
            example = torch.zeros(self.shape)  # a runtime refuses what does not fit
            if self.record.kind == "clip":
                self(example)
            else:
                self.steps(example[:, :, None].expand(-1, -1, self.stride, -1, -1))
        except ImportError as error:
            raise ValueError(f"{error}: pip install 'co3d[deploy]'") from None
        except Exception as error:  # every library has kinds of its own
            reason = [type(error).__name__, *str(error).strip().splitlines()][-1]
            raise ValueError(f"{path} cannot be opened: {reason}") from None

    @property
    def transform(self) -> Transform:
        """The input transform of the weights."""
        facts = {name: x for name, x in self.record.transform.items() if name != "fps"}
        return Transform(**facts)

    def scores(self, logits: Tensor) -> Tensor:
        """Scores of the classes, each between 0 and 1, as `co3d.scores`."""
        return logits.sigmoid() if self.record.scores == "sigmoid" else logits.softmax(1)

    def __call__(self, clip: Tensor) -> Tensor:
        """Logits (B, classes) of a clip (B, C, T, H, W).

        Raises:
            ValueError: for another shape or dtype, or if this is a continual net.
            TypeError: for something that is no tensor.
        """
        if self.record.kind != "clip":
            raise ValueError(f"{self.record.model} is continual: call step")
        check_input(self, clip, "clip")
        logits = torch.empty(self.shape[0], self.record.classes)
        self._backend.phases[0].bind([clip.detach().contiguous(), logits])()
        return logits

    def _fits(self, layers: Any) -> bool:
        if isinstance(layers, Memory):  # which only a step has changed
            return True
        places = range(self._backend.round)
        return layers.get("next") in places and super()._fits({**layers, "next": 0})


class Memory(dict):
    """The state of a stream: a ring of tensors for each queue, and `next`, a place in the round.

    Beside it lie what a step takes and gives, and the calls that are bound to all these tensors. A
    copy is a plain dict, whose tensors are bound anew.
    """

    def __init__(self, state: dict[str, Any], record: Record) -> None:
        super().__init__(state)
        self.frame, self.counter = torch.zeros(record.shape), torch.zeros((), dtype=torch.int64)
        self.logits = torch.zeros(record.shape[0], record.classes)
        self.calls: dict[int, Callable[[], Any]] = {}

    def __reduce__(self) -> tuple:  # in a form that torch.load(weights_only=True) takes
        return OrderedDict, (), None, None, iter(self.items())


class Rings:
    """Steps of exported graphs, as `OptimizedStream` uses them, on state that stays in its place.

    The tensors of a queue take turns in being written. There are more than the queue is long, a
    power of two, so that all queues come round together. Each place in this round has a call that
    is bound to its tensors once: to bind them at every step would make those of a small net in
    OpenVINO a fifth slower.
    """

    def __init__(self, record: Record, phases: list[Graph]) -> None:
        self.record, self.phases = record, phases
        longest = max((queue.length for queue in record.queues), default=0)
        self.round = (1 << longest.bit_length()) * len(phases)
        self.kinds = kinds(dict(self.begin())) if record.kind == "step" else {}

    def begin(self) -> Memory:
        """The state before the first frame; raises ValueError for a clip net."""
        if self.record.kind != "step":
            raise ValueError(f"{self.record.model} needs whole clips: call it")
        state, dtype = {"next": 0}, PRECISIONS[self.record.precision]
        for queue in self.record.queues:
            ring = range(1 << queue.length.bit_length())
            tensors = [torch.full(queue.shape, queue.initial, dtype=dtype) for _ in ring]
            state[f"state.{queue.name}"] = tuple(tensors)
        return Memory(state, self.record)

    def step(self, frame: Tensor, phase: int, age: int, layers: dict) -> tuple[Tensor | None, dict]:
        """Changes the state in place; one that was copied is bound anew."""
        memory = layers if isinstance(layers, Memory) else Memory(layers, self.record)
        place = memory["next"]
        if place not in memory.calls:
            memory.calls[place] = self._bind(memory, place)
        memory.frame.numpy()[...] = frame.detach().numpy()  # torch would leave threads spinning
        memory.counter.numpy()[...] = age  # the stream may have begun in inference mode
        memory.calls[place]()
        memory["next"] = (place + 1) % self.round
        return (memory.logits.clone() if "logits" in self.phases[phase].ports else None), memory

    def _bind(self, memory: Memory, place: int) -> Callable[[], Any]:
        """What runs the step at a place in the round on the memory of a stream."""
        rings = {**memory, "frame": [memory.frame], "counter": [memory.counter]}
        rings["logits"] = [memory.logits]
        phases, tensors = [self.phases[n % len(self.phases)] for n in range(place + 1)], []
        for port in phases[place].ports:
            name, _, depth = port.partition("@")
            puts = sum(name in phase.ports for phase in phases[:place])
            tensors.append(rings[name][(puts - int(depth or 0)) % len(rings[name])])
        return phases[place].bind(tensors)

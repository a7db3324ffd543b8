"""Opens exported files and runs them.

Files may come from anywhere. Nothing in them is executed but their graphs, by a runtime; what they
say is checked before it is used, and they lead to no files but their own.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data.transforms import Transform
from ..nn.core import map_tensors
from ..nn.net import ClipNet, StreamNet
from ..nn.stream import Stream
from .optimize import OptimizedStream, _check_input
from .record import KEY, Record, companions, digest_of
from .runtimes import RUNTIMES, OnnxRuntime, OpenVino, installed

TOLERANCES = {"float32": 3e-4, "bfloat16": 0.1}  # of the largest logit


class Runner(OptimizedStream):
    """An exported net on the CPU: a continual one is stepped as an optimised one, others called.

    Shapes are those of the export, tensors are float32.

    Args:
        path: the file that `export` was given.
        runtime: "onnxruntime" or "openvino" (default: that of the format; OpenVINO runs both).
        threads: of the runtime (default: those of torch).

    Attributes:
        record: what the file says of itself.
        engine: the runtime.
        receptive_field, padding, warmup, stride, window: as of the net, in frames.

    Raises:
        FileNotFoundError: if the file, or one that belongs to it, is not there.
        ValueError: for a file that is damaged or was not written by `export`, files that do not
            belong together, or a runtime that is not installed or does not run the format.
    """

    def __init__(
        self, path: str | Path, runtime: str | None = None, threads: int | None = None
    ) -> None:
        path = Path(path)
        runtime = runtime or ("openvino" if path.suffix == ".xml" else "onnxruntime")
        if runtime not in RUNTIMES or (path.suffix == ".xml" and runtime != "openvino"):
            raise ValueError(f"expected a runtime that runs {path.name}, given {runtime!r}")
        if threads is not None and threads < 1:
            raise ValueError(f"expected 1 or more threads, given {threads}")
        self.record, graphs = read(path)
        original = f"{self.record.model} {digest_of([path])[:12]} in {runtime}"
        self.engine, self.threads = runtime, threads or torch.get_num_threads()
        with opening(path):
            self._start(original, RUNTIMES[runtime](graphs, self.record, self.threads))

    def _start(self, original: str, runtime: OnnxRuntime | OpenVino) -> None:
        record = self.record
        self.shape, self.dtype = record.shape, getattr(torch, record.precision)
        self.given, self.device = torch.float32, torch.device("cpu")
        self._describe(original, record, record.queues)
        self._backend = Rings(record, runtime)
        example = torch.zeros(record.shape)
        if record.kind == "clip":  # a runtime refuses what does not fit
            self(example)
        else:
            self.steps(example[:, :, None].expand(-1, -1, self.stride, -1, -1))

    @property
    def transform(self) -> Transform:
        """The input transform of the weights."""
        facts = {name: x for name, x in self.record.transform.items() if name != "fps"}
        return Transform(**facts)

    def scores(self, logits: Tensor) -> Tensor:
        """Scores of the classes, each between 0 and 1, as `co3d.scores`."""
        return logits.sigmoid() if self.record.scores == "sigmoid" else logits.softmax(1)

    def begin(self, fill: str = "zeros", emit: str = "valid") -> dict[str, Any]:
        """The state before the first frame.

        Raises:
            ValueError: for another fill or emit than these, or if this is a clip net.
        """
        if self.record.kind != "step":
            raise ValueError(f"{self.record.model} needs whole clips: call it")
        return super().begin(fill, emit)

    def __call__(self, clip: Tensor) -> Tensor:
        """Logits (B, classes) of a clip (B, C, T, H, W).

        Raises:
            ValueError: for another shape or dtype, or if this is a continual net.
            TypeError: for something that is no tensor.
        """
        if self.record.kind != "clip":
            raise ValueError(f"{self.record.model} is continual: call step")
        _check_input(self, clip, "clip")
        logits = torch.empty(self.record.shape[0], self.record.classes)
        self._backend.runtime.bind(0, [clip.detach().contiguous()], [logits])()
        return logits


class Memory(dict):
    """The state of a stream: tensors by the names of the queues, and `next`, a place in the round.

    Beside it lie the tensors that a step takes and gives, and the calls that are bound to all.
    """

    def __init__(self, state: dict[str, tuple[Tensor, ...]], record: Record) -> None:
        super().__init__(state)
        self.frame, self.counter = torch.zeros(record.shape), torch.zeros((), dtype=torch.int64)
        self.logits = torch.zeros(record.shape[0], record.classes)
        self.calls: dict[int, Callable[[], Any]] = {}

    def __reduce__(self) -> tuple:
        return dict, (dict(self),)  # what is copied or saved is bound anew


class Rings:
    """Steps of exported graphs, as `OptimizedStream` uses them, on state that stays in its place.

    The tensors of a queue take turns in being written. There are more than the queue is long, a
    power of two, so that all queues come round together. Each place in this round has a call that
    is bound to its tensors once: to bind them at every step would make those of a small net in
    OpenVINO a fifth slower.
    """

    def __init__(self, record: Record, runtime: OnnxRuntime | OpenVino) -> None:
        self.record, self.runtime, self.phases = record, runtime, record.phases
        state = self.begin()
        self.round = max(len(slots) for slots in state.values()) * len(self.phases)
        self.kinds = map_tensors(kind, state)

    def begin(self) -> Memory:
        """The state before the first frame."""
        state = {"next": (torch.zeros(1, dtype=torch.int64),)}
        dtype = getattr(torch, self.record.precision)
        for queue in self.record.queues:
            slots = range(1 << queue.length.bit_length())
            tensors = [torch.full(queue.shape, queue.initial, dtype=dtype) for _ in slots]
            state[f"state.{queue.name}"] = tuple(tensors)
        return Memory(state, self.record)

    def fits(self, layers: Any) -> bool:
        """Whether tensors are those of a stream."""
        return isinstance(layers, Memory) or map_tensors(kind, layers) == self.kinds

    def step(self, frame: Tensor, phase: int, age: int, layers: dict) -> tuple[Tensor | None, dict]:
        """Changes the state in place; one that was cloned is bound anew."""
        memory = layers if isinstance(layers, Memory) else Memory(layers, self.record)
        place = int(memory["next"][0]) % self.round
        if place not in memory.calls:
            memory.calls[place] = self._bind(memory, place)
        memory.frame.numpy()[...] = frame.detach().numpy()  # torch would leave threads spinning
        memory.counter.numpy()[...] = age  # the stream may have begun in inference mode
        memory.calls[place]()
        memory["next"][0].numpy()[...] = (place + 1) % self.round
        emits = "logits" in self.phases[phase].outputs
        return (memory.logits.clone() if emits else None), memory

    def _bind(self, memory: Memory, place: int) -> Callable[[], Any]:
        """What runs the step at a place in the round on the memory of a stream."""
        ports = self.phases[place % len(self.phases)]

        def tensor(port: str) -> Tensor:
            if port in ("frame", "counter", "logits"):
                return getattr(memory, port)
            name, _, depth = port.rpartition("@") if port in ports.inputs else (port, "", "0")
            puts = sum(name in self.phases[n % len(self.phases)].outputs for n in range(place))
            return memory[name][(puts - int(depth)) % len(memory[name])]

        if not ports.outputs:
            return lambda: None
        inputs, outputs = map(tensor, ports.inputs), map(tensor, ports.outputs)
        return self.runtime.bind(place % len(self.phases), list(inputs), list(outputs))


def kind(x: Tensor) -> tuple:
    """What a tensor of a state is like."""
    return tuple(x.shape), x.dtype, x.device.type, x.is_contiguous()


def read(path: Path) -> tuple[Record, list[Path]]:
    """The record of an export, and the files of its graphs.

    Raises:
        FileNotFoundError, ValueError: as `Runner`.
    """
    expect_files([path, *companions(path, 1)])
    with opening(path):
        if path.suffix == ".xml":
            model = installed("openvino").Core().read_model(path)
            text = model.get_rt_info(KEY).astype(str) if model.has_rt_info(KEY) else "none"
        else:
            model = installed("onnx").load_model(path, load_external_data=False)
            text = {entry.key: entry.value for entry in model.metadata_props}.get(KEY, "none")
    try:
        record = Record.from_json(text)
    except ValueError as error:
        raise ValueError(f"expected a file that co3d export wrote, given {path}: {error}") from None
    others = companions(path, record.stride)
    expect_files(others)
    if digest_of(others) != record.digest:
        raise ValueError(f"a file beside {path} is damaged or belongs to another export")
    graphs = [path, *others[:-1]]
    for graph in graphs if path.suffix == ".onnx" else []:
        refuse_foreign(graph, {others[-1].name} if others else set())
    return record, graphs


@contextmanager
def opening(path: Path) -> Iterator[None]:
    """Makes ValueErrors of what libraries raise for a file; each has kinds of its own."""
    try:
        yield
    except Exception as error:
        reason = [type(error).__name__, *str(error).strip().splitlines()][-1]
        raise ValueError(f"{path} cannot be opened: {reason}") from None


def expect_files(paths: list[Path]) -> None:
    """Raises FileNotFoundError for what is not there."""
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"expected {path.name} in {path.parent}, but it is not there: "
                                    "the files of an export keep their names")  # fmt: skip


def refuse_foreign(path: Path, known: set[str]) -> None:
    """Raises ValueError for a graph of ONNX with tensors in other files than those known."""
    graph = installed("onnx").load_model(path, load_external_data=False).graph
    attributes = [attribute for node in graph.node for attribute in node.attribute]
    tensors = [*graph.initializer, *(attribute.t for attribute in attributes)]
    entries = [entry for tensor in tensors for entry in tensor.external_data]
    nested = any(attribute.g.node or attribute.graphs for attribute in attributes)
    if nested or {entry.value for entry in entries if entry.key == "location"} - known:
        raise ValueError(f"{path} refers to a file that is not its own")


@torch.no_grad()
def difference(model: ClipNet, runner: Runner, seed: int = 0) -> float:
    """The largest difference of their logits on noise, divided by the largest logit.

    Of a continual net over the warm-up and a few predictions, at all phases.

    Raises:
        ValueError: if they predict at other frames.
    """
    generator, worst, frames = torch.Generator().manual_seed(seed), 0.0, 1
    networks = [model, runner]
    if isinstance(model, StreamNet):
        frames = model.warmup + 2 * model.stride
        networks = [Stream(model), Stream(runner)]
    for _ in range(frames):
        x = torch.randn(runner.shape, generator=generator)
        expected, given = (network(x) for network in networks)
        if (given is None) != (expected is None):
            raise ValueError(f"expected predictions at the frames of {runner.record.model}")
        if expected is not None:
            worst = max(worst, ((given - expected).abs().max() / expected.abs().max()).item())
    return worst

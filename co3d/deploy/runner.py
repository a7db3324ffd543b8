"""Opens exported files and runs them.

Files may come from anywhere. Nothing in them is executed but their graphs, by a runtime; what they
say is checked before it is used, and they lead to no files but their own.
"""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data.transforms import Transform
from ..nn.net import ClipNet, StreamNet
from .optimize import OptimizedStream
from .record import KEY, Record, companions, digest_of

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
        expect_files([path, *companions(path, 1)])
        try:
            self._open(path, RUNTIMES[runtime], threads or torch.get_num_threads())
        except (ValueError, FileNotFoundError):
            raise
        except Exception as error:  # each runtime has its own kinds
            reason = [type(error).__name__, *str(error).strip().splitlines()][-1]
            raise ValueError(f"{path} cannot be opened: {reason}") from None

    def _open(self, path: Path, kind: type, threads: int) -> None:
        record = record_of(path)
        others = companions(path, record.stride)
        expect_files(others)
        if digest_of(others) != record.digest:
            raise ValueError(f"a file beside {path} is damaged or belongs to another export")
        graphs = [path, *others[:-1]]
        for graph in graphs if path.suffix == ".onnx" else []:
            refuse_foreign(graph, others[-1].name if others else "")
        self.record, self.engine, self.threads = record, kind.name, threads
        self.shape, self.dtype = record.shape, getattr(torch, record.precision)
        self.given, self.device = torch.float32, torch.device("cpu")
        self.receptive_field, self.padding = record.receptive_field, record.padding
        self.warmup, self.stride, self.window = record.warmup, record.stride, record.window
        self.original = f"{record.model} {digest_of([path, *others])[:12]}"
        oldest = max((queue.first for queue in record.queues), default=0)
        self._settled = -(-max(oldest, self.warmup) // self.stride) * self.stride
        self._backend = Rings(record, kind(graphs, record, threads), threads)
        state, example = self._backend.begin(), torch.zeros(record.shape)
        for phase in range(self.stride):  # a runtime refuses what does not fit
            self._backend.step(example, phase, phase, state)

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
        self._check_frame(clip)
        return self._backend.step(clip, 0, 0, self._backend.begin())[0]


class Memory(dict):
    """The state of a stream: the tensors of each queue, and the step of the round that is next.

    Beside it lie what a step takes and gives, and the calls that are bound to all of this.
    """

    def __init__(self, state: dict[str, tuple[Tensor, ...]], record: Record) -> None:
        super().__init__(state)
        self.frame, self.counter = torch.zeros(record.shape), torch.zeros((), dtype=torch.int64)
        self.logits = torch.zeros(record.shape[0], record.classes)
        self.calls: dict[int, Callable[[], Any]] = {}


class Rings:
    """Steps of exported graphs, as `OptimizedStream` uses them, on state that stays in its place.

    The tensors of a queue take turns in being written. There are more than the queue is long, a
    power of two, so that all queues come round together. Each step of this round has a call that
    is bound to its tensors once: to bind them at every step would make those of a small net in
    OpenVINO a fifth slower.
    """

    def __init__(self, record: Record, runtime: Any, threads: int) -> None:
        self.record, self.runtime, self.threads = record, runtime, threads
        self.name, self.phases = runtime.name, record.phases
        self.slots = {queue.name: 1 << queue.length.bit_length() for queue in record.queues}
        self.round = max(self.slots.values(), default=1) * len(self.phases)
        self.kinds = kinds(self.begin())

    def begin(self) -> Memory:
        """The state before the first frame."""
        dtype = getattr(torch, self.record.precision)
        state = {
            f"state.{q.name}": tuple(
                torch.full(q.shape, q.initial, dtype=dtype) for _ in range(self.slots[q.name])
            )
            for q in self.record.queues
        }
        return Memory({"next": (torch.zeros(1, dtype=torch.int64),), **state}, self.record)

    def fits(self, layers: Any) -> bool:
        """Whether tensors are those of a stream."""
        return isinstance(layers, Memory) or (
            isinstance(layers, dict) and kinds(layers) == self.kinds
        )

    def step(self, frame: Tensor, phase: int, age: int, layers: dict) -> tuple[Tensor | None, dict]:
        """Changes the state in place; one that was cloned is bound anew."""
        memory = layers if isinstance(layers, Memory) else Memory(layers, self.record)
        (place,) = memory["next"]
        number = int(place)
        if number not in memory.calls:
            memory.calls[number] = self._bind(memory, number)
        memory.frame.numpy()[...] = frame.detach().numpy()  # torch would leave threads spinning
        memory.counter.fill_(age)
        memory.calls[number]()
        place.fill_((number + 1) % self.round)
        return (memory.logits.clone() if self.phases[phase].emits else None), memory

    def _bind(self, memory: Memory, number: int) -> Callable[[], Any]:
        """What runs a step of the round on the memory of a stream."""
        phase = number % len(self.phases)
        ports = self.phases[phase]

        def tensor(name: str, depth: int) -> Tensor:
            puts = sum(name in self.phases[n % len(self.phases)].writes for n in range(number))
            return memory[f"state.{name}"][(puts - depth) % self.slots[name]]

        given = [memory.frame, memory.counter][: 1 if self.record.kind == "clip" else 2]
        logits = [memory.logits] if ports.emits else []
        read = [tensor(name, depth) for name, depth in ports.reads]
        return self.runtime.bind(phase, given + read, logits + [tensor(n, 0) for n in ports.writes])


def kinds(state: dict[str, Any]) -> dict[str, list]:
    """What the tensors of a state are like."""
    return {
        name: [(tuple(x.shape), x.dtype, x.device.type, x.is_contiguous()) for x in tensors]
        for name, tensors in state.items()
    }


class OnnxRuntime:
    """The graphs of an export in sessions of ONNX Runtime."""

    name = "onnxruntime"

    def __init__(self, graphs: list[Path], record: Record, threads: int) -> None:
        self.ort, self.record = installed(self.name), record
        options = self.ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        providers = ["CPUExecutionProvider"]
        self.sessions = [self.ort.InferenceSession(g, options, providers) for g in graphs]

    def bind(self, phase: int, inputs: list[Tensor], outputs: list[Tensor]) -> Callable[[], Any]:
        """What computes the outputs from the inputs, all in their own memory."""
        session, value = self.sessions[phase], self.ort.OrtValue.ortvalue_from_numpy
        binding = session.io_binding()
        for name, x in zip(self.record.inputs(phase), inputs, strict=True):
            binding.bind_ortvalue_input(name, value(x.numpy()))
        for name, x in zip(self.record.outputs(phase), outputs, strict=True):
            binding.bind_ortvalue_output(name, value(x.numpy()))
        return lambda: session.run_with_iobinding(binding)


class OpenVino:
    """The graphs of an export as models of OpenVINO."""

    name = "openvino"

    def __init__(self, graphs: list[Path], record: Record, threads: int) -> None:
        self.ov = installed(self.name)
        core = self.ov.Core()
        models = [core.read_model(graph) for graph in graphs]
        if len(models) < len(record.phases):
            models = self._split(models[0], record)
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "bf16" if record.precision == "bfloat16" else "f32",
        }
        self.models = [core.compile_model(model, "CPU", options) for model in models]

    def _split(self, whole: Any, record: Record) -> list[Any]:
        """The graphs of the phases, which are parts of one model."""
        parameters, results = whole.get_parameters(), whole.get_results()
        models = []
        for phase in range(len(record.phases)):
            inputs, outputs = len(record.inputs(phase)), len(record.outputs(phase))
            models.append(self.ov.Model(results[:outputs], parameters[:inputs], f"phase{phase}"))
            parameters, results = parameters[inputs:], results[outputs:]
        return models

    def bind(self, phase: int, inputs: list[Tensor], outputs: list[Tensor]) -> Callable[[], Any]:
        """What computes the outputs from the inputs, all in their own memory."""
        request = self.models[phase].create_infer_request()
        for n, x in enumerate(inputs):
            request.set_input_tensor(n, self._shared(x))
        for n, x in enumerate(outputs):
            request.set_output_tensor(n, self._shared(x))
        return lambda: (request.start_async(), request.wait())

    def _shared(self, x: Tensor) -> Any:
        """Over the same memory; numpy has no bfloat16."""
        if x.dtype != torch.bfloat16:
            return self.ov.Tensor(x.numpy(), shared_memory=True)
        data = x.view(torch.uint8).numpy()
        return self.ov.Tensor(data, self.ov.Shape(x.shape), self.ov.Type.bf16)


RUNTIMES = {"onnxruntime": OnnxRuntime, "openvino": OpenVino}


def expect_files(paths: list[Path]) -> None:
    """Raises FileNotFoundError for what is not there."""
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"expected {path.name} in {path.parent}, but it is not there: "
                                    "the files of an export keep their names")  # fmt: skip


def record_of(path: Path) -> Record:
    """The record in an exported file."""
    if path.suffix == ".xml":
        model = installed("openvino").Core().read_model(path)
        text = model.get_rt_info(KEY).astype(str) if model.has_rt_info(KEY) else "none"
    else:
        model = installed("onnx").load_model(path, load_external_data=False)
        text = {entry.key: entry.value for entry in model.metadata_props}.get(KEY, "none")
    try:
        return Record.from_json(text)
    except ValueError as error:
        raise ValueError(f"expected a file that co3d export wrote, given {path}: {error}") from None


def refuse_foreign(path: Path, weights: str) -> None:
    """Raises ValueError for a graph of ONNX with tensors in another file than that of the weights.

    The runtimes themselves refuse files in other folders.
    """
    graph = installed("onnx").load_model(path, load_external_data=False).graph
    entries = [entry for tensor in graph.initializer for entry in tensor.external_data]
    if any(entry.key == "location" and entry.value != weights for entry in entries):
        raise ValueError(f"{path} refers to a file that is not its own")


def installed(name: str) -> Any:
    """A package, which is an optional one."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ValueError(f"expected {name} to be installed: pip install 'co3d[deploy]'") from None


@torch.no_grad()
def difference(model: ClipNet, runner: Runner, seed: int = 0) -> float:
    """The largest difference of their logits on noise, divided by the largest logit.

    Of a continual net from the first frame over the warm-up to a few predictions, at all phases.

    Raises:
        ValueError: if they predict at other frames.
    """
    generator = torch.Generator().manual_seed(seed)
    frames = model.warmup + 2 * model.stride if isinstance(model, StreamNet) else 1
    state, exported_state, worst = None, None, 0.0
    for number in range(1, frames + 1):
        x = torch.randn(runner.shape, generator=generator)
        if isinstance(model, StreamNet):
            expected, state = model.step(x, state)
            given, exported_state = runner.step(x, exported_state)
        else:
            expected, given = model(x), runner(x)
        if (given is None) != (expected is None):
            raise ValueError(f"expected the predictions of {runner.record.model}, but at frame "
                             f"{number} one net gives one and the other none")  # fmt: skip
        if expected is not None:
            away = (given - expected).abs().max() / expected.abs().max()
            worst = max(worst, away.item())
    return worst

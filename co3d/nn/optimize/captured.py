"""The step of a continual net as CUDA graphs: one launch in the place of hundreds of kernels."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from ..core import State
from ..explicit import Explicit, Form, Kinds, Places, Rounds
from ..fold import fold
from ..net import StreamNet
from .net import check_dtype, keep_facts


class CapturedStream:
    """A continual net for inference on a CUDA device on frames of one shape, by the same step.

    Its steps are captured as graphs (https://pytorch.org/docs/stable/notes/cuda.html#cuda-graphs)
    when a stream first comes to them, some for each stream, as each has its own memory. `step`
    consumes the state passed in: fork it with `co3d.clone` before that. Frames and logits have the
    type of the original's weights.

    Args:
        net: in evaluation mode; it stays as it is.
        frame: (B, C, H, W); only shape and device matter.
        dtype: of weights, maps and state: float32, float16, bfloat16 or float64.

    Attributes:
        receptive_field, padding, warmup, stride, window: as of the net, in frames.

    Raises:
        TypeError: for another dtype, or a layer without a form on frames.
        ValueError: for a net in training mode, frames that do not fit or are on another device.
    """

    def __init__(self, net: StreamNet, frame: Tensor, dtype: torch.dtype = torch.float32) -> None:
        check_dtype(dtype, frame.device)
        check_device(frame.device)
        net.body._check_input(net._as_chunk(frame))
        self.shape, self.dtype, self.given = tuple(frame.shape), dtype, frame.dtype
        self.device, self.window = frame.device, net.window
        self.receptive_field, self.padding = net.receptive_field, net.padding
        self.warmup, self.stride = net.warmup, net.stride
        folded = copy.deepcopy(fold(net)).to(dtype)
        self._net = Explicit(folded, frame.to(dtype), Form(channels_last=True))
        for weight in self._net.parameters():
            if weight.ndim == 4:
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        classes = net.classifier.out_features
        kinds = Kinds(self.shape, classes, self.given, dtype, self.device)
        queues = tuple(self._net.queues.values())
        owner = net._signature()
        self._rounds = Rounds(owner, kinds, self.warmup, queues, self._net.phases, self._bind)
        self._pool = None  # memory for what lasts no longer than a step, of all graphs
        keep_facts(net, self)

    def begin(self, fill: str = "zeros", emit: str = "valid") -> State:
        """The state before the first frame.

        Raises:
            ValueError: for another fill or emit than these.
        """
        return self._rounds.begin(fill, emit)

    @torch.no_grad()
    def step(self, frame: Tensor, state: State | None = None) -> tuple[Tensor | None, State]:
        """Feeds a frame (B, C, H, W); gives logits (B, classes) or None, and the next state.

        Raises:
            ValueError: for other frames, or a state of another net or one already consumed.
            TypeError: for something that is no tensor, or no state.
        """
        if not isinstance(frame, Tensor):
            raise TypeError(f"expected a frame as a tensor, given {type(frame).__name__}")
        if (tuple(frame.shape), frame.dtype, frame.device) != (self.shape, self.given, self.device):
            raise ValueError(
                f"expected a frame {self.shape} of {self.given} on {self.device}, for which the "
                f"net was captured, given {tuple(frame.shape)} of {frame.dtype} on {frame.device}"
            )
        return self._rounds.step(frame, state)

    def _bind(self, places: Places) -> Callable[[], None]:
        step = self._net.phases[places.phase]

        def work() -> None:
            results = step(places.frame.to(self.dtype), places.counter, *places.read)
            for place, result in zip(places.results, results, strict=True):
                place.copy_(result)

        return self._captured(work)

    def _captured(self, work: Callable[[], None]) -> Callable[[], None]:
        """The same work as a graph. It is done a few times before, for whatever libraries choose
        and allocate when they are first called; that writes what the graph will write again."""
        with torch.cuda.device(self.device):
            beside, now = torch.cuda.Stream(), torch.cuda.current_stream()
            beside.wait_stream(now)
            with torch.cuda.stream(beside):
                for _ in range(3):
                    work()
            now.wait_stream(beside)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool):
                work()
        self._pool = graph.pool()
        return graph.replay


def check_device(device: torch.device) -> None:
    """Raises ValueError where there are no such graphs."""
    if device.type != "cuda":
        raise ValueError(f"expected a CUDA device to capture graphs of steps, given {device}")

"""Layers that look at more than one frame, all of them sliding windows, and queues of frames."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .core import Continual, Timing


class Windowed(Continual):
    """A layer that slides a window of temporal size d(k - 1) + 1 over the frames.

    State: where the next window starts, counted from the next input (negative: so many frames ago),
    and the inputs from there on, or at first the name of the fill. It tells the phase, not the age.
    """

    pad_value = 0.0
    delay = Continual.warmup  # of one layer: d(k - 1) - p

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._prepare()

    def _prepare(self) -> None:
        kernel, dilation, padding, _ = self._time
        if padding > dilation * (kernel - 1):
            raise ValueError(
                f"expected a temporal padding of at most {dilation * (kernel - 1)} for kernel "
                f"{kernel} and dilation {dilation}, given {padding}"
            )
        if getattr(self, "ceil_mode", False):
            raise ValueError("expected ceil_mode=False, given True: a stream has no end")

    def _along(self, axis: int) -> tuple[int, ...]:
        """Kernel, dilation, padding and stride along time (0), height (1) or width (2)."""
        dilation = getattr(self, "dilation", 1)
        values = (self.kernel_size, dilation, self.padding, self.stride)
        return tuple(value if isinstance(value, int) else value[axis] for value in values)

    @property
    def _time(self) -> tuple[int, ...]:
        return self._along(0)

    @property
    def timing(self) -> Timing:
        kernel, dilation, padding, stride = self._time
        return Timing(dilation * (kernel - 1) + 1, padding, stride)

    def _slide(self, x: Tensor, padding: int = 0) -> Tensor:
        """The layer on a clip with this temporal padding, and its own padding in space."""
        raise NotImplementedError

    def forward(self, x: Tensor, pad: bool = True) -> Tensor:
        """The layer on a clip (B, C, T, H, W); `pad=False` leaves its temporal padding out."""
        self._size(x)
        span, padding, *_ = self.timing
        padding = padding if pad else 0
        least, name = max(1, span - 2 * padding), type(self).__name__
        if x.shape[2] < least:
            raise ValueError(f"expected at least {least} frames for {name}, given {x.shape[2]}")
        return self._slide(x, padding)

    def _size(self, x: Tensor) -> list[int]:
        """Height and width of the outputs; the kernel must fit into the padded frame."""
        sizes = []
        for axis, size in ((1, x.shape[-2]), (2, x.shape[-1])):
            kernel, dilation, padding, stride = self._along(axis)
            least = dilation * (kernel - 1) + 1 - 2 * padding
            if size < least:
                name = type(self).__name__
                raise ValueError(
                    f"expected frames of {least} pixels or more for {name}, given {size}"
                )
            sizes.append((size - least) // stride + 1)
        return sizes

    def _begin(self, start: int, fill: str, emit: str) -> tuple[Any, int]:
        _, padding, stride, _ = self.timing
        output = 0 if emit == "valid" else math.ceil((start - self.delay) / stride)
        return (output * stride - padding - start, fill), output

    def _steps(self, x: Tensor | None, state: Any, end: bool) -> tuple[Tensor | None, Any]:
        span, padding, stride, _ = self.timing
        lead, past = state
        if x is not None:
            past, lead = self._behind(past, x, lead), lead - x.shape[2]
        if isinstance(past, str):  # no frame has come
            return None, state
        if end and padding:
            past = torch.cat([past, constant(past, padding, self.pad_value)], 2)
            lead -= padding
        past = past[:, :, lead + past.shape[2] :]  # drops frames where the stride leaves gaps
        ready = max(0, (past.shape[2] - span) // stride + 1)
        y = self._slide(past) if ready else None
        return y, (lead + ready * stride, past[:, :, ready * stride :].clone())

    def _behind(self, past: Tensor | str, x: Tensor, lead: int) -> Tensor:
        """A chunk behind the last inputs, or at first behind what stands for them."""
        if isinstance(past, str):
            self._size(x)
            if past == "replicate":
                past = x[:, :, :1].repeat_interleave(max(0, -lead), 2)
            else:
                past = constant(x, -lead, self.pad_value)
        return torch.cat([past, x], 2) if past.shape[2] else x


class Subsample(Windowed):
    """Every `stride`-th frame, from the first on."""

    kernel_size, padding = 1, 0

    def __init__(self, stride: int) -> None:
        nn.Module.__init__(self)
        if stride < 1:
            raise ValueError(f"expected a stride of 1 or more frames, given {stride}")
        self.stride = stride

    def extra_repr(self) -> str:
        return f"stride={self.stride}"

    def _slide(self, x: Tensor, padding: int = 0) -> Tensor:
        return x[:, :, :: self.stride]


class Delay(Windowed):
    """Hands frame t on at frame t + `frames`: the paper's delayed residual.

    On a clip it is the identity, like a convolution of size 2 * frames + 1 and padding `frames`
    whose only weight is in the middle; without padding it drops `frames` columns at either end.
    """

    stride = 1

    def __init__(self, frames: int) -> None:
        nn.Module.__init__(self)
        if frames < 0:
            raise ValueError(f"expected a delay of 0 or more frames, given {frames}")
        self.frames = frames
        self.kernel_size, self.padding = (2 * frames + 1, 1, 1), (frames, 0, 0)

    def extra_repr(self) -> str:
        return f"frames={self.frames}"

    def _slide(self, x: Tensor, padding: int = 0) -> Tensor:
        dropped = self.frames - padding
        return x[:, :, dropped : x.shape[2] - dropped]

    def _begin(self, start: int, fill: str, emit: str) -> tuple[Any, int]:
        return super()._begin(start, "zeros", emit)  # with either fill, as what waits for a join


def append(queue: int | Tensor, x: Tensor | None) -> int | Tensor:
    """Puts a chunk behind a queue; a number stands for so many zero frames of yet unknown size."""
    if x is None:
        return queue
    if not isinstance(queue, Tensor):
        queue = constant(x, queue, 0.0)
    return torch.cat([queue, x], 2) if queue.shape[2] else x


def take(queue: Tensor, n: int) -> tuple[Tensor | None, Tensor]:
    """The first n frames (None if n is 0), and the rest, copied so that it holds no more memory."""
    return (queue[:, :, :n] if n else None), queue[:, :, n:].clone()


def join(
    outputs: Sequence[Tensor | None], queues: Sequence[int | Tensor]
) -> tuple[tuple[Tensor, ...] | None, tuple[int | Tensor, ...]]:
    """Puts outputs of branches behind their queues and takes the columns that all of them have."""
    queues = [append(queue, y) for queue, y in zip(queues, outputs, strict=True)]
    ready = min(queue.shape[2] if isinstance(queue, Tensor) else 0 for queue in queues)
    # Also with nothing ready: a queue must not be a view of the caller's frames.
    taken = [take(q, ready) if isinstance(q, Tensor) else (None, q) for q in queues]
    columns, queues = zip(*taken, strict=True)
    return (columns if ready else None), queues


def constant(like: Tensor, frames: int, value: float) -> Tensor:
    """Frames of one value with the size, dtype, device and layout of those in `like`."""
    return zeros(like, like.shape[1], max(0, frames), like.shape[3:]).fill_(value)


def zeros(like: Tensor, channels: int, frames: int, size: Sequence[int]) -> Tensor:
    """Zero frames with the batch, dtype, device and layout of `like`."""
    last = like.ndim == 5 and like.is_contiguous(memory_format=torch.channels_last_3d)
    layout = torch.channels_last_3d if last else torch.contiguous_format
    shape = (like.shape[0], channels, frames, *size)
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=layout).zero_()

"""Parts of a fast step that look at more than one frame."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..conv import Conv3d
from ..pointwise import ReLU
from ..pool import MaxPool3d, RunningWindow
from ..temporal import Windowed
from .kernels import Depthwise3d, Frames
from .parts import Part, Pool, Spatial, tap


class Timed(Part):
    """A sliding window over frames, as `Windowed`; subclasses differ in what they keep.

    State: `lead`, where the window of the next output starts, counted from the next input;
    `fill`, what stands before the first frame, until that has come; and what `empty` gives.
    """

    def __init__(self, layer: Windowed, frames: Frames) -> None:
        self.layer, self.timing, self.frames = layer, layer.timing, frames

    def empty(self) -> dict[str, Any]:
        """What the state holds before the first frame."""
        raise NotImplementedError

    def add(self, x: Tensor, state: dict[str, Any], ready: bool) -> Tensor | None:
        """Takes a frame; gives the output that it completes if `ready`. Lead counts from x."""
        raise NotImplementedError

    def begin(self, start: int, fill: str, emit: str) -> tuple[dict[str, Any], int]:
        (lead, fill), first = self.layer._begin(start, fill, emit)
        return {"lead": lead, "fill": fill, **self.empty()}, first

    def push(self, x: Tensor, state: dict[str, Any]) -> Tensor | None:
        if state["fill"]:
            self._fill(x, state)
        lead = state["lead"]
        ready = lead + self.timing.receptive_field <= 1
        y = self.add(x, state, ready)
        state["lead"] = lead - 1 + (self.timing.stride if ready else 0)
        return y

    def _fill(self, x: Tensor, state: dict[str, Any]) -> None:
        """Puts before the first frame what stands there."""
        fill, state["fill"] = state["fill"], ""
        before = x.clone() if fill == "replicate" else self._padding()
        first = state["lead"]
        for state["lead"] in range(0, first, -1):
            self.add(before, state, False)
        state["lead"] = first

    def finish(self, state: dict[str, Any]) -> Iterator[Tensor]:
        if state["fill"]:  # no frame has come
            return
        for _ in range(self.timing.padding):
            if (y := Timed.push(self, self._padding(), state)) is not None:
                yield y

    def _padding(self) -> Tensor:
        return self.frames.full(self.layer.pad_value)


class Sums(Timed):
    """A convolution that keeps partial sums: a frame is multiplied with every slice of the kernel
    once and added, in place, to the outputs that it belongs to."""

    def __init__(self, conv: Conv3d, frames: Frames, held: bool) -> None:
        super().__init__(conv, frames)
        kernel, self.dilation, _, self.stride = conv._time
        # The bias comes with the first slice that a sum gets.
        self.taps = [tap(conv, k, frames, bias=k == 0) for k in range(kernel)]
        self.out, self.relu, self.held = self.taps[0].out, False, held
        # an output that was used, in which a new sum can begin
        self.scratch: dict[str, tuple[Tensor, ...]] = {"spare": ()}

    def take(self, module: nn.Module) -> bool:
        taken = type(module) is ReLU
        self.relu |= taken
        return taken

    def empty(self) -> dict[str, Any]:
        return {"sums": ()}

    def add(self, x: Tensor, state: dict[str, Any], ready: bool) -> Tensor | None:
        lead, sums, last = state["lead"], [*state["sums"]], len(self.taps) - 1
        for k in range(last, -1, -1):
            n, rest = divmod(-lead - k * self.dilation, self.stride)
            if rest or n < 0:
                continue
            relu = self.relu and ready and n == 0 and k == last
            if k:
                sums[n] = self.taps[k].add_(x, sums[n], relu)
            else:
                sums.append(self._begun(x, relu))
        y = sums.pop(0) if ready else None
        state["sums"] = tuple(sums)
        if not self.held:
            self.scratch["spare"] = () if y is None else (y,)
        return y

    def _begun(self, x: Tensor, relu: bool) -> Tensor:
        spare, self.scratch["spare"] = self.scratch["spare"], ()
        return self.taps[0].into(x, *spare, relu) if spare else self.taps[0](x, relu)


class Ring(Timed):
    """A depthwise convolution that keeps its last kT inputs in a ring, for small frames.

    One convolution takes the whole ring, with a copy of the weights for each place that the newest
    frame may have. The convolution before it, `feed`, may write to the ring itself.
    """

    def __init__(self, conv: Conv3d, frames: Frames) -> None:
        super().__init__(conv, frames)
        self.out, self.length = frames, conv._time[0]
        self.feed: Spatial | None = None
        batch, channels, height, width = frames.size
        self.shape = torch.Size((batch, self.length, height, width, channels))
        weight = conv.weight.detach().to(frames.dtype)
        bias = None if conv.bias is None else conv.bias.detach().to(frames.dtype)
        self.kernels = []
        for newest in range(self.length):
            ages = [(newest - slot) % self.length for slot in range(self.length)]
            rotated = weight[:, :, [self.length - 1 - age for age in ages]]
            self.kernels.append(Depthwise3d(rotated, bias, frames, conv.padding[1:]))
        self.known: tuple[Tensor, Tensor, Sequence[Tensor]] | None = None

    def take(self, module: nn.Module) -> bool:
        return all([kernel.take(module) for kernel in self.kernels])

    def empty(self) -> dict[str, Any]:
        ring = torch.zeros(self.shape, dtype=self.frames.dtype, device=self.frames.device)
        return {"ring": ring, "next": 0}

    def push(self, x: Tensor, state: dict[str, Any]) -> Tensor | None:
        if self.feed is not None:
            if state["fill"]:
                self._fill(self.feed.kernel(x, self.feed.relu), state)
            slot = self._views(state["ring"])[1][state["next"]]
            x = self.feed.kernel.into(x, slot, self.feed.relu)
        return super().push(x, state)

    def add(self, x: Tensor, state: dict[str, Any], ready: bool) -> Tensor | None:
        newest = state["next"]
        clip, slots = self._views(state["ring"])
        if x is not slots[newest]:
            slots[newest].copy_(x.view(slots[newest].shape))
        state["next"] = (newest + 1) % self.length
        return self.kernels[newest](clip) if ready else None

    def _views(self, ring: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """The ring as a clip, and its frames; kept, because a stream has one ring."""
        if self.known is None or self.known[0] is not ring:
            slots = ring.unbind(1)
            if len(ring) == 1:
                slots = [slot.view(self.frames.shape) for slot in slots]
            self.known = ring, ring.permute(0, 4, 1, 2, 3), slots
        return self.known[1:]


class TimePool(Timed):
    """A max-pool over time, and over space before that."""

    def __init__(self, pool: MaxPool3d, frames: Frames) -> None:
        super().__init__(pool, frames)
        self.spatial = Pool(pool, frames)
        self.out = self.spatial.out
        _, self.dilation, *_ = pool._time

    def empty(self) -> dict[str, Any]:
        return {"frames": ()}

    def add(self, x: Tensor, state: dict[str, Any], ready: bool) -> Tensor | None:
        frames = (*state["frames"], self.spatial.push(x, ()))[-self.timing.receptive_field :]
        state["frames"] = frames
        if not ready:
            return None
        y = frames[0]
        for frame in frames[self.dilation :: self.dilation]:
            y = torch.maximum(y, frame)
        return y


class Window(Timed):
    """The running window: spatial means in a ring, whose mean is taken anew at each step."""

    def __init__(self, window: RunningWindow, frames: Frames) -> None:
        super().__init__(window, frames)
        batch, channels, *_ = frames.size
        self.out = frames.resized(batch, channels, 1, 1)
        self.view = batch, frames.size[2:].numel(), channels
        # Frames that a dilated window takes together are in one column.
        self.shape = batch, window.window, window.dilation, channels

    def empty(self) -> dict[str, Any]:
        ring = torch.zeros(self.shape, dtype=self.out.dtype, device=self.out.device)
        return {"ring": ring, "next": 0}

    def add(self, x: Tensor, state: dict[str, Any], ready: bool) -> Tensor | None:
        _, length, dilation, _ = self.shape
        place, column = divmod(state["next"], dilation)
        ring = state["ring"]
        ring[:, place, column] = x.view(self.view).mean(1, dtype=ring.dtype)
        state["next"] = (state["next"] + 1) % (length * dilation)
        return ring[:, :, column].mean(1) if ready else None

"""The fast twin of a continual net, with the same step."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ..core import State, Timing
from ..fold import flat, fold
from ..net import ClipNet, StreamNet
from .kernels import Frames
from .stream import Chain

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


class OptimizedStream(StreamNet):
    """A continual net for inference on frames of one shape, by the same methods.

    A state is written in place: `step` and `steps` *consume* the one passed in, so fork it with
    `co3d.clone` before that. Frames and logits have the type of the original's weights, whatever
    the type inside. Normalisation is part of the convolutions, activations and sums are made in
    place, and each convolution has the form that is fastest for its size.

    Args:
        net: in evaluation mode; it stays as it is.
        frame: (B, C, H, W); only shape and device matter.
        dtype: float32, bfloat16 or, on a GPU, float16 (the average over the window and the head
            stay float32), or float64 for checks.

    Raises:
        TypeError: for another dtype, or a layer that has no fast form.
        ValueError: for a net in training mode, or frames that do not fit.
    """

    def __init__(self, net: StreamNet, frame: Tensor, dtype: torch.dtype = torch.float32) -> None:
        nn.Module.__init__(self)
        check_dtype(dtype, frame.device)
        net.body._check_input(net._as_chunk(frame))
        self.original = net._signature()
        self.shape, self.dtype = tuple(frame.shape), dtype
        self.expected = self.shape, frame.dtype, frame.device
        self._window, self._timing = net.window, net.timing
        frames = Frames(frame.shape, dtype, frame.device)
        parts = [part for _, part in flat(fold(net).body)]
        with torch.no_grad():
            self.body = Chain(parts, frames)
        self.classifier = (
            copy.deepcopy(net.classifier).to(self.body.out.dtype).requires_grad_(False)
        )
        keep_facts(net, self)
        self.eval()

    def extra_repr(self) -> str:
        return f"{self.original}, shape={self.shape}, dtype={self.dtype}"

    @property
    def timing(self) -> Timing:
        return self._timing

    @property
    def window(self) -> int:
        return self._window

    def features(self, clip: Tensor, pad: bool = True) -> Tensor:
        """The last column of `steps`: of the window at the end, or without padding.

        Raises:
            ValueError, TypeError: for a clip that does not fit.
        """
        least = self.window if pad else self.receptive_field
        if not isinstance(clip, Tensor) or clip.ndim != 5 or clip.shape[2] < least:
            raise ValueError(f"expected a clip (B, C, T, H, W) of at least {least} frames")
        return self.steps(clip, end=pad, features=True)[0][:, :, -1]

    def _check_input(self, x: Tensor) -> None:
        if not isinstance(x, Tensor):
            raise TypeError(f"expected a clip as a tensor, given {type(x).__name__}")
        size = x.shape
        given = (*size[:2], *size[3:]), x.dtype, x.device
        if given != self.expected or len(size) != 5:
            shape, dtype, device = self.expected
            raise ValueError(
                f"expected frames {shape} of {dtype} on {device}, for which the net "
                f"was optimised, given {given[0]} of {given[1]} on {given[2]}"
            )

    def _check_frame(self, x: Tensor, state: State) -> tuple[int, ...]:
        known = state["frame"] in (None, self.shape)  # the rest is in the signature
        return self.shape if known else super()._check_frame(x, state)

    def _steps(self, x: Tensor | None, state: Any, end: bool) -> tuple[Tensor | None, Any]:
        if x is not None and x.dtype != self.dtype:
            x = x.to(self.dtype)
        y, state = self.body._steps(x, state, end)
        return (None if y is None else y.to(self.body.out.dtype)), state


def check_dtype(dtype: torch.dtype, device: torch.device) -> None:
    """Raises TypeError for a type in which no net is optimised for a device."""
    known = [one for one in DTYPES if one != torch.float16 or device.type != "cpu"]
    if dtype not in known:
        names = ", ".join(str(one).removeprefix("torch.") for one in known)
        raise TypeError(f"expected dtype in {names} on {device}, given {dtype}")


def keep_facts(net: ClipNet, twin: Any) -> None:
    """Its record and the origin of its weights, as far as it has them."""
    for name in ("spec", "weights"):
        if hasattr(net, name):
            setattr(twin, name, getattr(net, name))

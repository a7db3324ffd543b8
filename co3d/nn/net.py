"""A network = a body that ends in one vector per prediction, and a linear classifier."""

from typing import Any

import torch
from torch import Tensor, nn

from .blocks import Node, Sequential, Tree
from .core import State
from .pointwise import Linear
from .pool import RunningWindow


class ClipNet(nn.Module):
    """A regular 3D CNN: a clip (B, C, T, H, W) in, logits (B, classes) out."""

    def __init__(self, body: Sequential, classifier: Linear) -> None:
        super().__init__()
        self.body, self.classifier = body, classifier

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The body and the classifier, as the parts of a tree."""
        return Node("body", (0,), self.body), Node("classifier", (1,), self.classifier)

    @property
    def _layout(self) -> torch.memory_format:
        """Of the first convolution's weights, which decide that of the maps.

        `net.to(memory_format=...)` sets it; `create` takes the one that is fastest on a CPU.
        """
        weight = next((p for p in self.body.parameters() if p.ndim == 5), None)
        last = weight is not None and not weight.is_contiguous()
        return torch.channels_last_3d if last else torch.contiguous_format

    def features(self, clip: Tensor, pad: bool = True) -> Tensor:
        """The vector before the classifier, (B, D). `pad=False` leaves temporal padding out.

        Raises:
            ValueError, TypeError: for a clip that does not fit the network.
        """
        self.body._check_input(clip)
        if clip.device.type == "cpu":
            clip = clip.contiguous(memory_format=self._layout)
        return self.body(clip, pad=pad).flatten(2)[:, :, -1]

    def forward(self, clip: Tensor, pad: bool = True) -> Tensor:
        """Logits (B, classes) of a clip (B, C, T, H, W); raises as `features`."""
        return self.classifier(self.features(clip, pad))


class StreamNet(ClipNet, Tree):
    """A continual 3D CNN with the parameters of a ClipNet.

    On a clip it gives the logits of the last window, the last column of `steps(clip, end=True)`.
    """

    @property
    def window(self) -> int:
        """Span of the running average, in input frames; no layer behind it has a stride.

        Raises:
            ValueError: for a body without a running window.
        """
        span = self._window()
        if span is None:
            raise ValueError("expected a running window in the body of the network, given none")
        return span

    def _window(self) -> int | None:
        windows = (part for part in self.body.modules() if isinstance(part, RunningWindow))
        first = next(windows, None)
        return None if first is None else first.window * first.dilation * self.stride

    def features(self, clip: Tensor, pad: bool = True) -> Tensor:
        """The vector before the classifier at the end of the clip, (B, D).

        Raises:
            ValueError, TypeError: for a clip that does not fit the network, or is shorter than the
                window (with `pad=False`, than the receptive field).
        """
        if isinstance(clip, Tensor) and clip.ndim == 5:
            least = (self._window() or 1) if pad else self.receptive_field
            if clip.shape[2] < least:
                what = "window" if pad else "receptive field, for pad=False"
                given = clip.shape[2]
                raise ValueError(f"expected at least {least} frames, the {what}, given {given}")
        return super().features(clip, pad)

    @torch.no_grad()
    def steps(
        self,
        x: Tensor | None,
        state: State | None = None,
        end: bool = False,
        features: bool = False,
    ) -> tuple[Tensor | None, State]:
        """As `Continual.steps`, with logits (B, classes, T'), or features (B, D, T'), or None."""
        y, state = super().steps(x, state, end)
        if y is not None:
            y = y.flatten(2)
            y = y if features else self.classifier(y)
        return y, state

    def step(
        self, x: Tensor, state: State | None = None, features: bool = False
    ) -> tuple[Tensor | None, State]:
        """As `Continual.step`, with logits (B, classes), or features (B, D), or None."""
        y, state = self.steps(self._as_chunk(x), state, features=features)
        return (None if y is None else y.squeeze(2)), state

    def _begin(self, start: int, fill: str, emit: str) -> tuple[Any, int]:
        return self.body._begin(start, fill, emit)

    def _steps(self, x: Tensor | None, state: Any, end: bool) -> tuple[Tensor | None, Any]:
        return self.body._steps(x, state, end)

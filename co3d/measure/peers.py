"""Our continual networks from the layers of the library continual-inference, to compare with.

A peer has the weights of our network and gives its logits at the same frames. It uses the layers of
version 1.2.4 as they are, put together as the library's documentation does.
"""

import logging
import warnings
from collections import OrderedDict

import torch
from torch import Tensor, nn

from .. import nn as ours
from ..nn import StreamNet, fold


class LeftOut(ValueError):
    """A form that cannot run here; the text says why."""


class Peer(nn.Module):
    """A network of continual-inference's layers, which hide the state: it serves one stream.

    Args:
        net: CoX3D, CoSlow or CoI3D in evaluation mode; its weights are copied.
        tuned: apply what costs nothing: BatchNorm folded into convolutions, weights and frames
            channels-last, activations in place. Otherwise all is as the library has it, in
            torch's default layout.

    Raises:
        ImportError: without continual-inference.
        LeftOut: for another network.
    """

    def __init__(self, net: StreamNet, tuned: bool = False) -> None:
        super().__init__()
        logging.getLogger("continual").setLevel(logging.ERROR)  # it warns of temporal strides
        self.tuned, self.classifier = tuned, net.classifier
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.body = _twin((fold(net) if tuned else net).body, tuned).eval()

    def step(self, frame: Tensor, state: None = None) -> tuple[Tensor | None, None]:
        """Feeds a frame (B, C, H, W); returns logits (B, classes) or None, and None for a state."""
        if self.tuned:
            frame = frame.contiguous(memory_format=torch.channels_last)
        y = self.body.forward_step(frame)
        return (self.classifier(y.flatten(1)) if isinstance(y, Tensor) else None), None

    def steps(self, frames: Tensor, state: None = None) -> tuple[None, None]:
        """Feeds frames (B, C, T, H, W) of the start-up at once."""
        self.body.forward_steps(frames)
        return None, None

    def state_bytes(self) -> int:
        """Memory of what the layers hold between frames."""
        return sum(layer.state_buffer.nbytes for layer in self._stateful())

    def take_state(self, other: "Peer") -> None:
        """Goes on where a tuned peer of the same architecture is, in torch's default layout.

        Times are right at once, logits after as many frames as the receptive field: the tuned
        convolutions hold other values.
        """
        for layer, source in zip(self._stateful(), other._stateful(), strict=True):
            if state := source.get_state():
                layer.set_state(
                    tuple(part.clone(memory_format=torch.contiguous_format) for part in state)
                )

    def _stateful(self) -> list[nn.Module]:
        return [layer for layer in self.modules() if hasattr(layer, "state_buffer")]


def _twin(part: nn.Module, tuned: bool) -> nn.Module:
    """The library's form of a part of our network; raises LeftOut where it has none."""
    import continual

    match part:
        case nn.Conv3d() if part.stride[0] == part.dilation[0] == 1:
            twin = continual.Conv3d.build_from(part).to(part.weight)  # in torch's default layout
            return twin.to(memory_format=torch.channels_last_3d) if tuned else twin
        case nn.Conv3d():
            what = "convolutions that are strided or dilated in time"
        case ours.Sequential():
            parts = [(name, _twin(child, tuned)) for name, child in part.named_children()]
            return continual.Sequential(OrderedDict(parts))
        case ours.Residual():
            main, activation = _twin(part.main, tuned), part.activation
            if isinstance(part.shortcut, ours.Identity):
                joined = continual.Residual(main)
            else:
                shortcut = _twin(part.shortcut, tuned)
                joined = continual.BroadcastReduce(shortcut, main, reduce="sum")
            return continual.Sequential(joined, _twin(activation, tuned)) if activation else joined
        case ours.SqueezeExcite():
            gate = continual.Sequential(
                continual.Lambda(lambda x: x.mean((-1, -2), keepdim=True)),
                _twin(part.fc1, tuned),
                nn.ReLU(inplace=tuned),
                _twin(part.fc2, tuned),
                nn.Sigmoid(),
            )
            return continual.BroadcastReduce(continual.Delay(0), gate, reduce="mul")
        case ours.RunningWindow(dilation=1):
            return continual.AdaptiveAvgPool3d((1, 1, 1), kernel_size=part.window)
        case ours.MaxPool3d():
            pool = nn.MaxPool3d(part.kernel_size, part.stride, part.padding)
            return continual.continual(pool)
        case ours.BatchNorm3d():
            norm = nn.BatchNorm3d(part.num_features, eps=part.eps, device="meta")
            norm._parameters, norm._buffers = dict(part._parameters), dict(part._buffers)
            return norm
        case ours.ReLU() | ours.SiLU():
            return (nn.ReLU if isinstance(part, ours.ReLU) else nn.SiLU)(inplace=tuned)
        case ours.Dropout():
            return nn.Dropout(part.p)
        case _:
            what = type(part).__name__
    raise LeftOut(
        f"expected CoX3D, CoSlow or CoI3D for continual-inference, given a network with {what}"
    )

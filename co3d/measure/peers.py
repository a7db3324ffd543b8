"""The same continual networks from the layers of the library continual-inference, to compare with.

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
    """A network of continual-inference's layers with the weights of ours.

    That library hides the state in its layers, so a peer serves one stream or batch.

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
        import continual

        logging.getLogger("continual").setLevel(logging.ERROR)  # it warns of temporal strides
        self.tuned, self.classifier = tuned, net.classifier
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.body = Layers(continual, tuned).twin((fold(net) if tuned else net).body).eval()

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
        """Memory of what the layers hold between frames: their buffers named state_buffer."""
        buffers = dict(self.named_buffers()).items()
        return sum(buffer.nbytes for name, buffer in buffers if name.endswith("state_buffer"))


class Layers:
    """Makes the library's layers from ours, with the same weights; `tuned` as in `Peer`."""

    def __init__(self, library, tuned: bool) -> None:
        self.library, self.tuned = library, tuned

    def twin(self, part: nn.Module) -> nn.Module:
        """The library's form of a part of our network; raises LeftOut where it has none."""
        library, tuned = self.library, self.tuned
        match part:
            case nn.Conv3d():
                return self._conv(part)
            case ours.Sequential():
                parts = ((name, self.twin(child)) for name, child in part.named_children())
                return library.Sequential(OrderedDict(parts))
            case ours.Residual():
                return self._residual(part)
            case ours.SqueezeExcite():
                return self._gate(part)
            case ours.RunningWindow(dilation=1):
                return library.AdaptiveAvgPool3d((1, 1, 1), kernel_size=part.window)
            case ours.MaxPool3d():
                plain = nn.MaxPool3d(part.kernel_size, part.stride, part.padding)
                return library.continual(plain)
            case ours.BatchNorm3d():
                norm = nn.BatchNorm3d(part.num_features, eps=part.eps, device="meta")
                norm._parameters, norm._buffers = dict(part._parameters), dict(part._buffers)
                return norm
            case ours.ReLU():
                return nn.ReLU(inplace=tuned)
            case ours.SiLU():
                return nn.SiLU(inplace=tuned)
            case ours.Dropout():
                return nn.Dropout(part.p)
        raise _left_out(type(part).__name__)

    def _conv(self, conv: nn.Conv3d) -> nn.Module:
        if conv.stride[0] > 1 or conv.dilation[0] > 1:
            raise _left_out("convolutions that are strided or dilated in time")
        plain = nn.Conv3d(
            *(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding),
            groups=conv.groups,
            bias=conv.bias is not None,
        )
        plain.weight, plain.bias = conv.weight, conv.bias
        twin = self.library.continual(plain).to(conv.weight)  # copied, in torch's default layout
        return twin.to(memory_format=torch.channels_last_3d) if self.tuned else twin

    def _residual(self, block: ours.Residual) -> nn.Module:
        main = self.twin(block.main)
        if isinstance(block.shortcut, ours.Identity):
            joined = self.library.Residual(main)
        else:
            joined = self.library.BroadcastReduce(self.twin(block.shortcut), main, reduce="sum")
        if block.activation is None:
            return joined
        return self.library.Sequential(joined, self.twin(block.activation))

    def _gate(self, gate: ours.SqueezeExcite) -> nn.Module:
        parts = {
            "mean": self.library.Lambda(lambda x: x.mean((-1, -2), keepdim=True)),
            "fc1": self.twin(gate.fc1),
            "relu": nn.ReLU(inplace=self.tuned),
            "fc2": self.twin(gate.fc2),
            "sigmoid": nn.Sigmoid(),
        }
        product = self.library.Sequential(OrderedDict(parts))
        return self.library.BroadcastReduce(self.library.Delay(0), product, reduce="mul")


def _left_out(what: str) -> LeftOut:
    return LeftOut(
        f"expected CoX3D, CoSlow or CoI3D for continual-inference, given a network with {what}"
    )

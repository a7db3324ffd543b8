"""The same continual networks from the layers of the library continual-inference, to compare with.

A peer has the weights of our network and gives its logits at the same frames. Its layers are those
of version 1.2.4 as they are, put together as the library's documentation does.
"""

import logging
import warnings
from collections import OrderedDict
from functools import singledispatchmethod
from types import ModuleType

import torch
from torch import Tensor, nn

from .. import nn as ours
from ..nn import StreamNet, fold


class NoPeer(ValueError):
    """A network that the library has no layers for."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"expected CoX3D, CoSlow or CoI3D for continual-inference, given a network with {what}"
        )


class Peer(nn.Module):
    """A network of continual-inference's layers with the weights of ours.

    Its state is hidden in its layers, as that library has it, so it serves one stream or batch.

    Args:
        net: CoX3D, CoSlow or CoI3D in evaluation mode; its weights are copied.
        tuned: whether to apply what costs nothing: BatchNorm folded into convolutions, weights and
            frames channels-last, activations in place. Otherwise all is as the library has it, in
            torch's default layout.

    Raises:
        ImportError: without continual-inference.
        NoPeer: for another network.
    """

    def __init__(self, net: StreamNet, tuned: bool = False) -> None:
        super().__init__()
        layers = Layers(continual_inference(), tuned)
        if not isinstance(net, StreamNet):
            raise NoPeer("whole clips")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.body = layers.of((fold(net) if tuned else net).body).eval()
        self.classifier, self.tuned = net.classifier, tuned

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


def continual_inference() -> ModuleType:
    """The library.

    Raises:
        ImportError: with what to install.
    """
    try:
        import continual
    except ImportError:
        raise ImportError(
            "expected the package continual-inference, which is not installed: "
            "pip install continual-inference==1.2.4"
        ) from None
    logging.getLogger("continual").setLevel(logging.ERROR)  # it tells of every temporal stride
    return continual


class Layers:
    """Makes the library's layers of ours, with the same weights; `tuned` as of `Peer`."""

    def __init__(self, library: ModuleType, tuned: bool) -> None:
        self.library, self.tuned = library, tuned

    @singledispatchmethod
    def of(self, part: nn.Module) -> nn.Module:
        """The library's form of a part of our network; raises NoPeer where it has none."""
        raise NoPeer(type(part).__name__)

    @of.register
    def _(self, conv: nn.Conv3d) -> nn.Module:
        if conv.stride[0] > 1 or conv.dilation[0] > 1:
            raise NoPeer("convolutions that are strided or dilated in time")
        plain = nn.Conv3d(
            *(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding),
            groups=conv.groups,
            bias=conv.bias is not None,
        )
        plain.weight, plain.bias = conv.weight, conv.bias
        twin = self.library.continual(plain).to(conv.weight)  # copied, in torch's default layout
        return twin.to(memory_format=torch.channels_last_3d) if self.tuned else twin

    @of.register
    def _(self, chain: ours.Sequential) -> nn.Module:
        parts = ((name, self.of(part)) for name, part in chain.named_children())
        return self.library.Sequential(OrderedDict(parts))

    @of.register
    def _(self, block: ours.Residual) -> nn.Module:
        main = self.of(block.main)
        if isinstance(block.shortcut, ours.Identity):
            joined = self.library.Residual(main)
        else:
            joined = self.library.BroadcastReduce(self.of(block.shortcut), main, reduce="sum")
        if block.activation is None:
            return joined
        return self.library.Sequential(joined, self.of(block.activation))

    @of.register
    def _(self, gate: ours.SqueezeExcite) -> nn.Module:
        parts = {
            "mean": self.library.Lambda(lambda x: x.mean((-1, -2), keepdim=True)),
            "fc1": self.of(gate.fc1),
            "relu": nn.ReLU(inplace=self.tuned),
            "fc2": self.of(gate.fc2),
            "sigmoid": nn.Sigmoid(),
        }
        product = self.library.Sequential(OrderedDict(parts))
        return self.library.BroadcastReduce(self.library.Delay(0), product, reduce="mul")

    @of.register
    def _(self, pool: ours.RunningWindow) -> nn.Module:
        if pool.dilation > 1:
            raise NoPeer("a dilated window")
        return self.library.AdaptiveAvgPool3d((1, 1, 1), kernel_size=pool.window)

    @of.register
    def _(self, pool: ours.MaxPool3d) -> nn.Module:
        plain = nn.MaxPool3d(pool.kernel_size, pool.stride, pool.padding)
        return self.library.continual(plain)

    @of.register
    def _(self, norm: ours.BatchNorm3d) -> nn.Module:
        twin = nn.BatchNorm3d(norm.num_features, eps=norm.eps, device="meta")
        twin._parameters, twin._buffers = dict(norm._parameters), dict(norm._buffers)
        return twin

    @of.register
    def _(self, part: ours.ReLU) -> nn.Module:
        return nn.ReLU(inplace=self.tuned)

    @of.register
    def _(self, part: ours.SiLU) -> nn.Module:
        return nn.SiLU(inplace=self.tuned)

    @of.register
    def _(self, part: ours.Dropout) -> nn.Module:
        return nn.Dropout(part.p)

"""The same continual networks from the layers of the library continual-inference, to compare with.

A peer has the weights of our network and gives its logits at the same frames. Its layers are those
of version 1.2.4 as they are, put together as the library's documentation does.
"""

import logging
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from types import ModuleType

import torch
from torch import Tensor, nn

from ..nn import (
    BatchNorm3d,
    Conv3d,
    Dropout,
    Identity,
    MaxPool3d,
    ReLU,
    Residual,
    RunningWindow,
    Sequential,
    SiLU,
    SqueezeExcite,
    StreamNet,
    fold,
)

Build = Callable[[ModuleType, nn.Module, bool], nn.Module]  # library, our layer, tuned


class NoPeer(ValueError):
    """A network that the library has no layers for."""


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
        library = continual_inference()
        if not isinstance(net, StreamNet):
            raise NoPeer("expected a stream for continual-inference, whose clip nets are torch's")
        source = fold(net) if tuned else net
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.body = _build(library, source.body, tuned).eval()
        self.classifier, self.tuned = net.classifier, tuned

    def step(self, frame: Tensor, state: None = None) -> tuple[Tensor | None, None]:
        """Feeds a frame (B, C, H, W); returns logits (B, classes) or None, and None for a state."""
        if self.tuned:
            frame = frame.contiguous(memory_format=torch.channels_last)
        y = self.body.forward_step(frame)
        return (self.classifier(y.flatten(1)) if isinstance(y, Tensor) else None), None

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


def _build(library: ModuleType, part: nn.Module, tuned: bool) -> nn.Module:
    if type(part) not in _BUILDS:
        raise _no_peer(type(part).__name__)
    return _BUILDS[type(part)](library, part, tuned)


def _no_peer(what: str) -> NoPeer:
    return NoPeer(
        f"expected CoX3D, CoSlow or CoI3D for continual-inference, given a network with {what}"
    )


def _conv(library: ModuleType, conv: nn.Conv3d, tuned: bool) -> nn.Module:
    if conv.stride[0] > 1 or conv.dilation[0] > 1:
        raise _no_peer("convolutions that are strided or dilated in time")
    plain = nn.Conv3d(
        *(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding),
        groups=conv.groups,
        bias=conv.bias is not None,
    )
    plain.weight, plain.bias = conv.weight, conv.bias
    twin = library.continual(plain).to(conv.weight)  # it copies them, in torch's default layout
    return twin.to(memory_format=torch.channels_last_3d) if tuned else twin


def _sequential(library: ModuleType, chain: Sequential, tuned: bool) -> nn.Module:
    parts = ((name, _build(library, part, tuned)) for name, part in chain.named_children())
    return library.Sequential(OrderedDict(parts))


def _residual(library: ModuleType, block: Residual, tuned: bool) -> nn.Module:
    main = _build(library, block.main, tuned)
    if isinstance(block.shortcut, Identity):
        joined = library.Residual(main)
    else:
        shortcut = _build(library, block.shortcut, tuned)
        joined = library.BroadcastReduce(shortcut, main, reduce="sum")
    if block.activation is None:
        return joined
    return library.Sequential(joined, _build(library, block.activation, tuned))


def _gate(library: ModuleType, gate: SqueezeExcite, tuned: bool) -> nn.Module:
    if gate.gate != "frame":
        raise _no_peer(f"a gate over a {gate.gate}")
    mean = library.Lambda(lambda x: x.mean((-1, -2), keepdim=True))
    parts = {
        "mean": mean,
        "fc1": _conv(library, gate.fc1, tuned),
        "relu": nn.ReLU(inplace=tuned),
        "fc2": _conv(library, gate.fc2, tuned),
        "sigmoid": nn.Sigmoid(),
    }
    product = library.Sequential(OrderedDict(parts))
    return library.BroadcastReduce(library.Delay(0), product, reduce="mul")


def _window(library: ModuleType, pool: RunningWindow, tuned: bool) -> nn.Module:
    if pool.dilation > 1:
        raise _no_peer("a dilated window")
    return library.AdaptiveAvgPool3d((1, 1, 1), kernel_size=pool.window)


def _max_pool(library: ModuleType, pool: nn.MaxPool3d, tuned: bool) -> nn.Module:
    return library.continual(nn.MaxPool3d(pool.kernel_size, pool.stride, pool.padding))


def _norm(library: ModuleType, norm: nn.BatchNorm3d, tuned: bool) -> nn.Module:
    twin = nn.BatchNorm3d(norm.num_features, eps=norm.eps, device="meta")
    twin._parameters, twin._buffers = dict(norm._parameters), dict(norm._buffers)
    return twin


_BUILDS: Mapping[type, Build] = {
    Conv3d: _conv,
    Sequential: _sequential,
    Residual: _residual,
    SqueezeExcite: _gate,
    RunningWindow: _window,
    MaxPool3d: _max_pool,
    BatchNorm3d: _norm,
    ReLU: lambda library, part, tuned: nn.ReLU(inplace=tuned),
    SiLU: lambda library, part, tuned: nn.SiLU(inplace=tuned),
    Dropout: lambda library, part, tuned: nn.Dropout(part.p),
}

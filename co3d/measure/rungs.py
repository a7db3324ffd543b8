"""The forms in which a network is timed, from plain torch to an exported file, and its peers.

Every form of a network has its weights. What a form needs is looked up when it is made.
"""

import copy
import importlib.util
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..nn import state_bytes
from .peers import Peer

PRECISIONS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
Made = tuple[Any, Tensor]  # what is stepped or called, and what it is fed


class LeftOut(Exception):
    """A form that cannot be timed here; the text says why."""


@dataclass(frozen=True)
class Rung:
    """A form of a network.

    Attributes:
        make: of a network, a frame or clip in float32, and a number type.
        needs: packages beside torch.
        mode: "clip" or "stream" where it is for one of them alone.
        seen: whether torch's operators do the work, so that memory can be watched.
    """

    make: Callable[[nn.Module, Tensor, torch.dtype], Made]
    needs: tuple[str, ...] = ()
    mode: str = ""
    seen: bool = True


def make(name: str, net: nn.Module, example: Tensor, precision: str) -> Made:
    """The network in the form `name`, and the frame or clip to feed it.

    Args:
        net: in evaluation mode; it keeps its number type and layout.
        example: a frame (B, C, H, W) of a stream, or a clip (B, C, T, H, W), in float32.

    Raises:
        LeftOut: if the form or the precision is not to be had here.
    """
    rung = RUNGS[name]
    if reason := _slow(precision, example.device):
        raise LeftOut(reason)
    if missing := [package for package in rung.needs if not importlib.util.find_spec(package)]:
        raise LeftOut(f"the package {missing[0]} is not installed")
    try:
        return rung.make(net, example, PRECISIONS[precision])
    except (ImportError, ValueError, TypeError, NotImplementedError) as error:
        raise LeftOut(str(error).splitlines()[0]) from error


def held_bytes(made: Any, state: Any) -> int:
    """Memory of the state of one of the streams that `make` makes."""
    return made.state_bytes() if isinstance(made, Peer) else state_bytes(state)


def _slow(precision: str, device: torch.device) -> str:
    """Why a precision would be no faster than float32 on a device; "" where it is."""
    if precision == "float16" and device.type == "cpu":
        return "float16 is for GPUs"
    return slow_bfloat16(device) if precision == "bfloat16" else ""


def slow_bfloat16(device: str | torch.device) -> str:
    """Why bfloat16 would be no faster than float32 on a device; "" where it is."""
    if torch.device(device).type != "cpu" or amx() or torch.cpu._is_avx512_bf16_supported():
        return ""
    return "this CPU has no instructions for bfloat16, neither AMX nor AVX-512"


def amx() -> bool:
    """Whether the CPU multiplies matrices of bfloat16 in tiles."""
    return torch.cpu._is_amx_tile_supported()


def _contiguous(net: nn.Module, example: Tensor, dtype: torch.dtype) -> Made:
    net = copy.deepcopy(net).to(dtype)
    for weight in net.parameters():  # `to` would leave the strides of axes of size 1
        weight.data = weight.data.clone(memory_format=torch.contiguous_format)
    return net, example.to(dtype)


def _eager(net: nn.Module, example: Tensor, dtype: torch.dtype) -> Made:
    net = net if dtype == torch.float32 else copy.deepcopy(net).to(dtype)
    layout = torch.channels_last if example.ndim == 4 else torch.channels_last_3d
    return net, example.to(dtype, memory_format=layout)


def _optimised(graph: bool) -> Callable[[nn.Module, Tensor, torch.dtype], Made]:
    def make(net: nn.Module, example: Tensor, dtype: torch.dtype) -> Made:
        from ..nn.optimize import optimize

        return optimize(net, example, dtype, graph), example

    return make


def _exported(format: str) -> Callable[[nn.Module, Tensor, torch.dtype], Made]:
    def make(net: nn.Module, example: Tensor, dtype: torch.dtype) -> Made:
        from ..export import FORMATS, Runner, export

        precision = str(dtype).removeprefix("torch.")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"net{FORMATS[format]}"
            export(net, path, example, precision=precision)
            return Runner(path), example

    return make


def _peer(free: bool) -> Callable[[nn.Module, Tensor, torch.dtype], Made]:
    def make(net: nn.Module, example: Tensor, dtype: torch.dtype) -> Made:
        net = net if dtype == torch.float32 else copy.deepcopy(net).to(dtype)
        return Peer(net, free), example.to(dtype)

    return make


CONTIGUOUS, EAGER, OPTIMISED = "co3d contiguous", "co3d eager", "co3d optimised"
GRAPH = "co3d CUDA graph"
INSTALLED, FREE = "continual-inference", "continual-inference free"
RUNGS = {
    CONTIGUOUS: Rung(_contiguous, mode="clip"),  # torch's default layout, as most code runs it
    EAGER: Rung(_eager),  # as `create` gives it: channels-last
    OPTIMISED: Rung(_optimised(False)),
    GRAPH: Rung(_optimised(True), mode="stream"),
    "onnxruntime": Rung(_exported("onnx"), ("onnx", "onnxruntime"), seen=False),
    "openvino": Rung(_exported("openvino"), ("onnx", "openvino"), seen=False),
    INSTALLED: Rung(_peer(False), ("continual",), mode="stream"),
    FREE: Rung(_peer(True), ("continual",), mode="stream"),
}
PEERS = (INSTALLED, FREE)  # another library's, whose clip nets are those of torch


def ours(device: str) -> tuple[str, ...]:
    """Our forms, those for CUDA alone where it is."""
    cuda = torch.device(device).type == "cuda"
    return tuple(name for name in RUNGS if name not in PEERS and (cuda or name != GRAPH))

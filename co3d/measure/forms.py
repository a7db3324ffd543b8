"""The forms in which a network is timed, from eager torch to an exported file, and its peers."""

import importlib.util
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..deploy import FORMATS, Runner, export, optimize
from ..nn import ClipNet
from .peers import NoPeer, Peer

EAGER, OPTIMISED, ONNX, OPENVINO = "co3d eager", "co3d optimised", "onnxruntime", "openvino"
INSTALLED, TUNED = "continual-inference", "continual-inference tuned"
OURS, PEERS = (EAGER, OPTIMISED, ONNX, OPENVINO), (INSTALLED, TUNED)
FORMS = (*OURS, *PEERS)  # of `implementation`; a peer has streams alone
FILES = {ONNX: "onnx", OPENVINO: "openvino"}  # formats of `co3d export`
PACKAGES = {ONNX: ("onnx", "onnxruntime"), OPENVINO: ("onnx", "openvino")}
PACKAGES |= dict.fromkeys(PEERS, ("continual",))
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class LeftOut(Exception):
    """A form that cannot run here; the text says why."""


def build(net: ClipNet, form: str, example: Tensor, precision: str) -> tuple[Any, Tensor]:
    """The network in a form, and the frame or clip as that form takes it.

    Args:
        net: in evaluation mode, in float32; it may change.
        example: a frame (B, C, H, W) of a stream, or a clip (B, C, T, H, W), in float32.

    Raises:
        LeftOut: if the form or the precision cannot run here.
    """
    if reason := unavailable(form, precision, example.device.type):
        raise LeftOut(reason)
    dtype = PRECISIONS[precision]
    if form == OPTIMISED:
        return optimize(net, example, dtype), example
    if form in FILES:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"net{FORMATS[FILES[form]]}"
            export(net, path, example, precision=precision)
            return Runner(path), example
    net, example = net.to(dtype), example.to(dtype)
    if form == EAGER:
        layout = torch.channels_last if example.ndim == 4 else torch.channels_last_3d
        return net, example.contiguous(memory_format=layout)
    try:
        return Peer(net, form == TUNED), example
    except NoPeer as error:
        raise LeftOut(str(error)) from None


def unavailable(form: str, precision: str, device: str) -> str:
    """Why a form cannot run on a type of device; "" where it can."""
    for package in PACKAGES.get(form, ()):
        if not importlib.util.find_spec(package):
            return f"the package {package} is not installed"
    if form in FILES and device != "cpu":
        return "exported files run on the CPU"
    if form == ONNX and precision != "float32":
        return f"the CPU provider of ONNX Runtime has no convolution in {precision}"
    if precision == "float16" and device == "cpu":
        return "float16 is for GPUs"
    fast = device != "cpu" or amx() or torch.cpu._is_avx512_bf16_supported()
    if precision == "bfloat16" and not fast:
        return "this CPU has no instructions for bfloat16, neither AMX nor AVX-512"
    return ""


def amx() -> bool:
    """Whether the CPU multiplies matrices of bfloat16 in tiles."""
    return torch.cpu._is_amx_tile_supported()

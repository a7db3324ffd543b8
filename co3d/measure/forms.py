"""The forms in which a network is timed, from eager torch to an exported file, and its peers."""

import importlib.util
import multiprocessing
import tempfile
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..deploy import FORMATS, Runner, export, optimize
from ..nn import ClipNet
from ..zoo import create, spec
from .peers import Peer

EAGER, OPTIMISED, ONNX, OPENVINO = "co3d eager", "co3d optimised", "onnxruntime", "openvino"
INSTALLED, TUNED = "continual-inference", "continual-inference tuned"
OURS, PEERS = (EAGER, OPTIMISED, ONNX, OPENVINO), (INSTALLED, TUNED)
FORMS = (*OURS, *PEERS)  # of `implementation`; a peer has streams alone
FILES = {ONNX: "onnx", OPENVINO: "openvino"}  # formats of `co3d export`
PACKAGES = {ONNX: ("onnx", "onnxruntime"), OPENVINO: ("onnx", "openvino")}
PACKAGES |= dict.fromkeys(PEERS, ("continual",))
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
CHUNK = 16  # frames of a start-up that are fed at once, which is faster than step by step


class Case(NamedTuple):
    """A network with random weights, on which speed does not depend, and the size of its input.

    Attributes:
        window: of a continual net, or frames of the clip of another one (default: its own).
        batch: streams or clips computed at once.
    """

    name: str
    window: int | None = None
    batch: int = 1

    def net(self, device: str = "meta") -> ClipNet:
        """The network.

        Raises:
            ValueError: for an unknown model or a window that does not fit.
        """
        try:
            with torch.device(device):
                return create(self.name, self.window if spec(self.name).continual else None)
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from None

    def input(self, device: str = "cpu") -> Tensor:
        """A frame (B, C, H, W) or clip (B, C, T, H, W) of noise."""
        record = spec(self.name)
        frames = () if record.continual else (self.window or record.frames,)
        size = record.image_size
        return torch.randn(self.batch, 3, *frames, size, size, device=device)


def build(case: Case, form: str, precision: str, device: str) -> tuple[Any, Tensor]:
    """The network in a form, and the frame or clip as that form takes it.

    Raises:
        LeftOut: if continual-inference has no layers for the network.
    """
    dtype, example = PRECISIONS[precision], case.input(device)
    if form in FILES:
        return Runner(exported([(case, form, precision)])[0]), example
    if form == TUNED:
        return started_peer(case, precision, device), example.to(dtype)
    net = case.net(device)
    if form == OPTIMISED:
        return optimize(net, example, dtype), example
    net, example = net.to(dtype), example.to(dtype)
    if form == INSTALLED:
        peer = Peer(net)
        peer.take_state(started_peer(case, precision, device))
        return peer, example
    layout = torch.channels_last if example.ndim == 4 else torch.channels_last_3d
    return net, example.contiguous(memory_format=layout)


@lru_cache(1)
def started_peer(case: Case, precision: str, device: str) -> Peer:
    """A tuned peer after its start-up, which takes long and which both forms of it share."""
    net, frame = (x.to(PRECISIONS[precision]) for x in (case.net(device), case.input(device)))
    peer = Peer(net, tuned=True)
    start_up(peer, frame, net.warmup)
    return peer


def start_up(model: Any, frame: Tensor, warmup: int) -> Any:
    """The state of a stream after so many copies of a frame (B, C, H, W)."""
    state = None
    for frames in frame.unsqueeze(2).expand(-1, -1, warmup, -1, -1).split(CHUNK, 2):
        _, state = model.steps(frames, state)
    return state


def unavailable(form: str, precision: str, device: str) -> str:
    """Why a form cannot run on a type of device; "" if it can."""
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


def exported(jobs: Iterable[tuple[Case, str, str]]) -> list[Path]:
    """The files of networks, given case, form and precision; those that lack are written.

    Two at a time, each in a process. Files are kept until this process ends.
    """
    paths, missing = [], []
    for case, form, precision in jobs:
        length = case.window or spec(case.name).window or spec(case.name).frames
        name = f"{case.name}-{length}-{case.batch}-{precision}{FORMATS[FILES[form]]}"
        paths.append(Path(_folder().name) / name)
        if not paths[-1].exists():
            missing.append((case, paths[-1], precision))
    if len(missing) == 1:  # a process takes seconds to start
        _write(*missing[0])
    elif missing:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(2, spawn, torch.set_num_threads, (1,)) as pool:
            list(pool.map(_write, *zip(*missing, strict=True)))  # raises what went wrong
    return paths


def _write(case: Case, path: Path, precision: str) -> None:
    export(case.net("cpu"), path, case.input(), precision=precision)


@cache
def _folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="co3d-bench-")

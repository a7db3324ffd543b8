"""The forms in which a network is timed, from eager torch to an exported file, and its peers."""

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
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


class Case(NamedTuple):
    """A network with random weights, on which speed does not depend, and the size of its input.

    Attributes:
        window: of a continual net (default: its own).
        frames: of the clip of another one (default: those of its spec).
        batch: streams or clips computed at once.
    """

    name: str
    window: int | None = None
    frames: int | None = None
    batch: int = 1

    def net(self, device: str = "meta") -> ClipNet:
        """The network.

        Raises:
            ValueError: for an unknown model or a window that does not fit.
        """
        window = self.window if spec(self.name).continual else None
        try:
            with torch.device(device):
                return create(self.name, window)
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from None

    def input(self, device: str = "cpu") -> Tensor:
        """A frame (B, C, H, W) or clip (B, C, T, H, W) of noise."""
        record = spec(self.name)
        frames = () if record.continual else (self.frames or record.frames,)
        size = record.image_size
        return torch.randn(self.batch, 3, *frames, size, size, device=device)


def build(case: Case, form: str, precision: str, device: str) -> tuple[Any, Tensor]:
    """The network in a form, and the frame or clip as that form takes it.

    Raises:
        LeftOut: if continual-inference has no layers for the network.
    """
    dtype, example = PRECISIONS[precision], case.input(device)
    if form in FILES:
        return Runner(exported(case, form, precision)), example
    net = case.net(device)
    if form == OPTIMISED:
        return optimize(net, example, dtype), example
    net, example = net.to(dtype), example.to(dtype)
    if form in PEERS:
        return Peer(net, form == TUNED), example
    layout = torch.channels_last if example.ndim == 4 else torch.channels_last_3d
    return net, example.contiguous(memory_format=layout)


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


def export_all(jobs: Iterable[tuple[Case, str, str]]) -> None:
    """Exports networks in two processes side by side, for `exported`.

    What fails there is left to `exported`, which raises the error.

    Args:
        jobs: case, form and precision of each.
    """

    def run(job: tuple[Case, str, str]) -> None:
        case, _, precision = job
        command = [sys.executable, "-m", "co3d", "export", case.name, "--weights", "none"]
        command += ["--no-check", "--out", _place(*job), "--precision", precision]
        command += ["--batch", str(case.batch)]
        if case.window and spec(case.name).continual:
            command += ["--window", str(case.window)]
        subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True)

    missing = [job for job in jobs if not _place(*job).exists()]
    if len(missing) > 1:  # a process takes a second to start
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(run, missing))


def exported(case: Case, form: str, precision: str) -> Path:
    """The file of a network, which is written once and kept until this process ends."""
    path = _place(case, form, precision)
    if not path.exists():
        export(case.net("cpu"), path, case.input(), precision=precision)
    return path


def _place(case: Case, form: str, precision: str) -> Path:
    record = spec(case.name)
    length = (case.window or record.window) if record.continual else (case.frames or record.frames)
    name = f"{case.name}-{length}-{case.batch}-{precision}{FORMATS[FILES[form]]}"
    return Path(_folder().name) / name


@cache
def _folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="co3d-bench-")

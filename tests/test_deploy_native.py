"""The native engine: how it is built, for which CPUs, and what it runs."""

import copy
import os
import shutil
import stat
import struct
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from nets import MINIS, SIZE, assert_same, logits_of, net_of

import co3d
import co3d.nn as nn
from co3d.deploy import Explicit
from co3d.deploy.native import Engine, NoCompiler, Unsupported, library
from co3d.deploy.native.layout import Lanes
from co3d.deploy.native.program import Program
from co3d.deploy.optimize import OptimizedStream

COMPILER, EMULATOR = shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64")
NEON = (
    "skips without Debian's packages g++-aarch64-linux-gnu and qemu-user, which compile for NEON "
    "and emulate it"
)


@pytest.mark.slow
@pytest.mark.skipif(not COMPILER or not EMULATOR, reason=NEON)
@pytest.mark.parametrize("name", MINIS)
def test_neon_gives_the_same_numbers(tmp_path, name):
    net, example = net_of(name), torch.zeros(1, 3, SIZE, SIZE)
    count = net.warmup + net.stride + 1
    frames = torch.randn(count, *example.shape)
    program = Program(Explicit(net, example), Lanes(4, 4), False)
    words, memory = program.words(2, lambda count: torch.empty(count, dtype=torch.uint8))
    slots = torch.tensor(program.slots, dtype=torch.int32)
    tensors = *memory.values(), slots, frames
    parts = [bytes(words), *(x.numpy().tobytes() for x in tensors)]
    sizes = struct.pack(f"{len(parts)}q", *map(len, parts))
    (tmp_path / "program").write_bytes(sizes + b"".join(parts))
    source, flags = Path(__file__).with_name("run_engine.cpp"), library.FLAGS
    flags = [flag for flag in flags if flag not in ("-shared", "-fPIC")]
    include = f"-I{library.SOURCE.parent}"
    command = [COMPILER, *flags, "-static", include, str(source), "-o", str(tmp_path / "run")]
    subprocess.run(command, check=True, capture_output=True)
    numbers = map(str, (program.layouts[-1].bytes // 4, count, program.state_bytes))
    command = [EMULATOR, tmp_path / "run", tmp_path / "program", *numbers]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    given = torch.tensor([float(line) for line in done.stdout.split()])
    expected = [logits for logits in logits_of(net, frames)[0] if logits is not None][-1]
    assert_same([given[None, : net.classifier.out_features]], [expected])


def test_bfloat16_is_refused_where_the_cpu_has_no_dot_products_for_it():
    explicit = Explicit(net_of(), torch.zeros(1, 3, SIZE, SIZE))
    with pytest.raises(Unsupported, match="AVX512-BF16"):
        Engine(explicit, half=True, target="-march=x86-64-v3")


@st.composite
def bodies(draw):
    """Layers that a user might write, and how many channels they give."""
    channels, layers = 3, []
    for _ in range(draw(st.integers(1, 4))):
        out, bias = draw(st.integers(1, 20)), draw(st.booleans())
        kernel, odd = draw(st.integers(1, 3)), draw(st.sampled_from([1, 3, 5]))
        stride, area = draw(st.integers(1, 2)), draw(st.sampled_from([1, 3]))
        dilation = draw(st.integers(1, 2))
        padding = dilation * draw(st.integers(0, kernel - 1))
        early = nn.Conv3d(channels, out, (odd, 1, 1), padding=(odd // 2, 0, 0), bias=bias)
        alike = nn.Conv3d(channels, channels, (odd, 1, 1), padding=(odd // 2, 0, 0))
        kinds = {
            "dense": nn.Conv3d(
                channels,
                out,
                (kernel, area, area),
                (1 if dilation == 2 else stride, draw(st.integers(1, 2)), stride),
                (padding, area // 2, area // 2),
                (dilation, 1, 1),
            ),
            "depthwise": nn.Sequential(
                nn.Conv3d(channels, channels, 3, (1, stride, stride), 1, 1, channels, bias=bias),
                *([nn.SqueezeExcite(channels, 4, "frame"), nn.SiLU()] if area == 3 else []),
            ),
            "pool": nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            "time": nn.MaxPool3d((2, 1, 1), (2, 1, 1)),
            "residual": nn.Residual(
                nn.Sequential(alike), nn.Conv3d(channels, channels, 1) if bias else None, nn.ReLU()
            ),
            "cat": nn.Parallel(early, nn.Conv3d(channels, 5, 1), join="cat"),
            "activation": draw(st.sampled_from([nn.ReLU, nn.SiLU, nn.Sigmoid]))(),
        }
        kind = draw(st.sampled_from(sorted(kinds)))
        layers.append(kinds[kind])
        channels = {"dense": out, "cat": out + 5}.get(kind, channels)
    return [*layers, nn.RunningWindow(draw(st.integers(1, 3)))], channels


def agree(layers, channels, frame, threads=2, tolerance=3e-5):
    """The native step of layers and a classifier equals theirs over all phases."""
    net = nn.StreamNet(nn.Sequential(*layers), nn.Linear(channels, 6)).eval()
    twin = OptimizedStream(net, frame, threads=threads, engine="native")
    clip = torch.randn(net.warmup + 2 * net.stride + 3, *frame.shape)
    assert_same(logits_of(twin, clip)[0], logits_of(net, clip)[0], tolerance)


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(bodies(), st.integers(1, 2), st.integers(1, 2))
def test_nets_of_a_user_run_as_they_are(body, batch, threads):
    try:
        agree(*body, torch.zeros(batch, 3, 11, 9), threads, 1e-4)
    except (ValueError, Unsupported) as error:  # frames that become too small
        assume("expected frames of" not in str(error) and not isinstance(error, Unsupported))
        raise


@pytest.mark.parametrize(
    "layers",
    [
        [nn.SiLU(), nn.Conv3d(3, 4, (3, 1, 1))],
        [nn.Conv3d(3, 4, 1), nn.ReLU(), nn.SiLU(), nn.Sigmoid()],
        [nn.Delay(2), nn.Conv3d(3, 4, (3, 1, 1))],
        [nn.Subsample(2), nn.Conv3d(3, 4, (3, 1, 1))],
        [
            nn.Conv3d(3, 4, 1),
            nn.Conv3d(4, 4, 3, (1, 2, 2), 1, groups=4),
            nn.Conv3d(4, 4, (3, 1, 1), padding=(1, 0, 0)),
        ],
    ],
    ids=["activation first", "three activations", "delay first", "subsample first", "sums"],
)
def test_what_reads_the_frame_or_follows_sums(layers):
    agree([*copy.deepcopy(layers), nn.RunningWindow(2)], 4, torch.zeros(2, 3, 11, 9))


@pytest.mark.parametrize(
    "layer",
    [nn.GELU(), nn.Conv3d(4, 4, 1, groups=2), nn.AvgPool3d((1, 2, 2))],
    ids=lambda layer: type(layer).__name__,
)
def test_a_layer_without_a_native_form_is_named_and_runs_in_torch(layer):
    body = nn.Sequential(nn.Conv3d(3, 4, 1), layer, nn.RunningWindow(2))
    net, frame = nn.StreamNet(body, nn.Linear(4, 2)).eval(), torch.randn(1, 3, 6, 6)
    with pytest.warns(UserWarning, match="the native engine has no .*; the step runs in torch"):
        twin = co3d.optimize(net, frame)
    assert twin.engine == "torch"
    with pytest.raises(Unsupported, match="1"):
        OptimizedStream(net, frame, engine="native")


def test_without_a_compiler_the_step_runs_in_torch_and_says_what_to_install(tmp_path):
    script = (
        "import co3d, torch, warnings\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    net = co3d.optimize(co3d.create('cox3d_mini'), torch.zeros(1, 3, 32, 32))\n"
        "print(net.engine, [str(one.message) for one in caught])\n"
    )
    settings = {**os.environ, "PATH": "", "CACHE_PATH": str(tmp_path)}
    settings.pop("CXX", None)
    done = subprocess.run(
        [sys.executable, "-c", script], env=settings, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("torch")
    assert "there is no C++ compiler: install g++ or clang++" in done.stdout


def test_a_compiler_that_fails_is_quoted(tmp_path, monkeypatch):
    compiler = tmp_path / "c++"
    compiler.write_text("#!/bin/sh\necho 'no such flag' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("CACHE_PATH", str(tmp_path))
    with pytest.raises(NoCompiler, match="no such flag"):
        library.build()
    assert list((tmp_path / "engine").iterdir()) == []


def test_code_is_loaded_only_from_a_folder_that_nobody_else_may_write(tmp_path, monkeypatch):
    monkeypatch.setenv("CACHE_PATH", str(tmp_path))
    folder = tmp_path / "engine"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(PermissionError, match="others may write to"):
        library.build("-march=native -O0")
    folder.chmod(0o700)
    path = library.build("-march=native -O0")
    assert path.parent == folder and not path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def test_processes_that_start_at_once_build_one_engine(tmp_path):
    script = "from co3d.deploy.native import library; print(library.build('-march=native -O0'))"
    settings = {**os.environ, "CACHE_PATH": str(tmp_path)}
    command = [sys.executable, "-c", script]
    runs = [
        subprocess.Popen(command, env=settings, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    paths = {run.communicate()[0].strip() for run in runs}
    assert all(run.returncode == 0 for run in runs)
    (path,) = paths
    assert [Path(path)] == list((tmp_path / "engine").iterdir())


def test_a_child_of_a_fork_steps_too():
    net, frame = net_of(), torch.randn(1, 3, SIZE, SIZE)
    twin = OptimizedStream(net, frame, threads=2, engine="native")
    twin.step(frame)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
        child = os.fork()
    if not child:
        twin.step(frame)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0

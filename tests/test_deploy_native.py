"""The native engine: how it is built, for which CPUs, and what it runs."""

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
from nets import net_of

import co3d
import co3d.nn as nn
from co3d.deploy import Explicit
from co3d.deploy.native import Engine, NoCompiler, Unsupported, library
from co3d.deploy.native.layout import Lanes
from co3d.deploy.native.program import Program
from co3d.deploy.optimize import OptimizedStream

SIZE = 40


def agree(net, engine, example, count):
    """The largest difference from the net over some frames, relative to its largest logit."""
    state, memory, worst, emitted = None, engine.begin(), 0.0, 0
    for number in range(count):
        frame = torch.randn_like(example)
        expected, state = net.step(frame, state)
        logits, _ = engine.step(frame, number % net.stride, number, memory)
        if expected is not None:
            difference = (logits - expected).abs().max() / expected.abs().max()
            worst, emitted = max(worst, difference.item()), emitted + 1
    assert emitted
    return worst


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="needs an x86-64 CPU")
@pytest.mark.parametrize("target, lanes", [("-march=x86-64-v3", 8), ("-march=x86-64", 4)])
@pytest.mark.parametrize("name", ["cox3d_mini", "coi3d_mini", "coslowfast_mini", "cor2plus1d_mini"])
def test_narrower_vectors_give_the_same_numbers(name, target, lanes):
    net, example = net_of(name), torch.zeros(2, 3, SIZE, SIZE)
    engine = Engine(Explicit(net, example), threads=2, target=target)
    assert engine._library.co3d_lanes() == lanes
    assert agree(net, engine, example, net.warmup + net.stride + 3) < 3e-5


COMPILER, EMULATOR = shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64")
NEON = (
    "skips without Debian's packages g++-aarch64-linux-gnu and qemu-user, which compile for NEON "
    "and emulate it"
)


@pytest.mark.slow
@pytest.mark.skipif(not COMPILER or not EMULATOR, reason=NEON)
@pytest.mark.parametrize("name", ["cox3d_mini", "coi3d_mini", "coslowfast_mini", "cor2plus1d_mini"])
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
    expected = state = None
    for frame in frames:
        logits, state = net.step(frame, state)
        expected = expected if logits is None else logits
    away = (given[: net.classifier.out_features] - expected[0]).abs().max()
    assert away < 3e-5 * expected.abs().max()


def test_bfloat16_is_refused_where_the_cpu_has_no_dot_products_for_it():
    explicit = Explicit(net_of(), torch.zeros(1, 3, SIZE, SIZE))
    with pytest.raises(Unsupported, match="AVX512-BF16"):
        Engine(explicit, half=True, target="-march=x86-64-v3")


@st.composite
def trees(draw):
    """Trees of layers that a user might write."""
    channels, layers = 3, []
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(
            st.sampled_from(["dense", "depthwise", "pool", "residual", "cat", "act", "time"])
        )
        out = draw(st.integers(1, 20))
        if kind == "dense":
            kernel = [draw(st.sampled_from([1, 3])) for _ in range(3)]
            padding = [k // 2 for k in kernel]
            padding[0] = draw(st.integers(0, kernel[0] - 1))
            stride = [draw(st.sampled_from([1, 1, 2])) for _ in range(3)]
            dilation = draw(st.sampled_from([1, 2])) if stride[0] == 1 and kernel[0] > 1 else 1
            padding[0] *= dilation
            conv = nn.Conv3d(channels, out, kernel, stride, padding, (dilation, 1, 1))
            layers.append(conv)
            channels = out
        elif kind == "depthwise":
            stride = draw(st.sampled_from([1, 2]))
            shape = {"stride": (1, stride, stride), "padding": 1, "groups": channels}
            layers.append(nn.Conv3d(channels, channels, 3, **shape, bias=draw(st.booleans())))
            if draw(st.booleans()):
                layers.append(nn.SqueezeExcite(channels, 4, "frame"))
                layers.append(nn.SiLU())
        elif kind == "pool":
            layers.append(nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)))
        elif kind == "residual":
            kernel = draw(st.sampled_from([1, 3, 5]))
            conv = nn.Conv3d(channels, channels, (kernel, 1, 1), padding=(kernel // 2, 0, 0))
            side = None if draw(st.booleans()) else nn.Conv3d(channels, channels, 1)
            layers.append(nn.Residual(nn.Sequential(conv), side, nn.ReLU()))
        elif kind == "cat":
            one = nn.Conv3d(channels, out, (3, 1, 1), padding=(1, 0, 0))
            layers.append(nn.Parallel(one, nn.Conv3d(channels, 5, 1), join="cat"))
            channels = out + 5
        elif kind == "act":
            layers.append(draw(st.sampled_from([nn.ReLU, nn.SiLU, nn.Sigmoid]))())
        else:
            layers.append(nn.MaxPool3d((2, 1, 1), (2, 1, 1)))
    layers.append(nn.RunningWindow(draw(st.integers(1, 3))))
    return nn.StreamNet(nn.Sequential(*layers), nn.Linear(channels, 6)).eval()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(net=trees(), batch=st.integers(1, 2), threads=st.integers(1, 2), data=st.data())
def test_nets_of_a_user_run_as_they_are(net, batch, threads, data):
    torch.manual_seed(data.draw(st.integers(0, 99)))
    example = torch.zeros(batch, 3, 11, 9)
    try:
        explicit = Explicit(net, example)
    except ValueError as error:  # frames that become too small
        assume("expected frames of" not in str(error))
        raise
    try:
        engine = Engine(explicit, threads=threads)
    except Unsupported:
        return
    state, memory = None, engine.begin()
    for number in range(net.warmup + 2 * net.stride + 3):
        frame = torch.randn_like(example)
        expected, state = net.step(frame, state)
        logits, _ = engine.step(frame, number % net.stride, number, memory)
        if expected is not None:
            torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


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
    net = nn.StreamNet(nn.Sequential(*layers, nn.RunningWindow(2)), nn.Linear(4, 6)).eval()
    example = torch.zeros(2, 3, 11, 9)
    engine = Engine(Explicit(net, example), threads=2)
    assert agree(net, engine, example, net.warmup + net.stride + 5) < 3e-5


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
        subprocess.Popen(command, env=settings, stdout=subprocess.PIPE, text=True) for _ in range(3)
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


@pytest.mark.slow
def test_a_stream_of_20000_frames_does_not_drift():
    net = net_of("coslow_mini")
    frames = torch.randn(97, 1, 3, SIZE, SIZE)
    twin, state = OptimizedStream(net, frames[0], engine="native"), None
    for number in range(20_000):
        logits, state = twin.step(frames[number % 97], state)
    last = [frames[number % 97] for number in range(20_000 - net.receptive_field, 20_000)]
    expected = net(torch.stack(last, 2), pad=False)
    assert (logits - expected).abs().max() < 3e-5 * expected.abs().max()

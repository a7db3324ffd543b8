"""Compiles `engine.cpp` at first use, keeps it under CACHE_PATH and loads it."""

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

from ...paths import cache_path

SOURCE = Path(__file__).with_name("engine.cpp")
FLAGS = (
    *("-std=c++20", "-O3", "-shared", "-fPIC", "-pthread", "-ffp-contract=fast"),
    *("-fno-math-errno", "-fno-trapping-math"),
)
COMPILERS = ("c++", "g++", "clang++")
SECONDS = 300  # after which a compiler is given up


class NoCompiler(RuntimeError):
    """Why the engine cannot be built here; the sentence says what to install."""


@functools.cache
def load(target: str = "") -> ctypes.CDLL:
    """The engine, compiled for this CPU.

    Args:
        target: flags in the place of those for this CPU, such as "-march=x86-64-v3".

    Raises:
        NoCompiler: without a C++ compiler, or if it fails.
        PermissionError: if others may write to the folder of the compiled engine.
    """
    engine, pointer, number = ctypes.CDLL(str(build(target))), ctypes.c_void_p, ctypes.c_int64
    engine.co3d_create.restype = pointer
    engine.co3d_create.argtypes = engine.co3d_destroy.argtypes = [pointer]
    engine.co3d_advise.argtypes = [pointer, number]
    engine.co3d_step.argtypes = [*(pointer,) * 5, *(number,) * 3]
    return engine


def build(target: str = "") -> Path:
    """The compiled engine, which is made if it is not there; arguments and errors of `load`."""
    cxx, is_arm = compiler(), platform.machine() in ("aarch64", "arm64")
    flags = (*FLAGS, *shlex.split(target or ("-mcpu=native" if is_arm else "-march=native")))
    version = subprocess.run([cxx, "--version"], capture_output=True, check=False).stdout
    facts = (SOURCE.read_bytes(), " ".join(flags).encode(), version, _cpu().encode())
    key = hashlib.sha256(b"\0".join(facts)).hexdigest()[:16]
    folder = _private(cache_path() / "engine")
    path = folder / f"engine-{key}.so"
    if not path.is_file():
        with tempfile.TemporaryDirectory(prefix=".build-", dir=folder) as place:
            made = Path(place) / path.name
            command = [cxx, *flags, str(SOURCE), "-o", str(made)]
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=SECONDS, check=False
            )
            if done.returncode:
                first = (done.stderr.strip().splitlines() or ["no message"])[0]
                raise NoCompiler(f"the C++ compiler {cxx} cannot build the engine: {first}")
            made.replace(path)  # whole or not at all, whoever else builds it
    return path


def compiler() -> str:
    """The path of a C++ compiler: CXX, if that is set, else the first that is found.

    Raises:
        NoCompiler: if there is none.
    """
    chosen = os.environ.get("CXX")
    for name in [chosen] if chosen else COMPILERS:
        if path := shutil.which(name):
            return path
    raise NoCompiler(
        "there is no C++ compiler: install g++ or clang++ for the native engine, which is several "
        "times as fast"
    )


def _cpu() -> str:
    """What -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    wanted = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))


def _private(folder: Path) -> Path:
    """The folder, made if need be, into which nobody else may write: code is loaded from it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    facts = folder.stat()
    is_open = facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    for parent in folder.resolve().parents:  # in which others might put another folder
        mode = parent.stat().st_mode
        is_open |= mode & stat.S_IWOTH and not mode & stat.S_ISVTX
    if hasattr(os, "getuid") and (facts.st_uid != os.getuid() or is_open):
        raise PermissionError(f"others may write to {folder}, from which code is loaded: "
                              f"chmod 700 {folder}, or set another CACHE_PATH")  # fmt: skip
    return folder

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
    return _typed(ctypes.CDLL(str(build(target))))


def build(target: str = "") -> Path:
    """The compiled engine, which is made if it is not there.

    Raises:
        NoCompiler, PermissionError: as `load`.
    """
    cxx = compiler()
    flags = (*FLAGS, *shlex.split(target or _native_flag()))
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
                last = (done.stderr.strip().splitlines() or ["no message"])[0]
                raise NoCompiler(f"the C++ compiler {cxx} cannot build the engine: {last}")
            made.replace(path)  # whole or not at all, whoever else builds it
    return path


def compiler() -> str:
    """The path of a C++ compiler: CXX, if that is set, else the first that is found.

    Raises:
        NoCompiler: if there is none.
    """
    names = (os.environ["CXX"],) if os.environ.get("CXX") else COMPILERS
    for name in names:
        if path := shutil.which(name):
            return path
    raise NoCompiler(
        "there is no C++ compiler: install g++ or clang++ for the native engine, which is several "
        "times as fast"
    )


def _native_flag() -> str:
    return "-mcpu=native" if platform.machine() in ("aarch64", "arm64") else "-march=native"


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


def _typed(engine: ctypes.CDLL) -> ctypes.CDLL:
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    engine.co3d_create.restype = pointer
    engine.co3d_create.argtypes = [pointer]
    engine.co3d_destroy.argtypes = [pointer]
    engine.co3d_destroy.restype = None
    engine.co3d_advise.argtypes = [pointer, number]
    engine.co3d_advise.restype = None
    engine.co3d_step.argtypes = [*(pointer,) * 5, *(number,) * 3]
    engine.co3d_step.restype = ctypes.c_int
    return engine

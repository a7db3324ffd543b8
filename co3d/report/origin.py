"""Where a result came from: code, versions, machine and settings; never a machine's paths."""

import platform
import re
import subprocess
from datetime import date
from pathlib import Path
from typing import Any

from ..paths import repo_root


def provenance(
    *, notebook: str, seed: int, device: str = "cpu", precision: str = "float32"
) -> dict[str, Any]:
    """What every row of a run carries beside its values, by column."""
    import av
    import torch

    import co3d

    commit, dirty = git_state()
    return {
        "commit": commit,
        "dirty": dirty,
        "date": date.today().isoformat(),
        "co3d": co3d.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "av": av.__version__,
        "ffmpeg": av.ffmpeg_version_info,
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "precision": precision,
        "seed": seed,
        "notebook": notebook,
    }


def device_name(device: str = "cpu") -> str:
    """The processor's or accelerator's own name."""
    if str(device).startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match[1].strip() if match else platform.processor() or platform.machine()


def git_state() -> tuple[str, int | None]:
    """Commit and whether results could differ from what it gives; ("", None) outside a clone."""
    try:
        if Path(_git("rev-parse", "--show-toplevel").strip()) != repo_root():
            return "", None
        commit = _git("rev-parse", "--short=12", "HEAD").strip()
        paths = ("co3d", "notebooks", "constraints.txt")
        changed = [line[3:] for line in _git("status", "--porcelain", "-uall", *paths).splitlines()]
    except (OSError, subprocess.CalledProcessError):
        return "", None
    return commit, int(any(_differs(name) for name in changed))


def _git(*args: str) -> str:
    done = subprocess.run(["git", "-C", repo_root(), *args], capture_output=True, check=True)
    return done.stdout.decode()


def _differs(name: str) -> bool:
    """A notebook differs by its sources, not by outputs that a run leaves."""
    if not name.endswith(".ipynb"):
        return True
    import nbformat

    from .rules import source_hash

    try:
        before = nbformat.reads(_git("show", f"HEAD:{name}"), 4)
        return source_hash(before) != source_hash(nbformat.read(repo_root() / name, 4))
    except (OSError, ValueError, subprocess.CalledProcessError):  # new, gone or broken
        return True

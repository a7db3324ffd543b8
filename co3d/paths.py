"""Where data sets, runs and caches live: the environment first, then `.env`, then a default.

Nothing here creates a folder; whoever writes into one makes it.
"""

import os
from pathlib import Path


def repo_root() -> Path:
    """The folder that holds pyproject.toml, else (installed elsewhere) the current folder."""
    folder = Path(__file__).resolve().parent.parent
    return folder if (folder / "pyproject.toml").is_file() else Path.cwd()


def datasets_path() -> Path | None:
    """Folder of the real data sets (DATASETS_PATH); None where the reader has none."""
    return _setting("DATASETS_PATH")


def logs_path() -> Path:
    """Folder of runs and training curves (LOGS_PATH, default `runs` in the repository)."""
    return _setting("LOGS_PATH") or repo_root() / "runs"


def cache_path() -> Path:
    """Folder of weights and generated data (CACHE_PATH, default `~/.cache/co3d`)."""
    return _setting("CACHE_PATH") or Path.home() / ".cache" / "co3d"


def _setting(name: str) -> Path | None:
    """A folder from the environment or from the nearest `.env`; relative to that file's folder."""
    if value := os.environ.get(name):
        return Path(os.path.expanduser(value)).absolute()
    for folder in (repo_root(), Path.cwd()):
        if (folder / ".env").is_file():
            value = _read_env(folder / ".env").get(name)
            return folder / os.path.expanduser(value) if value else None
    return None


def _read_env(path: Path) -> dict[str, str]:
    """`NAME=value` lines; quotes around the value, comment lines and a leading export are fine."""
    lines = (line.strip().removeprefix("export ") for line in path.read_text("utf-8").splitlines())
    pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip().strip("'\"") for name, _, value in pairs}

"""Tables, figures and notebook runs: the only package that writes results/ and figures/.

The package can be called: `co3d.report(module, clip)` reports what converts to a stream
(`co3d.measure.conversion.report`).
"""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType

import pandas as pd

from ..measure import conversion
from ..paths import logs_path, repo_root
from . import results
from .figures import save
from .origin import provenance

__all__ = ["output_folder", "provenance", "read", "save", "write"]


def output_folder(out: str | Path = "") -> Path:
    """The folder that a notebook writes to, made; "" is `interactive` among the runs."""
    folder = Path(out) if out else logs_path() / "interactive"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write(
    table: str,
    rows: Iterable[Mapping],
    out: Path,
    *,
    notebook: str,
    seed: int,
    device: str = "cpu",
    precision: str = "float32",
) -> Path:
    """Upsert rows into out/results/<table>.csv with their provenance; see `results.write`."""
    origin = provenance(notebook=notebook, seed=seed, device=device, precision=precision)
    return results.write(table, rows, Path(out) / "results", origin)


def read(table: str, out: Path | None = None) -> pd.DataFrame:
    """A result table: the rows of this run (`out`) and, where it has none, the committed ones."""
    committed = results.read(table, repo_root() / "results")
    if out is None:
        return committed
    return results.combine(table, results.read(table, Path(out) / "results"), committed)


class _Package(ModuleType):
    """One name, `co3d.report`, for the package and for the report of a network."""

    __call__ = staticmethod(conversion.report)


sys.modules[__name__].__class__ = _Package

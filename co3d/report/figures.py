"""The files of figures and tables: what each shows, from what it is drawn, and how it is written.

`figures.toml` lists them. A file says in its metadata what its entry there says, with the commit
that drew it; a picture that did not change keeps its file, as rows of results do.
"""

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from PIL import Image, ImageSequence

from .. import files
from .origin import git_state
from .style import STYLE

LICENCE = "Apache-2.0"


@dataclass(frozen=True)
class Entry:
    """What stands in figures/ under one stem.

    Attributes:
        notebook: that draws it.
        caption: one or more sentences on what is seen.
        tables: in results/, without .csv, that it is drawn from; none where the notebook computes
            what it draws.
    """

    notebook: str
    caption: str
    tables: Sequence[str] = ()

    @property
    def sources(self) -> str:
        """The files that it is drawn from, or the notebook."""
        tables = [f"results/{table}.csv" for table in self.tables]
        return ", ".join(tables or [f"notebooks/{self.notebook}.ipynb"])


_ENTRIES = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
FIGURES = {stem: Entry(**entry) for stem, entry in _ENTRIES.items()}


def metadata(stem: str) -> dict[str, str]:
    """What a file of this stem says of itself, in the words of Dublin Core."""
    commit, dirty = git_state()
    facts = {"Title": stem, "Rights": LICENCE}
    if record := FIGURES.get(stem):
        facts |= {"Description": record.caption, "Source": record.sources}
        facts |= {"Relation": f"notebooks/{record.notebook}.ipynb"}
    if commit:
        facts["Identifier"] = f"commit {commit}" + (", with changes" if dirty else "")
    return facts


def save(fig: Figure, stem: str, folder: Path | str) -> Path:
    """Write folder/figures/stem.svg and .png with their metadata; returns the PNG.

    Equal figures give equal bytes at one commit.
    """
    facts = metadata(stem)
    for kind, left_out in (("svg", "Date"), ("png", "Software")):  # no times, no versions
        path = Path(folder) / "figures" / f"{stem}.{kind}"
        with mpl.rc_context(STYLE), files.replacing(path) as part:
            fig.savefig(part, format=kind, dpi=160, metadata={**facts, left_out: None})
    return path


def merge(new: Path, folder: Path) -> list[str]:
    """Copy the files of `new` into `folder`, except pictures that differ in metadata alone.

    Returns the names of those that were copied.
    """
    copied = []
    for path in sorted(new.iterdir()):
        there = folder / path.name
        if not there.exists() or seen(path) != seen(there):
            files.write(there, path.read_bytes())
            copied.append(path.name)
    return copied


def seen(path: Path) -> object:
    """What a file shows, without its metadata: equal for equal pictures."""
    if path.suffix == ".svg":
        return re.sub(r"<metadata>.*?</metadata>", "", path.read_text("utf-8"), flags=re.DOTALL)
    if path.suffix not in (".png", ".gif"):
        return path.read_bytes()
    with Image.open(path) as image:
        return [
            (frame.size, frame.info.get("duration"), frame.convert("RGBA").tobytes())
            for frame in ImageSequence.Iterator(image)
        ]

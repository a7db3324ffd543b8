"""What the site is made from: the files of the repository, read once."""

import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import nbformat
import pandas as pd
from nbformat import NotebookNode

from .. import results

# Texts of the repository whose content has another place here.
INSTEAD = {
    "README.md": "index.html",
    "results/README.md": "results.html",
    "results/paper/README.md": "results.html",
    "results": "results.html",
    "results/paper": "results.html",
    "figures": "figures.html",
    "notebooks": "index.html",
}
COPIED = {
    "figures": {".svg", ".gif", ".md", ".tex"},
    "results": {".csv"},
    "results/paper": {".csv"},
}


@dataclass(frozen=True)
class Notebook:
    """A committed notebook; `claim` and `takes` are from its first cell."""

    name: str
    title: str
    claim: str
    takes: str
    node: NotebookNode

    @property
    def page(self) -> str:
        """Where it is in the site."""
        return f"notebooks/{self.name}.html"


class Source:
    """The repository at `root`.

    Raises:
        FileNotFoundError: if it lacks notebooks, figures or results.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in ("notebooks", "figures", "results/paper"):
            if not (root / folder).is_dir():
                raise FileNotFoundError(
                    f"the site is made of a clone of the repository, but there is no {folder}/ "
                    f"in {root}: run it there"
                )

    @cached_property
    def notebooks(self) -> list[Notebook]:
        """In the order in which they are read."""
        return [_read(path) for path in sorted((self.root / "notebooks").glob("*.ipynb"))]

    @cached_property
    def copied(self) -> dict[str, Path]:
        """The files that the site has as they are, by their path in both."""
        return {
            f"{folder}/{path.name}": path
            for folder, suffixes in COPIED.items()
            for path in sorted((self.root / folder).iterdir())
            if path.suffix in suffixes
        }

    def table(self, name: str) -> pd.DataFrame:
        """A result table, all its files together."""
        return results.read(name, self.root / "results")

    def printed(self, stem: str) -> pd.DataFrame:
        """A published table, every cell as it is printed."""
        path = self.root / "results" / "paper" / f"{stem}.csv"
        return pd.read_csv(path, dtype=str, keep_default_na=False)

    def text(self, name: str) -> str:
        """A text of the repository."""
        return (self.root / name).read_text("utf-8")

    def links(self, at: str, written_in: str = "") -> Callable[[str], str]:
        """For the page `at`: the address for one written in a file of the repository.

        Links to what the site does not hold are left out ("").
        """
        folder = posixpath.dirname(written_in or at)

        def target(address: str) -> str:
            path, mark, anchor = address.partition("#")
            if not path or "://" in address or address.startswith("mailto:"):
                return address
            path = posixpath.normpath(posixpath.join(folder, path))
            if path.endswith(".ipynb") and (self.root / path).is_file():
                path = path.removesuffix("ipynb") + "html"
            elif path in INSTEAD:
                path, mark, anchor = INSTEAD[path], "", ""
            elif path not in self.copied:
                return ""
            return posixpath.relpath(path, posixpath.dirname(at) or ".") + mark + anchor

        return target


def _read(path: Path) -> Notebook:
    node = nbformat.read(path, 4)
    first = node.cells[0].source
    title = re.search(r"^# +(.+)$", first, re.MULTILINE)
    claim = re.search(r"^\*\*(.+?)\*\*$", first, re.MULTILINE | re.DOTALL)
    takes = re.search(r"^- Takes: (.+)$", first, re.MULTILINE)
    if not (title and claim and takes):
        raise ValueError(f"the first cell of {path.name} lacks its title, claim or minutes")
    return Notebook(path.stem, title[1], claim[1], takes[1], node)

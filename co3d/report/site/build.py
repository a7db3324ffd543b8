"""Builds the site: all pages in memory, checked, then a folder that appears when it is whole."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from ...paths import repo_root
from . import api, cards, links, markup, models, reading, records, sheets
from .source import Source


def build(out: Path, commands: Mapping[str, str], root: Path | None = None) -> int:
    """Write the site into the folder `out`; equal files of the repository give equal bytes.

    Args:
        out: made; an earlier site there is replaced.
        commands: the help of each command by its name.
        root: of the repository (default: this one's).

    Returns:
        How many files it has.

    Raises:
        FileNotFoundError: if the repository lacks what the site is made of.
        ValueError: if `out` holds something else, or the site would not be whole: a link that
            leads nowhere, or something that would be loaded from elsewhere.
    """
    _check_place(out)
    files = contents(Source(root or repo_root()), commands)
    if problems := links.problems(files):
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ValueError(f"the site is not whole: {'; '.join(problems[:3])}{more}")
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    for path, content in files.items():
        target = part / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
    if out.exists():
        shutil.rmtree(out)
    part.rename(out)
    return len(files)


def contents(source: Source, commands: Mapping[str, str]) -> dict[str, str | bytes]:
    """The content of each file of the site by its path, sorted."""

    def made() -> Iterator[tuple[str, str | bytes]]:
        yield "style.css", markup.styles()
        yield from ((name, path.read_bytes()) for name, path in source.copied.items())
        yield from reading.start(source)
        yield from reading.notebooks(source)
        yield from reading.figures(source)
        yield from models.which(source)
        yield from cards.cards(source)
        yield from records.tables(source)
        yield from records.claims(source)
        yield from sheets.data(source)
        yield from api.api(source, commands)

    return dict(sorted(made()))


def _check_place(out: Path) -> None:
    """Refuses to replace what is not a site."""
    index, mark = out / "index.html", f'content="{markup.GENERATOR}"'
    earlier = index.is_file() and mark in index.read_text("utf-8", errors="replace")
    if out.exists() and not earlier and not (out.is_dir() and not any(out.iterdir())):
        raise ValueError(f"expected a new or empty folder or an earlier site, given {out}")

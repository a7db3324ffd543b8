"""The result tables, the published ones, and the ledger of claims as pages."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

from ..claims import statuses
from ..entries import STATUSES
from ..schema import PROVENANCE, TABLES, readme
from . import pages
from .markup import Html, code, link, page, table, text
from .models import number
from .source import Notebook, Source

Pages = Iterator[tuple[str, str]]
LEDGER = "results/paper/claims.csv"


def tables(source: Source) -> Pages:
    """results.html, and a page for each file in results/ and results/paper/."""
    at, measured, published = "results.html", [], []
    for name, path in source.copied.items():
        if name.startswith("results/") and name != LEDGER:
            cells = pd.read_csv(path, dtype=str, keep_default_na=False)
            theirs = name.startswith("results/paper/")
            rows = published if theirs else measured
            about = "" if theirs else _about(path)
            own = name.removesuffix("csv") + "html"
            rows.append((link(path.stem, own), about, len(cells), link("CSV", name)))
            yield own, _table(own, path, cells, about, theirs)
    head = ("Table", "What", "Rows", "File")
    columns = re.sub("^##", "###", readme().partition("\n\n")[2], flags=re.MULTILINE)
    columns = pages.markdown(columns, source.links(at, "results/README.md"))
    notes = pages.markdown(source.text("results/paper/README.md").partition("\n\n")[2],
                           source.links(at, "results/paper/README.md"))  # fmt: skip
    body = f"""<h1>Results</h1>
{table("Measured or computed here.", head, measured)}
{table("Published, as printed.", head, published)}
<h2 id="columns">What the columns mean</h2>
{columns}
<h2 id="published">The published numbers</h2>
{notes}"""
    yield at, page("Results", body, at)


def _about(path: Path) -> str:
    """What is said of the table that a file holds, or holds a part of."""
    names = (name for name in TABLES if re.fullmatch(f"{name}(-.*)?", path.stem))
    return next((TABLES[name].about for name in names), "")


def _table(at: str, path: Path, cells: pd.DataFrame, about: str, published: bool) -> str:
    origin = [] if published else [name for name in PROVENANCE if name in cells]
    own = cells.drop(columns=origin)
    rows = [[value if published else _short(value) for value in row] for row in own.to_numpy()]
    caption = "As printed" if published else "Rounded to four digits; the file has all of them"
    file = link(path.name, at.removesuffix("html") + "csv", at)
    parts = [f"<h1>{code(path.stem)}</h1>\n<p>{text(about)}</p>\n",
             table(Html(f"{caption}: {file}."), list(own), rows)]  # fmt: skip
    if origin:
        kinds = cells.groupby(origin, sort=False).size().reset_index(name="rows")
        parts += ['<h2 id="origin">Where the rows come from</h2>\n']
        parts += [table("Provenance, and how many rows have it.", list(kinds), kinds.to_numpy())]
    return page(path.stem, "".join(parts), at)


def _short(value: str) -> str:
    """A number with four digits, whole numbers and words as they are."""
    return number(float(value), 4) if re.fullmatch(r"-?\d+\.\d+(e[-+]?\d+)?", value) else value


def claims(source: Source) -> Pages:
    """claims.html: the ledger, a table for each place in the paper."""
    at = "claims.html"
    ledger = pd.read_csv(source.root / LEDGER, dtype=str, keep_default_na=False)
    counts = statuses(ledger).items()
    parts = [
        "<h1>Claims</h1>\n<p>Every claim of the abstract and every published figure and table: "
        f"what is published, what is found here, and how. {link('As CSV', LEDGER)}.</p>\n",
        table("How many rows have which status.", ("Status", "Rows", "Meaning"),
              [(_mark(name), count, STATUSES[name]) for name, count in counts], stacked=True),
    ]  # fmt: skip
    written = {one.name: one for one in source.notebooks}
    head = ("Claim, and a note", "Published", "Here", "Status", "Computed by")
    for where, rows in ledger.groupby("where", sort=False):
        parts += [f"<h2>{text(where[:1].upper() + where[1:])}</h2>\n"]
        cells = [
            (_said(row.claim, row.note), row.published, row.ours, _mark(row.status),
             _computed(row.notebook, row.command, written))
            for row in rows.itertuples()
        ]  # fmt: skip
        parts += [table(f"{len(rows)} row{'s' * (len(rows) > 1)}", head, cells, stacked=True)]
    yield at, page("Claims", "".join(parts), at)


def _said(claim: str, note: str) -> Html:
    return Html(text(claim) + (f'<div class="muted">{text(note)}</div>' if note else ""))


def _computed(notebook: str, command: str, written: Mapping[str, Notebook]) -> Html:
    name = link(notebook[:2], written[notebook].page) if notebook in written else text(notebook)
    return Html(f"{name} {_command(command)}" if command else name)


def _command(command: str) -> Html:
    """A command line that breaks before its options, not in them."""
    parts = re.split(" (?=--|&&)", command)
    return code(Html(" ".join(f"<span>{text(part)}</span>" for part in parts)))


def _mark(status: str) -> Html:
    """A status with its own sign, which needs no colour."""
    signs = dict(zip(STATUSES, "=≈≠…∅?", strict=True))
    return Html(f'<span class="status">{signs[status]} {text(status)}</span>')

"""The pages to read: the start, one for each notebook, the figures."""

import re
from collections.abc import Iterator
from pathlib import PurePath

from ...zoo.specs import PAPER
from ..figures import FIGURES, LICENCE
from ..rules import source_hash
from . import pages
from .markup import Html, bullets, code, link, page, picture, terms
from .source import Source

Files = Iterator[tuple[str, str | bytes]]
MAIN = "figures/published_accuracy_vs_macs.svg"


def start(source: Source) -> Files:
    """index.html: what this is, the notebooks with their claims, and the way to the rest."""
    at = "index.html"
    lead, _, _ = source.text("README.md").partition("\n## ")
    title = re.search(r"^# +(.+)$", lead, re.MULTILINE)
    parts = [pages.markdown(lead, source.links(at))]
    rows = []
    for one in source.notebooks:
        claim, takes = (
            pages.markdown(part, source.links(at, one.page)) for part in (one.claim, one.takes)
        )
        rows.append((link(one.title, one.page), Html(f'{claim}<div class="muted">{takes}</div>')))
    parts += [f'<h2 id="notebooks">The notebooks, in order</h2>\n{terms(rows)}']
    if MAIN in source.copied:
        words = "Published top-1 accuracy on Kinetics-400 against FLOPs per prediction"
        parts += [_figure(picture(MAIN, at, words), f"{words}, as published.")]
    parts += ['<h2 id="more">More</h2>\n', bullets(_ways())]
    parts += ['<h2 id="use">Run it, use it, cite it</h2>\n', bullets(_use())]
    yield at, page(title[1] if title else "Start", "\n".join(parts), at)


def _figure(image: Html, caption: str) -> str:
    return f"<figure>{image}\n<figcaption>{caption}</figcaption></figure>\n"


def _ways() -> Iterator[Html]:
    for target, name, what in (
        ("models.html", "Which model?", "all networks side by side, and a card for each"),
        ("figures.html", "Figures", "each with the notebook that draws it"),
        ("results.html", "Results", "the tables behind them, as pages and as CSV"),
        ("claims.html", "Claims", "those of the paper, each beside what is found here"),
        ("data.html", "Data", "datasheets of the two generated sets"),
        ("api.html", "API", "the public names of the library, and the commands"),
    ):
        yield Html(f"{link(name, target)}: {what}.")


def _use() -> Iterator[Html]:
    quick, whole = code("make quick"), code("make reproduce")
    yield Html(f"Run: in a clone of the repository {quick} draws one figure and checks one stream "
               f"in less than two minutes; {whole} runs all notebooks.")  # fmt: skip
    yield Html(
        f"Licence: {LICENCE}; weights have their own, which {link('the cards', 'models.html')} say."
    )
    yield Html("Cite the paper: L. Hedegaard and A. Iosifidis, <em>Continual 3D Convolutional "
               "Neural Networks for Real-time Processing of Videos</em>, ECCV 2022, "
               f"{link(PAPER, PAPER)}.")  # fmt: skip


def notebooks(source: Source) -> Files:
    """A page for each notebook, with its pictures as files, and the ways to its neighbours."""
    listed = source.notebooks
    for before, one, after in zip([None, *listed], listed, [*listed[1:], None], strict=False):
        at = one.page
        body, pictures = pages.content(one.node, source.links(at), f"{one.name}-")
        ways = [
            link(f"{arrow} {other.title}", other.page, at)
            for arrow, other in (("←", before), ("→", after))
            if other
        ]
        state = one.node.metadata.get("co3d", {}).get("source_hash")
        stale = "" if state == source_hash(one.node) else (
            "<p><strong>The outputs below belong to an earlier version of this notebook.</strong>"
        )  # fmt: skip
        nav = f'<nav class="ways" aria-label="Notebooks">{" ".join(ways)}</nav>'
        yield at, page(one.title, f"{stale}{body}\n{nav}", at)
        yield from ((f"notebooks/{name}", data) for name, data in pictures.items())


def figures(source: Source) -> Files:
    """figures.html: figures and tables with their captions and the notebooks that draw them."""
    at, drawn, tables = "figures.html", [], []
    by_name = {one.name: one for one in source.notebooks}
    for stem, record in FIGURES.items():
        files = [name for name in source.copied if PurePath(name).stem == stem]
        one = by_name.get(record.notebook)
        by = Html(f" Drawn by {link(one.title, one.page)}." if one else "")
        for name in files:
            if name.endswith((".svg", ".gif")):
                image = picture(name, at, record.caption, lazy=True)
                drawn.append(_figure(image, f"{link(code(stem), name)}: {record.caption}{by}"))
            elif name.endswith(".md"):
                forms = ", ".join(link(PurePath(n).suffix[1:], n) for n in files)
                tables += [f'<h3 id="{stem}">{stem}</h3>\n<p>{record.caption}{by} ({forms})</p>\n']
                tables += [pages.markdown(source.text(name), source.links(at, name))]
    title = "Figures and tables"
    body = f'<h1>{title}</h1>\n{"".join(drawn)}<h2 id="tables">Tables</h2>\n{"".join(tables)}'
    yield at, page("Figures", body, at)

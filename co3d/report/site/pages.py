"""Markdown and executed notebooks as HTML that needs no network: formulas are MathML."""

import base64
import re
from collections.abc import Callable
from pathlib import Path

import nbformat
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode

from ..rules import CONTROLS
from . import markup
from .markup import Html

Link = Callable[[str], str]  # the address to use for the one that was written; "" leaves it out
# Of several forms of an output the first of these; a widget is never one of them.
KINDS = ("text/html", "text/markdown", "image/png", "image/jpeg", "image/svg+xml", "text/plain")
PICTURES = ("image/png", "image/jpeg")


def beside(address: str) -> str:
    """Links between notebooks become links between their pages, which lie side by side."""
    return re.sub(r"^([\w./-]+)\.ipynb(?=#|$)", r"\1.html", address)


def markdown(source: str, link: Link = beside) -> Html:
    """Markdown with formulas as HTML.

    Raises:
        ValueError: for a formula that cannot be set.
    """
    return Html(MarkdownWithMath(renderer=_Renderer(link)).render(source))


def content(
    notebook: NotebookNode, link: Link = beside, pictures: str = ""
) -> tuple[Html, dict[str, bytes]]:
    """What an executed notebook shows, and its pictures by name.

    Args:
        pictures: what their names begin with, seen from the page; "" puts them into the page.

    Raises:
        ValueError: as `markdown`.
    """
    notebook = nbformat.from_dict(notebook)
    found = _pictures(notebook, pictures)
    body, _ = _Exporter(link).from_notebook_node(notebook)
    return Html(body), found


def export(notebook: Path) -> str:
    """The page of an executed notebook, all in one file."""
    node = nbformat.read(notebook, 4)
    body, _ = content(node)
    style = f"<style>\n{markup.styles()}</style>"
    return markup.document(notebook.stem, f"<main>\n{body}\n</main>", style)


class _Renderer(IPythonRenderer):
    def __init__(self, link: Link) -> None:
        super().__init__(escape=False)
        self.target = link

    def link(self, text: str, url: str, title: str | None = None) -> str:
        url = self.target(url)
        return super().link(text, url, title) if url else text

    def table(self, text: str) -> str:
        return markup.scroller(f'<table class="prose">\n{text}</table>')

    def inline_math(self, body: str) -> str:
        return _formula(body, "inline")

    def block_math(self, body: str) -> str:
        return _formula(body, "block")


class _Exporter(HTMLExporter):
    def __init__(self, link: Link) -> None:
        super().__init__(
            template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True
        )
        self.target = link

    @property
    def default_config(self):
        config = super().default_config
        config["NbConvertBase"]["display_data_priority"] = list(KINDS)
        return config

    def markdown2html(self, source: str) -> str:
        return markdown(source, self.target)


def _formula(body: str, display: str) -> str:
    try:
        formula = convert(body, display=display)
    except Exception as error:  # the library's errors have no common class
        raise ValueError(f"the formula ${body}$ cannot be set: {type(error).__name__}") from None
    if unknown := re.search(r"\\\w+", formula):
        raise ValueError(f"the formula ${body}$ cannot be set: {unknown[0]} is not known")
    return formula


def _pictures(notebook: NotebookNode, begin: str) -> dict[str, bytes]:
    """Gives each picture an alternative text, and a name if `begin` is given; drops bare widgets.

    A GIF is called PNG in notebooks, so the kind of a file follows from its first bytes.
    """
    found, heading = {}, ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            titles = re.findall(r"^#+ +(.+)$", cell.source, re.MULTILINE)
            heading = titles[-1] if titles else heading
        outputs = cell.get("outputs", [])
        shown = [
            o for o in outputs if CONTROLS not in o.get("data", {}) or _kind(o) != "text/plain"
        ]
        if cell.cell_type == "code":
            cell.outputs = shown
        for output in shown:
            if (kind := _kind(output)) in PICTURES:
                output.metadata.setdefault(kind, {}).setdefault("alt", f"Output of: {heading}")
                data = base64.b64decode(output.data[kind])
                suffix = "gif" if data.startswith(b"GIF8") else kind.rpartition("/")[2]
                if begin:
                    name = f"{begin}{len(found) + 1}.{suffix}"
                    found[name], output.metadata["filenames"] = data, {kind: name}
    return found


def _kind(output: NotebookNode) -> str:
    """The form in which an output is shown, "" for text that was printed."""
    return next((kind for kind in KINDS if kind in output.get("data", {})), "")

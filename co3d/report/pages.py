"""Executed notebooks as HTML that needs no network: formulas are MathML."""

import re
from pathlib import Path

from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath


def export(notebook: Path) -> str:
    """The page of an executed notebook, all in one file; its links lead to pages beside it."""
    page, _ = _Exporter(template_name="lab").from_filename(str(notebook))
    page = re.sub(r"<script\b.*?</script>", "", page, flags=re.DOTALL)  # they ask a network
    return re.sub(r'(href="[\w.-]+)\.ipynb(?=["#])', r"\1.html", page)


class _Exporter(HTMLExporter):
    def markdown2html(self, source: str) -> str:
        return MarkdownWithMath(renderer=_Renderer(escape=False)).render(source)


class _Renderer(IPythonRenderer):
    def inline_math(self, body: str) -> str:
        return convert(body)

    def block_math(self, body: str) -> str:
        return convert(body, display="block")

"""Executed notebooks as HTML that needs no network: formulas are MathML."""

import re
from pathlib import Path

from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

from .. import files


def export(executed: Path) -> Path:
    """Writes run_dir/html/x.html of run_dir/notebooks/x.ipynb; links lead to pages beside it."""
    page, _ = _Exporter(template_name="lab").from_filename(str(executed))
    page = re.sub(r"<script\b.*?</script>", "", page, flags=re.DOTALL)  # they ask a network
    page = re.sub(r'(href="[\w.-]+)\.ipynb(?=["#])', r"\1.html", page)
    return files.write(executed.parents[1] / "html" / f"{executed.stem}.html", page)


class _Exporter(HTMLExporter):
    def markdown2html(self, source: str) -> str:
        return MarkdownWithMath(renderer=_Renderer(escape=False)).render(source)


class _Renderer(IPythonRenderer):
    def inline_math(self, body: str) -> str:
        return convert(body)

    def block_math(self, body: str) -> str:
        return convert(body, display="block")

"""Notebooks as HTML pages that need no network: images inside, formulas drawn as SVG."""

import base64
import html
import io
import re
from pathlib import Path

import nbformat
from matplotlib.font_manager import FontProperties
from matplotlib.mathtext import math_to_image
from nbconvert import HTMLExporter

FORMULA = re.compile(
    r"(```.*?```|`[^`]*`)|\$\$(.+?)\$\$|(?<![\\$])\$([^\s$](?:[^$\n]*[^\s$])?)\$", re.S
)


def export(notebook: Path) -> str:
    """The page of an executed notebook."""
    node = nbformat.read(notebook, 4)
    for cell in node.cells:
        if cell.cell_type == "markdown":
            cell.source = FORMULA.sub(_drawn, cell.source)
    exporter = HTMLExporter(embed_images=True, require_js_url="", mathjax_url="", jquery_url="")
    resources = {"metadata": {"name": notebook.stem, "path": str(notebook.parent)}}
    page, _ = exporter.from_notebook_node(node, resources)
    return page


def _drawn(match: re.Match) -> str:
    """The formula as an image, or as it stands where matplotlib cannot set it; code stays code."""
    code, display, inline = match.groups()
    if code:
        return code
    formula = " ".join((display or inline).split())
    picture = io.BytesIO()
    try:
        font = FontProperties(size=15 if display else 13, math_fontfamily="stix")
        depth = math_to_image(f"${formula}$", picture, prop=font, dpi=72, format="svg")
    except ValueError:
        return match[0]
    data = base64.b64encode(picture.getvalue()).decode()
    style = "display:block;margin:1em auto" if display else f"vertical-align:-{depth:.1f}px"
    return (
        f'<img alt="{html.escape(formula)}" style="{style}" src="data:image/svg+xml;base64,{data}">'
    )

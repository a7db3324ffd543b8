"""How Sphinx makes HTML of what `co3d site` writes; pages load nothing from elsewhere."""

import re
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert

import co3d

project = "Continual 3D CNNs"
html_title = project
release = co3d.__version__
language = "en"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
templates_path = [str(Path(__file__).parent / "templates")]
exclude_patterns = ["README.md"]  # index.md has its text

nb_execution_mode = "off"  # pages show the committed outputs
nb_ipywidgets_js = {}  # they would come from a content network; outputs have pictures
nb_merge_streams = True
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # steps in the levels of headings

# where names of files do not differ by case
autosummary_filename_map = {
    "co3d.Spec": "co3d.Spec-class",
    "co3d.measure.conversion.Report": "co3d.measure.conversion.Report-class",
}
autodoc_default_options = {"members": True, "inherited-members": "Module"}
autodoc_typehints_format = "short"
autodoc_class_signature = "mixed"
default_role = "code"
# types of other libraries, and of classes that are not public
nitpick_ignore_regex = [
    ("py:class", r"(?!co3d\.).*|co3d\.(nn\.(blocks|core|pointwise)|zoo\.specs|measure)\..*")
]
napoleon_use_param = False
napoleon_use_rtype = False
napoleon_custom_sections = [("Attributes", "params_style")]

smartquotes = False  # options of commands begin with two hyphens
pygments_dark_style = "github-dark"
html_theme = "furo"
html_static_path = ["style.css"]
html_css_files = ["style.css"]
html_copy_source = False
html_show_copyright = False
html_show_search_summary = False  # a browser cannot fetch it from a file
html_math_renderer = "mathml"


def _mathml(node: nodes.Node, display: str) -> str:
    formula = convert(node.astext(), display=display)
    if unknown := re.search(r"\\\w+", formula):
        raise ValueError(f"the formula {node.astext()} has an unknown command: {unknown[0]}")
    return formula


def _inline(self, node: nodes.Node) -> None:
    self.body.append(_mathml(node, "inline"))
    raise nodes.SkipNode


def _block(self, node: nodes.Node) -> None:
    self.body.append(f'<div class="formula">{_mathml(node, "block")}</div>')
    raise nodes.SkipNode


def setup(app) -> None:
    """Formulas are MathML, which browsers show without a script."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))

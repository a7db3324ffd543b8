"""How Sphinx makes HTML of what `co3d site` writes; pages load nothing from elsewhere."""

import re
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert

project = html_title = "Continual 3D CNNs"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
templates_path = [str(Path(__file__).parent / "templates")]
# index.md has the text of README.md
exclude_patterns = ["README.md", "notebooks/site", "**/.ipynb_checkpoints"]
suppress_warnings = ["myst.header"]  # steps in the levels of headings

nb_execution_mode = "off"  # pages show the committed outputs
nb_ipywidgets_js = {}  # they would come from elsewhere; outputs have pictures
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

default_role = "code"
autodoc_default_options = {"members": True, "inherited-members": "Module"}
autodoc_typehints_format = "short"
# where names of files do not differ by case
autosummary_filename_map = {
    "co3d.Spec": "co3d.Spec-class",
    "co3d.measure.conversion.Report": "co3d.measure.conversion.Report-class",
}
napoleon_use_param = napoleon_use_rtype = False
napoleon_custom_sections = [("Attributes", "params_style")]
# types of other libraries, and of classes that are not public
nitpick_ignore_regex = [
    ("py:class", r"(?!co3d\.).*|co3d\.(nn\.(blocks|core|pointwise)|zoo\.specs|measure)\..*")
]

html_theme = "furo"
pygments_dark_style = "github-dark"
html_static_path = html_css_files = ["style.css"]
html_copy_source = html_show_copyright = False
html_show_search_summary = False  # a browser cannot fetch it from a file
html_math_renderer = "mathml"


def _formula(self, node: nodes.Node) -> None:
    """A formula as MathML, which browsers show without a script."""
    display = "block" if isinstance(node, nodes.math_block) else "inline"
    formula = convert(node.astext(), display=display)
    if unknown := re.search(r"\\\w+", formula):
        raise ValueError(f"the formula {node.astext()} has an unknown command: {unknown[0]}")
    self.body.append(formula)
    raise nodes.SkipNode


def setup(app) -> None:
    """Called by Sphinx."""
    app.add_html_math_renderer("mathml", (_formula, None), (_formula, None))

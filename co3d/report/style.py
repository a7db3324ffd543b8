"""How all figures look: names, colours, fonts, and the files they are saved as.

A family keeps its colour everywhere.
"""

import io
from pathlib import Path

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager

LABELS = {
    "x3d_xs": "X3D-XS",
    "x3d_s": "X3D-S",
    "x3d_m": "X3D-M",
    "x3d_l": "X3D-L",
    "x3d_mini": "X3D-mini",
    "slow_8x8_r50": "Slow-8×8",
    "coslow_8x8_r50": "CoSlow",
    "slow_mini": "Slow-mini",
    "i3d_8x8_r50": "I3D",
    "i3d_mini": "I3D-mini",
    "slowfast_4x16_r50": "SlowFast-4×16",
    "slowfast_8x8_r50": "SlowFast-8×8",
    "slowfast_mini": "SlowFast-mini",
    "r2plus1d_18": "R(2+1)D-18",
    "r2plus1d_mini": "R(2+1)D-mini",
    "rcu": "RCU",
    "vivit_l_16x2_fe": "ViViT-L/16×2 FE",
    "vtn_r50": "VTN-R50",
    "vtn_r101": "VTN-R101",
    "vtn_vit_b": "VTN-ViT-B",
}
# Okabe and Ito's palette, the yellow left out: distinct for colour-blind readers and in print.
FAMILY_COLORS = {
    "x3d": "#0072B2",
    "slow": "#D55E00",
    "i3d": "#009E73",
    "slowfast": "#AA4499",
    "r2plus1d": "#B8860B",
    "rcu": "#333333",
    "context": "#777777",
}
STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9.5,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.hashsalt": "co3d",
}
INK, MUTED = "#222222", "#6B6B6B"


def add_fonts() -> None:
    """Make the fonts of formulas known, which matplotlib's cached list of its own may lack."""
    if "STIXGeneral" not in fontManager.get_font_names():
        for font in sorted(Path(mpl.get_data_path(), "fonts", "ttf").glob("*.ttf")):
            fontManager.addfont(font)


add_fonts()


class Drawing(Figure):
    """A figure that a notebook shows once, as PNG, whatever its plotting backend."""

    def __init__(self, width: float, height: float) -> None:  # in inches
        super().__init__(figsize=(width, height), dpi=100)
        FigureCanvasAgg(self)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        with mpl.rc_context(STYLE):
            self.savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()


def label(model: str) -> str:
    """The name shown for `model`; a continual net is its regular twin's label with Co before it."""
    regular = model.removeprefix("co")
    if model not in LABELS and regular not in LABELS:
        raise ValueError(f"no label for model {model!r}: add it to co3d.report.style.LABELS")
    return LABELS.get(model) or "Co" + LABELS[regular]


def family(model: str) -> str:
    """The key of `model` in FAMILY_COLORS; transformers share 'context'."""
    stem = model.removeprefix("co").split("_")[0]
    return stem if stem in FAMILY_COLORS else "context"


def color(model: str) -> str:
    """The colour of the model's family."""
    return FAMILY_COLORS[family(model)]


def save(fig: Figure, stem: str, folder: Path | str) -> Path:
    """Write folder/figures/stem.svg and .png; equal figures give equal bytes. Returns the PNG."""
    png = target(stem + ".png", folder)
    with mpl.rc_context(STYLE):
        for suffix, metadata in ((".svg", {"Date": None}), (".png", {"Software": None})):
            path = png.with_suffix(suffix)
            part = path.with_name(path.name + ".part")
            fig.savefig(part, format=path.suffix[1:], dpi=160, metadata=metadata)
            part.replace(path)
    return png


def target(name: str, folder: Path | str) -> Path:
    """folder/figures/name, its folder made."""
    figures = Path(folder) / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    return figures / name

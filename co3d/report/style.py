"""How all figures look: names, colours, marks and sizes. The conventions of every figure:

- A family of networks keeps its colour (`FAMILY_COLORS`), which colour-blind readers can tell
  apart. No figure relies on colour alone. Where one clip network stands beside its stream, the
  stream has the family's colour and the clip network is dark grey (`CLIP`). In drawings of the
  idea blue is what is computed for the new frame, orange what is computed again.
- A square is one clip per prediction, a diamond the average of clips, a circle a stream. A stream
  is filled and its line solid; clips are hollow and dashed. The number inside is the frames of the
  clip or the window of the stream.
- Axes name their unit. MACs are multiply-accumulates, which the paper calls FLOPs. Published and
  measured numbers never share an axis.
- A figure is at most `WIDTH` inches wide, so that a README shows it at full size, and no text is
  below `SMALLEST` points.

A notebook that draws in the open begins with `plt.rcParams.update(style.STYLE)`.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.lines import Line2D

from ..zoo.specs import SPECS

WIDTH, SMALLEST = 8.6, 7.0  # inches, which are 826 pixels of a page; points
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
# From the palettes of Okabe and Ito and of Tol; any two differ for each kind of colour blindness.
FAMILY_COLORS = {
    "x3d": "#0072B2",
    "slow": "#D55E00",
    "i3d": "#009E73",
    "slowfast": "#882288",
    "r2plus1d": "#6B4A00",
    "rcu": "#333333",
    "context": "#5E5E5E",
}
MARKERS = {"clip": "s", "clips": "D", "stream": "o"}
STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.hashsalt": "co3d",
}
INK, MUTED, CLIP = "#222222", "#6B6B6B", "#444444"


# matplotlib's cached list of fonts may lack its own ones for formulas.
if "STIXGeneral" not in fontManager.get_font_names():
    for font in sorted(Path(mpl.get_data_path(), "fonts", "ttf").glob("*.ttf")):
        fontManager.addfont(font)


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


def order(models: Sequence[str]) -> list[str]:
    """The models in the order of their specs: X3D, Slow, I3D, SlowFast, R(2+1)D."""
    return sorted(set(models), key=list(SPECS).index)


def mark(mode: str, text: str, size: float = 8) -> Line2D:
    """The entry of a legend for a `mode`: clip, clips or stream."""
    face = MUTED if mode == "stream" else "white"
    look = {"marker": MARKERS[mode], "ms": size, "mfc": face, "mec": MUTED, "mew": 1.4}
    return Line2D([], [], ls="", label=text, **look)

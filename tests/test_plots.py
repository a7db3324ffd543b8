"""Figures show the data they are given; texts do not overlap; equal figures are equal files."""

import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.font_manager import fontManager
from matplotlib.patches import FancyArrowPatch
from matplotlib.transforms import Bbox
from pictures import assert_legible
from PIL import Image, ImageColor

from co3d.paths import repo_root
from co3d.report import drawings, figures, plots, style

PAPER = repo_root() / "results" / "paper"


@pytest.fixture(scope="module")
def published():
    return pd.read_csv(PAPER / "kinetics400_published.csv")


@pytest.fixture(scope="module")
def figure(published):
    context = pd.read_csv(PAPER / "kinetics400_context_published.csv")
    fig = plots.published_accuracy_vs_macs(published, context)
    fig.canvas.draw()
    return fig


@pytest.fixture(scope="module")
def counted(published):
    """The published table with made-up counts, none for RCU, which is not built here."""
    macs = (0.9e9 * published["gflops_per_prediction"]).astype("Int64")
    fig = plots.published_accuracy_vs_counted_macs(
        published.assign(macs_per_predicting_step=macs.mask(published["model"] == "rcu"))
    )
    fig.canvas.draw()
    return fig


def markers(fig):
    """{(model, mode, number): (x, y)} of all markers drawn."""
    return {
        tuple(point.get_gid().split(":")): tuple(point.get_offsets()[0])
        for point in fig.axes[0].collections
        if point.get_gid()
    }


def texts(fig, gid):
    return [text for text in fig.axes[0].texts if text.get_gid() == gid]


def arrows(fig):
    """Pairs of (x, y) ends in data coordinates."""
    return [p._posA_posB for p in fig.axes[0].patches if isinstance(p, FancyArrowPatch)]


def test_every_published_number_is_drawn_where_it_belongs(figure, published):
    drawn = markers(figure)
    assert len(drawn) == len(published) + 4  # and four transformers
    for row in published.itertuples():
        number = row.window if row.mode == "stream" else row.frames
        point = drawn[row.model, row.mode, f"{number:.0f}"]
        assert point == pytest.approx((row.gflops_per_prediction, row.top1_percent))
    assert ("coi3d_8x8_r50", "stream", "64") in drawn


def test_counts_of_our_own_stand_under_the_published_accuracies(counted, published):
    drawn = markers(counted)
    assert len(drawn) == len(published) - 1
    for row in published[published["model"] != "rcu"].itertuples():
        number = row.window if row.mode == "stream" else row.frames
        point = drawn[row.model, row.mode, f"{number:.0f}"]
        assert point == pytest.approx((0.9 * row.gflops_per_prediction, row.top1_percent))
    ax = counted.axes[0]
    assert "counted here" in ax.get_xlabel() and "counted here" in ax.get_title("left")
    assert "Published" in ax.get_ylabel() and "Published" in ax.get_title("left")
    low, high = ax.get_xlim()
    assert all(low < x < high for x, _ in drawn.values())


def test_windows_stand_inside_the_markers(figure):
    inside = {tuple(text.get_position()): text.get_text() for text in texts(figure, "number")}
    for (_, _, number), point in markers(figure).items():
        assert inside[point] == number


def test_arrows_lead_from_regular_to_continual_to_wide(figure, published):
    at = {
        (row.model, row.window if row.mode == "stream" else 0): (
            row.gflops_per_prediction,
            row.top1_percent,
        )
        for row in published.itertuples()
    }
    expected = []
    for model, native in [
        *[("cox3d_s", 13), ("cox3d_m", 16), ("cox3d_l", 16)],
        *[("coslow_8x8_r50", 8), ("coi3d_8x8_r50", 8)],
    ]:
        expected += [(at[model[2:], 0], at[model, native]), (at[model, native], at[model, 64])]
    assert sorted(map(tuple, arrows(figure))) == sorted(expected)


def test_the_axes_say_what_is_counted(figure):
    ax = figure.axes[0]
    assert ax.get_xscale() == "log" and "multiply-accumulates" in ax.get_xlabel()
    assert "Published" in ax.get_ylabel() and "(%)" in ax.get_ylabel()
    names = [text.get_text() for text in texts(figure, "name")]
    assert names.count("~ RCU") == 1 and sum("~" in name for name in names) == 1
    assert "CoX3D-M\n÷ 15.1, +3.8" in names and "CoI3D\n÷ 5.0, −7.1" in names
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert "approximate (~)" in legend and "native window, and at 64" in legend[-2]
    assert legend[-1].startswith("÷ 12.1, +2.6: fewer FLOPs and points at 64")


@pytest.mark.parametrize("which", ["published", "counted"])
def test_no_text_overlaps_another_or_leaves_the_figure(which, figure, counted):
    fig = {"published": figure, "counted": counted}[which]
    fig.canvas.draw()
    ax = fig.axes[0]
    around = [ax._left_title, ax.xaxis.label, ax.yaxis.label]
    labels = [*ax.texts, *ax.get_legend().get_texts(), *around]
    ticks = [t for axis in (ax.xaxis, ax.yaxis) for t in axis.get_ticklabels() if t.get_text()]
    low, high = ax.get_xlim()
    boxes = [
        (text.get_text(), text.get_window_extent())
        for text in [*labels, *ticks]
        if text not in ax.xaxis.get_ticklabels() or low <= text.get_position()[0] <= high
    ]
    for (a, box), (b, other) in itertools.combinations(boxes, 2):
        assert not box.overlaps(other), f"{a!r} overlaps {b!r}"
    for text, (name, point) in itertools.product(texts(fig, "name"), markers(fig).items()):
        centre = ax.transData.transform(point)
        marker = Bbox([centre - 10, centre + 10])
        assert not text.get_window_extent().overlaps(marker), f"{text.get_text()} lies on {name}"
    assert_legible(fig)
    for text in labels:
        box = text.get_window_extent()
        assert fig.bbox.x0 <= box.x0 and box.x1 <= fig.bbox.x1, text.get_text()
        assert fig.bbox.y0 <= box.y0 and box.y1 <= fig.bbox.y1, text.get_text()


def test_one_colour_per_family_and_one_label_per_model(published):
    for name in published["model"]:
        assert style.color(name) == style.color(name.removeprefix("co"))
    colours = set(style.FAMILY_COLORS.values())
    assert len(colours) == len(style.FAMILY_COLORS)
    assert style.label("cox3d_m") == "CoX3D-M" and style.label("coslow_8x8_r50") == "CoSlow"
    with pytest.raises(ValueError, match="'cox3d_xxl'"):
        style.label("cox3d_xxl")


def test_save_writes_equal_bytes_and_nothing_else(tmp_path, published):
    context = pd.read_csv(PAPER / "kinetics400_context_published.csv")
    for folder in ("a", "b"):
        fig = plots.published_accuracy_vs_macs(published, context)
        png = figures.save(fig, "stem", tmp_path / folder)
        assert png == tmp_path / folder / "figures/stem.png"
    files = sorted(path.name for path in (tmp_path / "a" / "figures").iterdir())
    assert files == ["stem.png", "stem.svg"]
    for name in files:
        first, second = ((tmp_path / f / "figures" / name).read_bytes() for f in "ab")
        assert first == second


def test_a_notebook_shows_a_figure_once_as_png():
    fig = drawings.residual_alignment()
    assert fig._repr_png_().startswith(b"\x89PNG")


def shown(fig):
    return [text.get_text() for text in fig.axes[0].texts if text.get_text()]


@pytest.mark.parametrize("step", [1, 3, 6])
def test_the_principle_is_drawn_with_true_numbers(step):
    kernel, frames = [1, 2, 3], [1, 2, 3, 4, 5, 6]
    sums = np.convolve(frames[:step], kernel[::-1])[step - 1 : step + 2]
    drawn = shown(drawings.principle(kernel, frames, step))
    assert [text for text in drawn if text.isdigit()] == [str(value) for value in sums]
    assert f"output $y_{step}$" in drawn


def test_the_shortcut_waits_for_the_main_branch():
    drawn = shown(drawings.residual_alignment(frames=5, delay=2))
    assert [text for text in drawn if "+" in text] == [f"$y_{t} + x_{t}$" for t in (1, 2, 3)]


def test_the_clip_has_zeros_where_the_stream_has_frames():
    fig = drawings.padding_shift(frames=6)
    assert shown(fig).count("0") == 4
    faces = [patch.get_facecolor() for patch in fig.axes[0].patches]
    hex_faces = ["#{:02X}{:02X}{:02X}".format(*(round(c * 255) for c in f[:3])) for f in faces]
    legend = 1
    assert hex_faces.count(drawings.AGAIN) == 2 + 4 + legend  # one at either end, then two
    assert hex_faces.count(drawings.NEW) == 4 + 2 + 8 + 6 + legend


def frames_of(path):
    with Image.open(path) as image:
        return image.n_frames, image.info.get("loop")


def test_animation_of_a_clip_against_steps(tmp_path):
    images = drawings.clip_against_step([1, 2, 3], range(1, 11), clip=5)
    path = drawings.save_gif(images, "steps", tmp_path, ms=900)
    assert frames_of(path) == (10, 0)
    assert path.stat().st_size < 200_000
    again = drawings.save_gif(images, "steps", tmp_path / "again", ms=900)
    assert again.read_bytes() == path.read_bytes()


def test_hero_is_a_small_animation_on_white(tmp_path):
    video = np.random.default_rng(0).integers(0, 256, (48, 48, 64, 3), dtype=np.uint8)
    counts = {"clip_frames": 16, "clip_macs": 2e7, "step_macs": 1.5e6, "first_output": 40}
    path = drawings.hero(video, "hero", tmp_path, names=("X3D", "CoX3D"), every=4, **counts)
    assert path == tmp_path / "figures" / "hero.gif"
    assert frames_of(path) == (12, 0) and path.stat().st_size < drawings.GIF_LIMIT_BYTES
    with Image.open(path) as image:
        assert image.convert("RGB").getpixel((755, 5)) == (255, 255, 255)


def test_an_animation_keeps_the_colours_that_mean_something(tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    for place, one in enumerate(drawings.EXACT):
        image.paste(ImageColor.getrgb(one), (8 * place, 0, 8 * place + 8, 8))
    with Image.open(drawings.save_gif([image, image], "hero", tmp_path, ms=100)) as animation:
        seen = animation.convert("RGB")
    for place, one in enumerate(drawings.EXACT):
        assert seen.getpixel((8 * place + 4, 4)) == ImageColor.getrgb(one), one


@pytest.mark.parametrize(
    ("macs", "most", "text"),
    [(6.5e6, 2.9e9, "6 MMACs"), (2.924e9, 2.924e9, "2,924 MMACs"), (5e8, 2e10, "0.5 GMACs")],
)
def test_multiply_accumulates_have_the_unit_of_the_most(macs, most, text):
    assert drawings.macs_text(macs, most) == text


def test_curves_have_their_line_beside_their_bar():
    values = {"by clips": np.linspace(0, 1, 30), "stream": np.linspace(1, 0, 20)}
    ax = plots.over_time(values, frames=40, fps=10, title="").axes[0]
    lines = [line for line in ax.lines if line.get_linewidth() == 1.8]
    for curve, sample in zip(lines[::2], lines[1::2], strict=True):
        assert curve.get_linestyle() == sample.get_linestyle()
        assert curve.get_color() == sample.get_color()
    assert [line.get_linestyle() for line in lines] == ["--", "--", "-", "-"]
    assert [t.get_text() for t in ax.texts] == [
        "by clips: first prediction after 1.1 s",
        "stream: first prediction after 2.1 s",
    ]


def test_too_large_an_animation_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(drawings, "GIF_LIMIT_BYTES", 100)
    with pytest.raises(ValueError, match="use fewer images"):
        drawings.save_gif([Image.new("RGB", (200, 200))] * 2, "large", tmp_path, ms=100)
    assert not list((tmp_path / "figures").iterdir())


def test_formulas_find_their_fonts_where_matplotlib_s_list_lacks_them(monkeypatch, caplog):
    known = [font for font in fontManager.ttflist if font.name == "DejaVu Sans"]
    monkeypatch.setattr(fontManager, "ttflist", known)
    style.add_fonts()
    fig = style.Drawing(1, 1)
    fig.text(0, 0, "$x_0$")
    fig._repr_png_()
    assert not caplog.records
    assert {"STIXGeneral", "cmr10", "DejaVu Sans Display"} <= set(fontManager.get_font_names())
    before = len(fontManager.ttflist)
    style.add_fonts()
    assert len(fontManager.ttflist) == before

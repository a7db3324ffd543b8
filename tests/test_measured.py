"""Figures of measured accuracies: every row at its place, no text on another, refusals."""

import itertools

import numpy as np
import pandas as pd
import pytest
from pictures import assert_legible

from co3d.report import measured

FAMILIES = ("x3d_mini", "slow_mini", "i3d_mini", "slowfast_mini", "r2plus1d_mini")


def table(models=FAMILIES):
    """A clip net, its stream at three windows and the controls, per family."""
    rows = []
    for n, model in enumerate(models):
        top1, macs = 60.0 + 7 * n, 2e7 * (n + 1)
        rows.append((model, "clip", None, 16, 1, top1, macs))
        for window, frames, views in ((16, 32, 2), (32, 48, 3), (64, 80, 5)):
            rows.append((f"co{model}", "stream", window, frames, 1, top1 + window / 8, macs / 14))
            rows.append((model, "clips", None, frames, views, top1 + views, macs * views))
    names = ["model", "mode", "window", "frames", "views", "top1", "macs_per_prediction"]
    made = pd.DataFrame(rows, columns=names).astype({"window": "Int64"})
    return made.assign(
        dataset="synthetic-kinetics",
        map_common=made["top1"] / 2,
        ci_low=made["top1"] - 2,
        ci_high=made["top1"] + 1.5,
    )


def boxes(fig):
    """What stands where, of every text that is seen: titles, labels, ticks, legends, numbers."""
    fig.canvas.draw()
    renderer, found = fig.canvas.get_renderer(), []
    for ax in fig.axes:
        texts = [*ax.texts, ax.title, ax._left_title]
        if ax.axison:
            texts += [ax.xaxis.label, ax.yaxis.label]
            for n, axis in enumerate((ax.xaxis, ax.yaxis)):
                low, high = axis.get_view_interval()
                labels = axis.get_ticklabels()
                texts += [one for one in labels if low <= one.get_position()[n] <= high]
        if ax.get_legend():
            texts += ax.get_legend().get_texts()
        for text in texts:
            if text.get_visible() and text.get_text():
                found.append((text.get_text(), text.get_window_extent(renderer)))
    return found


def assert_readable(fig):
    width, height = fig.canvas.get_width_height()
    assert_legible(fig)
    found = boxes(fig)
    for text, box in found:
        assert box.x0 > -1 and box.y0 > -1 and box.x1 < width + 1 and box.y1 < height + 1, text
    for (one, a), (other, b) in itertools.combinations(found, 2):
        across = min(a.x1, b.x1) - max(a.x0, b.x0)
        along = min(a.y1, b.y1) - max(a.y0, b.y0)
        assert min(across, along) < 1, f"{one!r} and {other!r}"


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_every_row_is_drawn_and_no_text_lies_on_another(count):
    rows = table(FAMILIES[:count])
    fig = measured.accuracy_vs_macs(rows)
    panels = [ax for ax in fig.axes if ax.axison]
    assert len(panels) == count
    drawn = {tuple(p) for ax in panels for c in ax.collections for p in _offsets(c)}
    for row in rows.itertuples():
        assert (row.macs_per_prediction / 1e6, row.top1) in drawn
    titles = [ax.get_title("left") for ax in panels]
    assert titles[0] == "X3D-mini" and len(set(titles)) == count
    assert "Top-1 on synthetic-kinetics (%)" in panels[0].get_ylabel()
    assert panels[-1].get_xlabel() == "MMACs per prediction"
    assert_readable(fig)


def _offsets(collection):
    offsets = np.asarray(collection.get_offsets(), float)
    return [tuple(point) for point in offsets.tolist()]


def test_windows_of_streams_and_frames_of_clips_stand_inside():
    (panel, *_) = measured.accuracy_vs_macs(table(FAMILIES[:1])).axes
    numbers = sorted(int(text.get_text()) for text in panel.texts)
    assert numbers == sorted([16, 16, 32, 64, 32, 48, 80])


def test_the_legend_names_what_is_there():
    def entries(rows):
        (legend,) = (ax.get_legend() for ax in measured.accuracy_vs_macs(rows).axes
                     if ax.get_legend())  # fmt: skip
        return [text.get_text().split()[0].rstrip(":") for text in legend.get_texts()]

    rows = table()
    assert entries(rows) == ["one", "control", "stream", "95"]
    assert entries(rows[rows["mode"] != "clips"]) == ["one", "stream", "95"]


def test_map_has_its_own_axis():
    panel = measured.accuracy_vs_macs(table(FAMILIES[:1]), "map_common").axes[0]
    assert panel.get_ylabel() == "mAP on synthetic-kinetics (%)"


def test_rows_that_cannot_be_told_apart_are_refused():
    rows = table()
    with pytest.raises(ValueError, match="one data set, given charades, synthetic-kinetics"):
        measured.accuracy_vs_macs(
            pd.concat([rows, rows.assign(dataset="charades")], ignore_index=True)
        )
    with pytest.raises(ValueError, match="expected rows of one data set, given no rows"):
        measured.accuracy_vs_macs(rows[:0])
    with pytest.raises(ValueError, match="two rows share model, mode, window and views"):
        measured.accuracy_vs_macs(pd.concat([rows, rows[:1]], ignore_index=True))


def shares(classes, readings=4):
    values = np.random.default_rng(0).uniform(0, 100, (classes, readings))
    names = [f"a class whose name is rather long {n}" for n in range(classes)]
    columns = [f"CoSlowFast-mini {n}, steady" for n in range(readings)]
    return pd.DataFrame(values, names, columns)


@pytest.mark.parametrize("readings", [1, 10])
def test_classes_are_all_shown_and_readable(readings):
    few = shares(12, readings)
    few.iloc[3, 0] = np.nan
    fig = measured.per_class(few, "Top-1 per class on made videos (%)")
    ax = fig.axes[0]
    assert [text.get_text() for text in ax.get_yticklabels()] == list(few.index)
    assert len(ax.texts) == 12 * readings - 1  # a blank for the class without videos
    texts = {text.get_position(): text.get_text() for text in ax.texts}
    assert texts[0, 5] == f"{few.iloc[5, 0]:.0f}"
    assert len(fig.axes) == 2 and ax.get_title("left").startswith("Top-1 per class")


def test_of_many_classes_those_that_differ_most_are_shown():
    many = shares(400)
    flat = many.index[:376]
    many.loc[flat] = 50.0
    fig = measured.per_class(many, "Top-1")
    shown = [text.get_text() for text in fig.axes[0].get_yticklabels()]
    assert len(shown) == measured.SHOWN == 24 and not set(shown) & set(flat)

"""The drawings behind the controls show the numbers that they are given."""

import itertools

import pandas as pd
import pytest
import torch
from matplotlib.colors import to_hex

from co3d.measure.outputs import Scores, Step
from co3d.nn import Conv3d
from co3d.report import scenes
from co3d.report.drawings import AGAIN, EMPTY, NEW
from co3d.report.overlay import Side, Watched

SETTINGS = [
    (kernel, dilation, padding)
    for kernel, dilation in itertools.product([(1, 2, 3), (0, 0, 1), (4, -1)], (1, 2, 3))
    for padding in range(dilation * (len(kernel) - 1) + 1)
]


def convolved(kernel, frames, dilation, padding):
    layer = Conv3d(1, 1, (len(kernel), 1, 1), padding=(padding, 0, 0), dilation=(dilation, 1, 1),
                   bias=False).requires_grad_(False)  # fmt: skip
    layer.weight.copy_(torch.tensor(kernel).view(1, 1, -1, 1, 1))
    clip = torch.tensor(frames, dtype=torch.float32).view(1, 1, -1, 1, 1)
    return layer(clip).flatten().tolist(), layer.delay


@pytest.mark.parametrize(("kernel", "dilation", "padding"), SETTINGS)
def test_the_steps_are_those_of_the_layer(kernel, dilation, padding):
    frames = [3, 1, 4, 1, 5, 9, 2, 6, 5]
    steps = list(scenes.rows(kernel, frames, dilation, padding))
    padded, delay = convolved(kernel, frames, dilation, padding)
    assert [step.kind for step in steps[:delay]] == ["dropped"] * delay
    assert [step.y for step in steps[delay:]] == padded
    alone, waiting = convolved(kernel, frames, dilation, 0)
    assert [step.y for step in steps if step.kind == "real"] == alone
    assert all(len(step.sums) == len(step.fed) == waiting for step in steps)
    assert all(sum(step.fed) == len(kernel) - 1 for step in steps[: len(frames)])
    assert not any(any(step.fed) for step in steps[len(frames) :])


def test_more_padding_than_sums_is_refused():
    with pytest.raises(ValueError, match="a padding of 0 to 4, given 5"):
        list(scenes.rows((1, 2, 3), [1], dilation=2, padding=5))


def test_the_drawing_shows_every_number_and_colours_the_outputs():
    fig = scenes.unrolled((1, 2, 3), range(1, 9), dilation=2, padding=1)
    steps = list(scenes.rows((1, 2, 3), range(1, 9), 2, 1))
    shown = [text.get_text() for text in fig.axes[0].texts]
    assert "dilation 2, padding 1: 4 sums wait, delay 3, first output with frame 4" in shown[0]
    numbers = [
        *(str(n) for step in steps for n in (step.x or "zero", step.y, *step.sums)),
    ]
    assert [text for text in shown if text.lstrip("-").isdigit() or text == "zero"] == numbers
    tones = {"dropped": EMPTY, "padded": AGAIN, "real": NEW}
    white = [p for p in fig.axes[0].patches if to_hex(p.get_facecolor()) == "#ffffff"]
    assert "moved up" in shown and len(white) == 1 + sum(not fed for s in steps for fed in s.fed)
    outputs = [p for p in fig.axes[0].patches if p.get_x() == pytest.approx(3.3)]
    assert [to_hex(p.get_facecolor()).upper() for p in outputs] == [tones[s.kind] for s in steps]


@pytest.fixture
def sweeps():
    """Two streams at two windows; the first has no control at window 8."""
    rows = [
        ("x3d_mini", 8, 24, 60.0, None, 70.0),
        ("x3d_mini", 32, 48, 80.0, 85.0, 70.0),
        ("slow_mini", 32, 30, 90.0, 91.0, 88.0),
    ]
    table = pd.DataFrame(rows, columns=["model", "window", "frames", "stream", "control", "clip"])
    for name, end in itertools.product(("stream", "control"), ("low", "high")):
        table[f"{name}_{end}"] = table[name] + (3 if end == "high" else -3)
    return table


def marked(fig):
    """{gid: top-1} of the marks of streams and controls."""
    return {line.get_gid(): line.get_xdata()[0] for line in fig.axes[0].lines if ":" in
            str(line.get_gid())}  # fmt: skip


def test_a_window_shows_its_streams_controls_and_start_up(sweeps):
    padding = pd.Series({"cox3d_mini": 8, "coslow_mini": 6})
    fig = scenes.at_window(sweeps, padding, 10.0, "generated", 32)
    assert marked(fig) == {
        "x3d_mini:stream": 80, "x3d_mini:control": 85,
        "slow_mini:stream": 90, "slow_mini:control": 91,
    }  # fmt: skip
    silent, padded, real = fig.axes[1].patches[:3]
    assert silent.get_width() == pytest.approx(4.0)
    assert padded.get_x() == pytest.approx(4.0) and padded.get_width() == pytest.approx(0.8)
    assert real.get_x() == pytest.approx(4.8)
    assert marked(scenes.at_window(sweeps, padding, 10.0, "", 8)) == {"x3d_mini:stream": 60}


def test_a_strided_stream_speaks_with_its_first_output(sweeps):
    """CoI3D-mini predicts at frames 71, 73 ... 79 at window 64; the last sees no padding."""
    strided = sweeps[sweeps["window"] == 32].assign(model="i3d_mini", window=64, frames=79)[:1]
    fig = scenes.at_window(strided, pd.Series({"coi3d_mini": 7}), 10.0, "", 64)
    silent, padded, real = fig.axes[1].patches
    assert silent.get_width() == pytest.approx(7.1)
    assert padded.get_width() == pytest.approx(0.8) and real.get_x() == pytest.approx(7.9)


def test_all_windows_share_their_axes(sweeps):
    padding = pd.Series({"cox3d_mini": 8, "coslow_mini": 6})
    figs = [scenes.at_window(sweeps, padding, 10.0, "", window) for window in (8, 32)]
    for panel in range(2):
        assert figs[0].axes[panel].get_xlim() == figs[1].axes[panel].get_xlim()


def test_over_frames_follows_what_the_stream_ends_on():
    sides = [
        Side("CoNet", "", NEW, first=2, real=3, begins=1, every=1, macs=1e6),
        Side("Net", "", AGAIN, first=3, real=3, begins=3, every=1, macs=5e6),
    ]
    said = [(None, None), ((0.7, 0.3), None), ((0.4, 0.6), (0.9, 0.1))]
    steps = [
        tuple(Step(n, 0.0, one and Scores(torch.tensor(one), "ab"), 1.0, 1.0) for one in both)
        for n, both in enumerate(said, 1)
    ]
    fig = scenes.over_frames(Watched(sides, steps), 15)
    above, below = fig.axes
    assert above.get_title("left") == "Probability of 'b'"
    assert above.get_ylabel() == "probability"
    assert [line.get_linestyle() for line in below.lines] == ["-", "--"]
    curves = {line.get_label(): line.get_xydata().tolist() for line in above.lines}
    assert curves["CoNet"] == [pytest.approx([2, 0.3]), pytest.approx([3, 0.6])]
    assert curves["Net"] == [pytest.approx([3, 0.1])]
    assert [line.get_ydata().tolist() for line in below.lines] == [[1, 2, 3], [0, 0, 5]]

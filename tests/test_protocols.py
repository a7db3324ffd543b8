"""Plans by hand at every rate, the constants of the paper, and the pixels that plans lead to."""

import functools
import itertools
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import co3d
from co3d.data.sampling import Timeline
from co3d.measure.plans import describe
from co3d.measure.protocols import NATIVE, PAPER, control, plan
from co3d.zoo.downloads import published


@functools.cache
def net(name, window=None):
    return co3d.create(name, window)


def line(fps, n):
    """n frames at a constant rate."""
    return Timeline(tuple(float(k / Fraction(fps)) for k in range(n)), float(fps))


def seen(model, protocol, timeline, dataset="kinetics400", **options):
    """The frames of the only view."""
    (view,) = plan(model, dataset, protocol, **options).indices(timeline)
    return list(view)


def test_every_published_model_has_its_native_protocol():
    assert NATIVE.keys() == {record.name for record, _ in published()}


FILM, NTSC = Fraction(24000, 1001), Fraction(30000, 1001)
TEN_SECONDS = {12: 120, 15: 150, FILM: 240, 25: 250, NTSC: 300, 30: 300}
VARIABLE = Timeline((0, 0.02, 0.05, 0.4, 0.41, 1.0, 1.3, 1.7, 2.0), 4.0)


# X3D-XS: 4 frames, 12 raw frames apart at 30 fps, that is 2.5 per second.
@pytest.mark.parametrize(
    ("fps", "paper", "native"),
    [
        # span 19.2, start 50.4: 50.4, 56.47, 62.53, 68.6; 4.0, 4.4, 4.8, 5.2 s
        (12, [50, 56, 62, 68], [48, 52, 57, 62]),
        # span 24, start 63: 63, 70.67, 78.33, 86
        (15, [63, 70, 78, 86], [60, 66, 72, 78]),
        # span 38.36, start 100.82: 100.82, 113.27, 125.73, 138.18; 10.01 s give 26 samples, the
        # 11th to the 14th are at 4.4, 4.8, 5.2 and 5.6 s: 105.5, 115.1, 124.7, 134.3
        (FILM, [100, 113, 125, 138], [105, 115, 124, 134]),
        # span 40, start 105
        (25, [105, 118, 131, 144], [100, 110, 120, 130]),
        # span 47.95, start 126.02: 126.02, 141.67, 157.33, 172.98; 131.9, 143.9, 155.8, 167.8
        (NTSC, [126, 141, 157, 172], [131, 143, 155, 167]),
        # span 48, start 126
        (30, [126, 141, 157, 173], [120, 132, 144, 156]),
    ],
    ids=lambda value: f"{float(value):.2f}" if isinstance(value, int | Fraction) else "",
)
def test_clips_by_hand(fps, paper, native):
    timeline = line(fps, TEN_SECONDS[fps])
    assert seen(net("x3d_xs"), "paper", timeline) == paper
    assert seen(net("x3d_xs"), "native", timeline, views=1) == native


def test_clips_of_variable_rate_by_hand():
    # By number at 4 fps on average: span 6.4, start 1.3: 1.3, 3.1, 4.9, 6.7
    assert seen(net("x3d_xs"), "paper", VARIABLE) == [1, 3, 4, 6]
    # By time, 2.02 s at 2.5 fps: 0, 0.4, 0.8, 1.2, 1.6, 2.0; the second to the fifth
    assert seen(net("x3d_xs"), "native", VARIABLE, views=1) == [3, 4, 5, 6]


@pytest.mark.parametrize(
    ("fps", "first"),  # numbers of the first ten samples at 15 fps
    [
        (12, [0, 0, 1, 2, 3, 4, 4, 5, 6, 7]),
        (15, list(range(10))),
        (FILM, [0, 1, 3, 4, 6, 8, 9, 11, 12, 14]),
        (25, [0, 1, 3, 5, 6, 8, 10, 11, 13, 15]),
        (NTSC, list(range(0, 20, 2))),  # 1.998, 3.996 ... within the rounding of 1 ms
        (30, list(range(0, 20, 2))),
    ],
    ids=lambda value: f"{float(value):.2f}" if isinstance(value, int | Fraction) else "",
)
def test_streams_by_hand(fps, first):
    timeline, model = line(fps, TEN_SECONDS[fps]), net("cox3d_s")
    assert (len(seen(model, "first-valid", timeline)), len(seen(model, "steady", timeline))) == (
        41,
        69,
    )
    assert seen(model, "first-valid", timeline)[:10] == first
    assert seen(model, "steady", timeline)[:41] == seen(model, "first-valid", timeline)


FED = [
    *(("cox3d_xs", 4, 32), ("cox3d_s", 13, 41), ("cox3d_m", 16, 44), ("cox3d_l", 16, 73)),
    *(("cox3d_s", 64, 92), ("cox3d_m", 64, 92), ("cox3d_l", 64, 124)),
    *(("coslow_8x8_r50", 8, 17), ("coslow_8x8_r50", 64, 73)),
    *(("coi3d_8x8_r50", 8, 25), ("coi3d_8x8_r50", 64, 81)),
]
FIRST = {("cox3d_l", 64): 121}  # the one that was fed more than its first output needs


@pytest.mark.parametrize(("name", "window", "fed"), FED)
def test_frames_fed_by_the_paper(name, window, fed):
    model = net(name, window)
    made = plan(model, "kinetics400", "paper")
    assert made.frames == fed
    assert plan(model, "kinetics400", "first-valid").frames == FIRST.get((name, window), fed)
    assert made.fill == ("replicate" if name in ("cox3d_m", "cox3d_l") else "zeros")
    assert (made.fps, made.interval) == (None, model.spec.frame_interval)
    (view,) = made.indices(line(30, 300))
    span = fed * model.spec.frame_interval
    start = max(300 - span, 0) / 2
    exact = [Fraction(start) + k * Fraction(span - 1, fed - 1) for k in range(fed)]
    assert view == tuple(min(int(number), 299) for number in exact)


def test_a_stream_that_is_longer_than_the_video_repeats_its_last_frame_in_the_paper_only():
    wide = net("cox3d_l", 64)
    view = seen(wide, "paper", line(30, 300))  # a span of 620
    assert (view[59], view[60:]) == (296, [299] * 64)
    assert plan(wide, "kinetics400", "steady").frames == 178
    assert plan(wide, "kinetics400", "steady").indices(line(30, 300)) is None
    assert seen(net("x3d_xs"), "paper", line(30, 20)) == [0, 15, 19, 19]
    assert seen(net("x3d_xs"), "paper", line(30, 1)) == [0] * 4
    assert plan(net("x3d_xs"), "kinetics400", "native").indices(line(30, 30)) is None


# First output, stride and receptive field: 77, 4, 125; 108, 8, 191; 25, 2, 42; 63, 8, 117; 73, 130.
STEADY = [
    *(("coslowfast_8x8_r50", 125), ("coslowfast_4x16_r50", 196), ("coi3d_8x8_r50", 43)),
    *(("cor2plus1d_18", 119), ("cox3d_l", 130), ("coslow_8x8_r50", 26)),
]


@pytest.mark.parametrize(("name", "frames"), STEADY)
def test_steady_is_the_first_emission_at_or_after_the_receptive_field(name, frames):
    assert plan(net(name), "kinetics400", "steady").frames == frames


@pytest.mark.parametrize("name", ["x3d", "slow", "i3d", "slowfast", "r2plus1d"])
@torch.no_grad()
def test_plans_end_on_an_emission(name):
    model = net(f"co{name}_mini")
    clip = torch.randn(1, 3, 48, 48, 48)
    for protocol in ("first-valid", "steady"):
        frames = plan(model, "synthetic-kinetics", protocol).frames
        last, before = (model.steps(clip[:, :, :n])[0] for n in (frames, frames - 1))
        outputs = 0 if before is None else before.shape[2]
        assert last.shape[2] == outputs + 1
        assert (protocol == "first-valid") == (outputs == 0)
    field = model.receptive_field
    expected = model(clip[:, :, frames - field : frames], pad=False)
    torch.testing.assert_close(last[:, :, -1], expected, rtol=0, atol=1e-4 * expected.abs().max())


def test_minis_as_in_the_notebook():
    timeline = line(15, 128)
    assert seen(net("x3d_mini"), "native", timeline) == list(range(56, 72))
    made = plan(net("cox3d_mini"), "synthetic-kinetics", "steady")
    assert made.indices(timeline) == (tuple(range(32)),)
    assert (made.fps, made.fill, made.predictions, made.whole) == (15, "zeros", 1, False)
    over = control(net("x3d_mini"), plan(net("cox3d_mini", 40), "synthetic-kinetics", "steady"))
    starts = [0, 13, 27, 40]  # 56 frames, 16 each: 0, 13.3, 26.7, 40
    assert over.indices(timeline) == tuple(tuple(range(at, at + 16)) for at in starts)
    assert (over.mode, over.views, over.within, over.fill) == ("clips", 4, 56, None)


def test_charades():
    clip = plan(net("slow_8x8_r50"), "charades", "paper")
    assert clip.indices(line(24, 720)) == (tuple(range(328, 392, 9)),)  # span 64 of 720
    # span 80, start 410: steps of 79 / 7
    assert clip.indices(line(30, 900)) == ((410, 421, 432, 443, 455, 466, 477, 489),)
    assert (clip.transform.image_size, clip.transform.mean) == (256, (0.45,) * 3)
    model = net("coslow_8x8_r50")
    made = plan(model, "charades", "steady")
    assert (made.fps, made.frames, made.predictions, made.whole) == (3, 35, 10, True)
    assert made.indices(line(24, 720)) == (tuple(range(0, 720, 8)),)
    assert made.indices(line(24, 11 * 24)) is None  # 33 frames: fewer than 10 steady predictions
    assert "35 frames are needed at 3 fps, there are 33" in describe(made, line(24, 11 * 24))
    first = plan(model, "charades", "first-valid")
    assert first.indices(line(24, 720)) == (tuple(range(0, 17 * 8, 8)),)
    over = control(net("slow_8x8_r50"), made)  # the last 35 of 90 samples, by 5 clips of 8
    assert [view[0] // 8 for view in over.indices(line(24, 720))] == [55, 62, 69, 75, 82]
    assert over.indices(line(24, 720))[-1][-1] == 89 * 8
    mini = plan(net("coslow_mini"), "synthetic-charades", "steady")
    assert (mini.fps, mini.frames, mini.predictions) == (15, 31, 10)
    for name, dataset in (("coslow_8x8_r50", "charades"), ("coslow_mini", "synthetic-charades")):
        with pytest.raises(ValueError, match="for a stream on Charades, given paper"):
            plan(net(name), dataset, "paper")
    with pytest.raises(ValueError, match="that of slow_8x8_r50 only"):
        plan(net("x3d_s"), "charades", "paper")


def test_channel_order_follows_the_weights_or_the_caller():
    model = co3d.create("slow_8x8_r50")
    assert plan(model, "charades", "paper").transform.channel_order == "rgb"  # no weights
    model.weights = co3d.zoo.checkpoints.Weights("a file", "0" * 64, "charades", "none")
    orders = [
        plan(model, "charades", "paper", channel_order=order).transform.channel_order
        for order in (None, "rgb")
    ]
    assert orders == ["bgr", "rgb"]


def test_views_and_crops_of_the_authors():
    timeline = line(30, 300)
    made = plan(net("x3d_s"), "kinetics400", "native")
    assert (made.views, made.crops, made.position) == (10, 3, None)
    # 50 samples at 5 fps, 37 of them free: k * 3.7 of them before view k.
    starts = [6 * at for at in (0, 3, 7, 11, 14, 18, 22, 25, 29, 33)]
    assert [view[0] for view in made.indices(timeline)] == starts
    assert [transform.crop for transform in made.transforms] == ["start", "centre", "end"]
    # R(2+1)D: the last of 5 views ends with the video: 0, 33.5, 67, 100.5, 134 of 150 samples.
    made = plan(net("r2plus1d_18"), "kinetics400", "native")
    assert [view[0] for view in made.indices(timeline)] == [0, 66, 134, 200, 268]
    assert (made.fps, made.crops, made.transform.resize) == (15, 1, (128, 171))
    assert made.transform.mean == (0.43216, 0.394666, 0.37645)
    one = plan(net("r2plus1d_18"), "kinetics400", "native", views=1)
    assert (one.position, one.indices(timeline)[0][0]) == (0.5, 134)


@pytest.mark.parametrize(
    ("name", "three", "one"),
    [
        *(("x3d_xs", 182, 160), ("x3d_s", 182, 160), ("x3d_m", 256, 224), ("x3d_l", 356, 312)),
        *(("slow_8x8_r50", 256, 256), ("i3d_8x8_r50", 256, 256), ("r2plus1d_18", 112, 112)),
        *(("slowfast_4x16_r50", 256, 256), ("slowfast_8x8_r50", 256, 256), ("slow_mini", 48, 48)),
    ],
)
def test_sizes_by_crops(name, three, one):
    sizes = [plan(net(name), "kinetics400", "native", crops=n).transform.image_size for n in (3, 1)]
    assert sizes == [three, one]


def test_the_papers_exceptions():
    assert set(PAPER) <= set(co3d.list_models())
    for name in ("i3d_8x8_r50", "r2plus1d_18", "cor2plus1d_18"):
        assert plan(net(name), "kinetics400", "paper").transform.mean == (0.485, 0.456, 0.406)
    for name in ("coi3d_8x8_r50", "slow_8x8_r50", "x3d_s"):
        assert plan(net(name), "kinetics400", "paper").transform.mean == (0.45,) * 3
    # R(2+1)D: 16 or 8 frames, one right after the other.
    for frames, start in ((16, 142), (8, 146)):
        view = seen(net("r2plus1d_18"), "paper", line(30, 300), frames=frames)
        assert view == list(range(start, start + frames))
    assert plan(net("cox3d_m"), "kinetics400", "paper", fill="zeros").fill == "zeros"


def test_position_and_rate():
    timeline = line(30, 300)
    for position, free in ((0, 0), (0.25, 5), (0.5, 10), (1, 21)):  # of 21 free samples
        assert seen(net("x3d_xs"), "native", timeline, views=1, position=position)[0] == 12 * free
    assert seen(net("x3d_xs"), "paper", timeline, position=1)[-1] == 299
    assert seen(net("x3d_xs"), "native", timeline, views=1, fps=30) == [148, 149, 150, 151]
    assert seen(net("cox3d_xs"), "first-valid", timeline, fps=5)[-1] == 6 * 31
    assert seen(net("cox3d_xs"), "first-valid", timeline, fps=5, position=1)[0] == 6 * 18


def test_control_reads_what_the_stream_read():
    timeline = line(30, 300)
    for name, window, protocol in (("x3d_s", 64, "paper"), ("slow_8x8_r50", 64, "steady")):
        stream = plan(net(f"co{name}", window), "kinetics400", protocol)
        over = control(net(name), stream)
        views = over.indices(timeline)
        assert len(views) == -(-stream.frames // net(name).spec.frames)
        assert set().union(*views) == set(stream.indices(timeline)[0])
        assert over.transform == stream.transform
    small = plan(net("coslow_mini", 1), "synthetic-kinetics", "first-valid")
    with pytest.raises(ValueError, match="at least the clip's 16 frames"):
        control(net("slow_mini"), small)


@pytest.mark.parametrize(
    ("name", "protocol", "options", "reason"),
    [
        ("x3d_s", "best", {}, "expected a protocol in paper, native, first-valid, steady"),
        ("x3d_s", "steady", {}, "expected protocol paper or native for the clip net x3d_s"),
        (
            "cox3d_s",
            "native",
            {},
            "expected protocol paper or first-valid or steady for the stream",
        ),
        ("x3d_s", "paper", {"fps": 5}, "expected no fps for protocol paper"),
        ("x3d_s", "native", {"fps": float("nan")}, "expected fps above 0"),
        ("x3d_s", "native", {"crops": 2}, "expected 1 or 3 crops"),
        ("x3d_s", "native", {"fill": "zeros"}, "expected no fill for a clip"),
        ("x3d_s", "native", {"position": 0.5}, "expected no position of 10 views"),
        ("x3d_s", "paper", {"position": 1.5}, "expected a position between 0 and 1"),
        ("x3d_s", "native", {"views": 0}, "expected views of 1 or more"),
        ("x3d_s", "native", {"channel_order": "gbr"}, "'gbr'"),
        ("cox3d_s", "steady", {"views": 2}, "expected no views for a stream"),
        ("coslow_mini", "steady", {"position": 0.5}, "no position of a stream of whole videos"),
        ("cox3d_s", "steady", {"fill": "ones"}, "expected fill in"),
    ],
)
def test_refusals(name, protocol, options, reason):
    with pytest.raises(ValueError, match=reason):
        dataset = (
            "synthetic-charades" if "position" in options and "mini" in name else "kinetics400"
        )
        plan(net(name), dataset, protocol, **options)


SOME = [
    *(("x3d_xs", "paper", {}), ("x3d_xs", "paper", {"views": 3}), ("x3d_s", "native", {})),
    *(("r2plus1d_18", "native", {}), ("x3d_xs", "native", {"views": 1, "position": 1.0})),
    *(("cox3d_s", "paper", {}), ("cox3d_mini", "first-valid", {}), ("cox3d_mini", "steady", {})),
]


@given(
    st.sampled_from(SOME),
    st.sampled_from(["kinetics400", "synthetic-charades"]),
    st.lists(st.integers(5, 300), max_size=200),
)
def test_plans_stay_within_the_video_and_in_order(which, dataset, steps):
    name, protocol, options = which
    dataset = dataset if "_mini" in name else "kinetics400"
    times = (0.0, *(step / 1000 for step in itertools.accumulate(steps)))
    made = plan(net(name), dataset, protocol, **options)
    views = made.indices(Timeline(times, 30.0))
    if views is None:
        assert protocol != "paper"
        return
    assert len(views) == made.views
    for view in views:
        assert len(view) == made.frames or made.whole and len(view) >= made.frames
        assert view[0] >= 0 and view[-1] < len(times)
        assert list(view) == sorted(view)


def test_a_plan_is_described_in_a_line_per_view():
    made = plan(net("x3d_xs"), "kinetics400", "native", views=2)
    assert describe(made, line(30, 300)).splitlines() == [
        "view 1 of 2: 4 of 300 frames: 0..36 by 12",
        "view 2 of 2: 4 of 300 frames: 120..156 by 12",
    ]
    wide = plan(net("cox3d_l", 64), "kinetics400", "paper")
    assert describe(wide, line(30, 300)).endswith("156..296 by 5, 299 (64 times)")
    steady = plan(net("cox3d_l", 64), "kinetics400", "steady")
    expected = "Too short: 178 frames are needed at 15 fps, there are 150."
    assert describe(steady, line(30, 300)) == expected

"""What holds for the plans of all protocols: their range, order, keys and printed form."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_protocols import line, net

from co3d.data.sampling import Timeline
from co3d.measure.plans import MAX_FED, describe
from co3d.measure.protocols import plan

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


def test_a_very_long_stream_is_refused():
    made = plan(net("coslow_mini"), "synthetic-charades", "steady")
    hours = Timeline(tuple(59.0 * k for k in range(1000)), 30.0)
    with pytest.raises(ValueError, match=f"expected up to {MAX_FED} frames at 15 fps"):
        made.indices(hours)


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

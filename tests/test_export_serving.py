"""Latencies of exported nets become rows of their table, and figures."""

import itertools

import pandas as pd
import torch
from pictures import assert_legible

from co3d.measure import serving
from co3d.report import serving as drawn
from co3d.report.schema import TABLES


def test_windows_and_streams_become_rows_and_figures(tmp_path):
    torch.manual_seed(0)
    options = {"size": 32, "repeats": 3}
    rows = serving.measure("cox3d_mini", [16, 24], [1, 2], tmp_path, **options)
    windows = [row for row in rows if row["streams"] == 1]
    streams = [row for row in rows if row["window"] == 16 and row["mode"] == "stream"]
    streams = [row for row in streams if row["implementation"] != "torch"]
    kinds = [(row["implementation"], row["mode"], row["window"]) for row in windows]
    for window in (16, 24):
        assert {("torch", "stream", window), ("openvino", "clip", window)} <= set(kinds)
    served = sorted((row["batch"], row["streams"]) for row in streams)
    assert served == sorted(2 * [(1, 1), (1, 2), (2, 2)])  # one stream is timed once
    assert len(windows) == 10 and all(row["latency_ms_median"] > 0 for row in windows)
    assert set(windows[0]) | {"threads"} == set(TABLES["deployment"].own)
    by_window = drawn.latency_vs_window(pd.DataFrame(windows))
    by_streams = drawn.latency_vs_streams(pd.DataFrame(streams))
    for fig, count in ((by_window, 5), (by_streams, 4)):
        (ax,) = fig.axes
        assert len(ax.lines) == len(ax.texts) == count
        assert_legible(fig)
        boxes = [text.get_window_extent() for text in ax.texts]
        assert all(not a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
        assert all(box.x1 < fig.bbox.x1 for box in boxes)

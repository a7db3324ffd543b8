"""Latencies of exported nets become rows of their table, and figures."""

import pandas as pd
import torch

from co3d.measure import serving
from co3d.report import serving as drawn
from co3d.report.schema import TABLES


def test_windows_and_streams_become_rows_and_figures(tmp_path):
    torch.manual_seed(0)
    options = {"size": 32, "repeats": 3}
    windows = serving.against_window("cox3d_mini", [16, 24], tmp_path, **options)
    streams = serving.against_streams("cox3d_mini", [1, 2], tmp_path, **options)
    kinds = [(row["implementation"], row["mode"], row["window"]) for row in windows]
    for window in (16, 24):
        assert {("torch", "stream", window), ("openvino", "clip", window)} <= set(kinds)
    assert [(row["batch"], row["streams"]) for row in streams] == 2 * [(1, 1), (1, 2), (2, 2)]
    assert len(windows) == 10 and all(row["latency_ms_median"] > 0 for row in windows)
    assert set(windows[0]) | {"threads"} == set(TABLES["deployment"].own)
    assert drawn.latency_vs_window(pd.DataFrame(windows)).axes[0].lines
    assert len(drawn.latency_vs_streams(pd.DataFrame(streams)).axes[0].lines) == 4

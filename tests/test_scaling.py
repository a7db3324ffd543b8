"""What runs on a cluster are expected to take, and the rows behind it."""

import pytest

from co3d.measure import scaling
from co3d.report import readme, results
from co3d.report.origin import provenance

ROWS = [
    {"work": "videos", "actors": 0, "videos": 400, "videos_per_s": 40.0, "threads": 1},
    {"work": "driver", "actors": 2, "videos": 4000, "videos_per_s": 1000.0, "threads": 1},
]


def test_hours_follow_from_gpus_until_the_driver_holds_them_back():
    rows = {(row["split"], row["gpus"]): row for row in scaling.expected(ROWS, assumed=4.0)}
    assert rows["val", 1]["hours"] == pytest.approx(19_881 / 4 / 3600)
    assert rows["train", 64]["hours"] == pytest.approx(241_255 / 256 / 3600)
    assert rows["val", 512]["hours"] == pytest.approx(19_881 / 1000 / 3600)
    assert [rows["val", n]["held by"] for n in scaling.GPUS] == ["gpus"] * 3 + ["driver"]


def test_the_readme_shows_the_rows_or_nothing(tmp_path):
    assert readme.scaling(tmp_path) == ""
    origin = provenance(notebook="", seed=0, device="cpu")
    results.write("scaling", ROWS, tmp_path, origin)
    (tmp_path / "results").mkdir(exist_ok=True)
    for file in tmp_path.glob("scaling*.csv"):
        file.rename(tmp_path / "results" / file.name)
    block = readme.scaling(tmp_path)
    assert "| driver | 2 | 4000 | 1,000 |" in block and "| train | 512 |" in block


def test_time_is_taken_past_the_start_of_the_actors(monkeypatch):
    times = iter(range(100))
    monkeypatch.setattr(scaling.time, "perf_counter", lambda: float(next(times)))

    class Inner:
        compute, actors, videos = {}, 1, 2

        def outcomes(self):
            yield from "abcdefgh"

    timed = scaling._Timed(Inner())
    assert list(timed.outcomes()) == list("abcdefgh")
    assert (timed.before, timed.seconds) == (4, 4.0)

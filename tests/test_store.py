"""The run store: resumes at every byte, ends in the same bytes, is never taken for another run."""

import json
import subprocess

import numpy as np
import pytest

from co3d.measure.store import Store, numbers

HEADER = {"weights": "abc", "window": 16}
VIDEOS = {"a": 10, "b": 20, "c": None}
RECORDS = {
    "a": {"status": "ok", "scores": [0.25, 1e-07]},
    "b": {"status": "nan"},
    "c": {"status": "missing"},
}


def fill(folder, order="abc", finish=True):
    with Store(folder, HEADER, VIDEOS) as store:
        for video in order:
            if video not in store.records:
                store.add(video, RECORDS[video])
        return store.finish() if finish else store.part


def test_any_order_gives_the_same_bytes(tmp_path):
    files = [fill(tmp_path / order, order) for order in ("abc", "cab", "bca")]
    assert len({file.read_bytes() for file in files}) == 1
    header, *lines = map(json.loads, files[0].read_text().splitlines())
    assert header == HEADER and [line["video"] for line in lines] == list(VIDEOS)
    assert [path.name for path in (tmp_path / "abc").glob("[!.]*")] == [files[0].name]


def test_a_cut_at_every_byte_resumes_to_the_same_bytes(tmp_path):
    whole = fill(tmp_path / "whole").read_bytes()
    part = fill(tmp_path / "part", "ab", finish=False)
    name, data = part.name, part.read_bytes()
    for size in range(len(data) + 1):
        folder = tmp_path / str(size)
        folder.mkdir()
        (folder / name).write_bytes(data[:size])
        assert fill(folder).read_bytes() == whole


def test_a_partial_run_has_another_name_and_does_not_finish(tmp_path):
    part = fill(tmp_path, "ab", finish=False)
    assert part.suffix == ".part" and not part.with_suffix("").exists()
    with Store(tmp_path, HEADER, VIDEOS) as store:
        assert store.missing == ["c"]
        with pytest.raises(ValueError, match="1 of 3 videos have no record"):
            store.finish()
    with Store(tmp_path, {**HEADER, "weights": "abd"}, VIDEOS) as store:
        assert store.missing == list(VIDEOS)


def test_a_video_that_came_or_changed_is_computed_anew(tmp_path):
    whole = fill(tmp_path)
    with Store(tmp_path, HEADER, {"a": 11, "b": 20, "c": 30}) as store:
        assert store.missing == ["a", "c"] and not whole.exists()
        store.add("c", RECORDS["c"])
        store.add("a", RECORDS["a"])
        assert store.finish() == whole
    lines = [json.loads(line) for line in whole.read_text().splitlines()[1:]]
    assert [(line["video"], line["bytes"]) for line in lines] == [("a", 11), ("b", 20), ("c", 30)]


def test_one_process_at_a_time(tmp_path):
    with (
        Store(tmp_path, HEADER, VIDEOS),
        pytest.raises(ValueError, match="another process"),
        Store(tmp_path, HEADER, VIDEOS),
    ):
        pass
    fill(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data.replace(b'"ok"', b"'ok'"),
        lambda data: data + data.splitlines(True)[1],
        lambda data: data.replace(b'"video":"b"', b'"video":"x"'),
        lambda data: b"\x00" + data,
        lambda data: data.replace(b'"abc"', b'"abd"'),
        lambda data: data.replace(b'"bytes":20', b'"size":20'),
        lambda data: data + b"[" * 1_000 + b"\n",
    ],
)
@pytest.mark.parametrize("finish", [True, False])
def test_a_damaged_file_is_named(tmp_path, damage, finish):
    path = fill(tmp_path, finish=finish)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match="is damaged: delete it"), Store(tmp_path, HEADER, VIDEOS):
        pass


def test_numbers_keep_every_bit():
    values = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    values[:3] = 1e-45, -0.0, 3.4e38
    again = np.array(json.loads(json.dumps(numbers(values))), np.float32)
    assert again.tobytes() == values.tobytes()


@pytest.mark.slow
def test_a_full_disk_keeps_what_was_written(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        videos = {str(n): n for n in range(100)}
        record = {"status": "ok", "scores": [0.123456789] * 30}
        with Store(folder, HEADER, videos) as store, pytest.raises(OSError, match="make room"):
            for video in videos:
                store.add(video, record)
        with Store(folder, HEADER, videos) as store:
            assert 0 < len(store.records) < 100
            assert store.part.read_bytes().endswith(b"\n")
            kept = dict(store.records)
        subprocess.run(["mount", "-o", "remount,size=1m", str(folder)], check=True)
        with Store(folder, HEADER, videos) as store:
            assert store.records == kept
            for video in store.missing:
                store.add(video, record)
            assert len(store.finish().read_text().splitlines()) == 101
    finally:
        subprocess.run(["umount", str(folder)], check=True)

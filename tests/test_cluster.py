"""Runs on a real cluster of two nodes on this machine: no row is lost or double, whatever dies.

`pytest -m slow tests/test_cluster.py` is the whole of it.
"""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from co3d.data import synthetic
from co3d.data.sets import open_set
from co3d.measure import cluster, readings, runs
from co3d.measure.predict import predict

# Nobody else may give work to the nodes; read when Ray is imported, and inherited by all.
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
ray = pytest.importorskip("ray")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("cluster"),  # one after the other
    pytest.mark.filterwarnings("default"),  # Ray's own
]
N, VIDEOS = 24, 3  # planned, given to an actor at once


@pytest.fixture(scope="module")
def nodes(data):
    """Two nodes of a CPU each, which keep what they fetch in the cache of `data`."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CACHE_PATH", str(cache))
        yield synthetic.dataset("test", limit=N, progress=False)


@pytest.fixture(scope="module")
def some():
    nets = readings.loaded("x3d_mini,cox3d_mini", "synthetic-kinetics")
    return readings.readings(nets, "synthetic-kinetics", ["native", "steady"])


@pytest.fixture(scope="module")
def expected(data, some, tmp_path_factory):
    """The bytes of a local run."""
    return files_of(*run(some, data, tmp_path_factory.mktemp("local"), None))


def run(some, data, folder, engine, predict=predict):
    options = {"folder": folder, "engine": engine, "predict": predict}
    return runs.run(some, data, limit=N, progress=False, **options)


def files_of(done, _):
    return {one.file.name: one.file.read_bytes() for one in done}


def on(address, **options):
    return cluster.Cluster(address, videos=VIDEOS, **options)


def test_two_nodes_leave_what_one_process_leaves(nodes, data, some, expected, tmp_path):
    with on(nodes.address) as engine:
        assert (engine.actors, engine.device) == (2, "cpu")
        assert files_of(*run(some, data, tmp_path, engine)) == expected


def test_videos_at_an_address_are_fetched_by_the_nodes(nodes, data, some, tmp_path):
    for video in data.videos:
        place = tmp_path / "made" / f"class {video.class_id:02d}" / video.path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(video.path, place)
    here = files_of(*run(some, open_set(tmp_path / "made"), tmp_path / "local", None))
    there = open_set(f"file://{tmp_path / 'made'}")
    with on(nodes.address) as engine:
        assert files_of(*run(some, there, tmp_path / "ray", engine)) == here
    fetched = Path(os.environ["CACHE_PATH"]) / "fetched"
    assert len(list(fetched.iterdir())) == N + 1  # and their list


class Stops:
    """An engine that does something when so many outcomes are there."""

    compute: dict = {}

    def __init__(self, engine, number, then):
        self.engine, self.number, self.then = engine, number, then

    def outcomes(self, *arguments):
        for number, outcome in enumerate(self.engine.outcomes(*arguments)):
            if number == self.number:
                self.then()
            yield outcome


def test_a_run_goes_on_with_another_engine(nodes, data, some, expected, tmp_path):
    with on(nodes.address) as engine:
        for name, first, second in (("a", runs.Local(), engine), ("b", engine, runs.Local())):
            with pytest.raises(ZeroDivisionError):
                run(some, data, tmp_path / name, Stops(first, N // 2, lambda: 1 // 0))
            parts = list((tmp_path / name).rglob("*.part"))
            assert {len(part.read_bytes().splitlines()) for part in parts} == {N // 2 + 1}
            assert files_of(*run(some, data, tmp_path / name, second)) == expected


def test_a_video_that_kills_every_worker_has_a_status(nodes, data, some, expected, tmp_path):
    (tmp_path / "tries").touch()

    def dies(readings, video):
        found = predict(readings, video)
        if any(record.get("scores") == bad for record in found):
            with (tmp_path / "tries").open("a") as file:
                file.write("x")
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    (whole, *_), _ = run(some, data, tmp_path / "local", None)
    victim = data.videos[5].id
    bad = whole.records[victim]["scores"]
    with on(nodes.address) as engine:
        done, _ = run(some, data, tmp_path, engine, dies)
    for one, name in zip(done, expected, strict=True):
        assert one.records[victim]["status"] == "decode_error"
        assert one.notes == {victim: "Its worker died 3 times."}
        assert one.statuses["ok"] == N - 1
        lines = expected[name].splitlines()
        same = [a == b for a, b in zip(one.file.read_bytes().splitlines(), lines, strict=True)]
        assert same.count(False) == 1
    assert cluster.TRIES < len((tmp_path / "tries").read_text()) <= 3 * cluster.TRIES


def test_a_node_that_dies_costs_nothing(nodes, data, some, expected, tmp_path):
    third = nodes.add_node(num_cpus=1)
    with on(nodes.address) as engine:
        kill = partial(nodes.remove_node, third, allow_graceful=False)
        killing = Stops(engine, VIDEOS, kill)
        assert files_of(*run(some, data, tmp_path, killing)) == expected


def test_a_driver_that_dies_is_started_again(nodes, data, tmp_path, monkeypatch):
    root = data.videos[0].path.parents[2]
    command = [sys.executable, "-m", "co3d", "evaluate", "synthetic-kinetics", "--root", str(root),
               "--limit", str(N), "--models", "x3d_mini,cox3d_mini"]  # fmt: skip
    monkeypatch.setenv("CACHE_PATH", str(root.parent))

    def start(place, *options):
        environment = {**os.environ, "LOGS_PATH": str(tmp_path / place)}
        return subprocess.Popen(
            [*command, *options], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def files(place):
        return {p.name: p.read_bytes() for p in (tmp_path / place).rglob("*.jsonl")}

    def there(place):
        parts = (tmp_path / place).rglob("*.part")
        return max((len(part.read_bytes().splitlines()) for part in parts), default=0)

    with start("local") as local:
        _, err = local.communicate()
    assert local.returncode == 0, err.decode()
    on_ray = "--engine", "ray", "--address", nodes.address
    with start("ray", *on_ray) as driver:
        while there("ray") < 3 and driver.poll() is None:
            time.sleep(0.02)
        driver.kill()
    assert 2 < there("ray") < N + 1 and not files("ray")
    with start("ray", *on_ray) as again:
        out, err = again.communicate()
    assert again.returncode == 0, err.decode()
    assert files("ray") == files("local") and b"top1" in out


def test_what_is_not_there_is_a_sentence(nodes, data, some, tmp_path, monkeypatch):
    engine = cluster.engine("ray", "127.0.0.1:1")
    with pytest.raises(ConnectionError, match="no Ray cluster at 127.0.0.1:1"), engine:
        pass
    with pytest.raises(ValueError, match="expected engine local, or ray"):
        cluster.engine("local", "auto")
    with on(nodes.address) as engine:
        monkeypatch.setattr(cluster, "FORMAT", 0)  # of this process, not of the actors
        with pytest.raises(ConnectionError, match="a node of the cluster cannot run co3d"):
            run(some, data, tmp_path, engine)

        def wrong(readings, frames):
            raise LookupError("a fault of the program")

        monkeypatch.undo()
        with pytest.raises(LookupError, match="a fault"):
            run(some, data, tmp_path, engine, wrong)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    with pytest.raises(ValueError, match="no node of the cluster has 64 CPUs"), on(nodes.address):
        pass

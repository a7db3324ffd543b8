"""What a net says of files, exported or not, and of cameras that are faster than it."""

import itertools
import queue
import socket
import threading
import time

import av
import numpy as np
import pandas as pd
import pytest
import torch

import co3d
from co3d import __main__ as command_line
from co3d.data import video
from co3d.data.sampling import Newest
from co3d.data.video import Reader, VideoError
from co3d.deploy import native
from co3d.deploy.native import NoCompiler
from co3d.measure import live
from co3d.measure.live import Scores

FRAMES, FPS = 40, 15


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return co3d.create("cox3d_mini")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "noise.mp4"
    frames = np.random.default_rng(0).integers(0, 255, (FRAMES, 48, 64, 3), np.uint8)
    video.write(path, frames, FPS)
    return path


class Source:
    """Frames that come when they are told to: a camera with a clock of its own."""

    def __init__(self, frames):
        self.frames, self.queue = itertools.chain(frames, [None]), queue.Queue()

    def put(self, count):
        for frame in itertools.islice(self.frames, count):
            self.queue.put(frame)

    def go_on(self, count):
        """As `put`; waits until somebody has taken them all."""
        self.put(count)
        self.queue.join()

    def __iter__(self):
        frame = self.queue.get()
        while frame is not None:
            yield frame
            self.queue.task_done()  # the next one is asked for
            frame = self.queue.get()
        self.queue.task_done()


def late():
    """A clock by which no frame comes too early."""
    return itertools.count(0, 1000).__next__


def test_while_the_caller_is_busy_the_newest_frame_takes_the_place_of_others():
    numbers = [*range(6), 10, 11]
    source = Source([(number / FPS, number) for number in numbers])
    newest = Newest(source, FPS, late())
    frames = iter(newest)
    source.put(2)
    assert next(frames) == (0.0, 0) and newest.dropped == 0
    source.go_on(4)
    assert next(frames) == (4 / FPS, 4) and newest.dropped == 3
    source.go_on(1)  # after a pause, in which frame 5 was shown
    assert [next(frames) for _ in range(5)] == [(n / FPS, 5) for n in range(5, 10)]
    assert newest.dropped == 3
    source.put(2)
    assert list(frames)[-1] == (11 / FPS, 11)


def test_no_frame_is_taken_before_its_time():
    """A server may send at once what it has kept."""
    begun = time.monotonic()
    *_, last = Newest([(100 + number / 50, number) for number in range(6)], 50)
    assert last[1] == 5 and time.monotonic() - begun >= 0.1


def test_what_a_source_fails_of_reaches_the_caller():
    def frames():
        yield 0.0, 0
        raise VideoError("gone")

    with pytest.raises(VideoError, match="gone"):
        list(Newest(frames(), FPS, late()))


def test_an_address_without_a_duration_is_live(model, clip, tmp_path):
    path = tmp_path / "fast.ts"
    with Reader(clip) as reader, av.open(str(path), "w", format="mpegts") as container:
        stream = container.add_stream("mpeg2video", rate=10 * FPS)
        stream.width, stream.height = 64, 48
        for _, rgb in reader:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb)))
        container.mux(stream.encode())
    with socket.create_server(("127.0.0.1", 0)) as server:

        def send():
            connection, _ = server.accept()
            with connection:
                connection.sendall(path.read_bytes())

        threading.Thread(target=send, daemon=True).start()
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        assert co3d.watch(address, model).dropped == 0  # None for a file


def test_every_engine_says_the_same(model, clip):
    values = {}
    for engine in ("eager", "native", "torch"):
        watch = co3d.watch(clip, model, engine=engine, threads=1)
        predictions = list(watch)
        assert watch.engine == engine and min(watch.latency_ms) > 0
        times = [seconds for seconds, _ in predictions]
        assert np.allclose(times, np.arange(model.warmup, FRAMES) / FPS)
        values[engine] = torch.stack([scores.values for _, scores in predictions])
    for engine in ("native", "torch"):
        assert torch.allclose(values[engine], values["eager"], rtol=0, atol=3e-4)
    fast = co3d.optimize(model, torch.zeros(1, 3, 48, 48), threads=1)
    assert co3d.watch(clip, fast).engine == fast.engine
    with pytest.raises(ValueError, match="of an eager net alone"):
        co3d.watch(clip, fast, engine="eager")


def run(*arguments):
    with pytest.raises(SystemExit) as stopped:
        command_line.main([str(argument) for argument in arguments])
    assert stopped.value.code == 0


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_an_exported_file_is_a_model(clip, suffix, tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("openvino" if suffix == ".xml" else "onnxruntime")
    path, table = tmp_path / f"net{suffix}", tmp_path / "file.csv"
    run("export", "cox3d_mini", "--out", path, "--no-check")
    run("stream", path, clip, "--csv", table, "--threads", 1)
    rows = pd.read_csv(table).to_dict("records")
    model, _ = co3d.load("cox3d_mini", "synthetic-kinetics")
    for row, (seconds, scores) in zip(rows, co3d.watch(clip, model), strict=True):
        ((label, probability),) = scores.top(1)
        assert row["label1"] == label and row["time_s"] == pytest.approx(seconds, abs=1e-6)
        assert row["probability1"] == pytest.approx(probability, abs=3e-4)


def test_a_file_is_never_thinned_and_without_a_compiler_torch_runs_it(model, clip, monkeypatch):
    def missing(*_):
        raise NoCompiler("there is no C++ compiler")

    monkeypatch.setattr(native, "load", missing)
    monkeypatch.setattr(live, "Newest", None)
    with pytest.raises(ValueError, match="there is no C"):
        co3d.watch(clip, model, engine="native")
    with pytest.warns(UserWarning, match="the step runs in torch"):
        watch = co3d.watch(clip, model, seconds=2.0)
    assert [step.number for step in watch.steps()] == list(range(1, 2 * FPS + 1))
    assert watch.engine == "torch" and watch.dropped is None


def test_top_gives_the_likeliest_first():
    scores = Scores(torch.tensor([0.1, 0.6, 0.0, 0.3]), ("a", "b", "c", "d"))
    assert scores.top(2) == [("b", pytest.approx(0.6)), ("d", pytest.approx(0.3))]


def test_what_cannot_be_watched_is_refused(model, clip):
    with pytest.raises(ValueError, match=r"comes with frame 24 .1.6 s"):
        list(co3d.watch(clip, model, seconds=1.0))
    with pytest.raises(ValueError, match="x3d_mini needs whole clips; cox3d_mini runs"):
        co3d.watch(clip, co3d.create("x3d_mini"))
    with pytest.raises(ValueError, match="expected engine in"):
        co3d.watch(clip, model, engine="fast")


def test_a_net_of_nobody_needs_a_rate_and_a_transform(model, clip):
    net = co3d.continual(co3d.create("x3d_mini"), gate="frame", window=16)
    del net.spec
    with pytest.raises(ValueError, match="expected fps and a transform with StreamNet"):
        co3d.watch(clip, net)
    transform = co3d.transform_for("x3d_mini")
    _, scores = list(co3d.watch(clip, net, transform, fps=FPS))[-1]
    assert scores.top(1)[0][0].startswith("c0")

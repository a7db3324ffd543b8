"""Downloads of weights against a server on this machine that cuts, lies and leads astray."""

import hashlib
import json
import socket
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from requests.adapters import Retry
from servers import says, serve

import co3d
from co3d import web
from co3d.zoo import checkpoints, downloads
from co3d.zoo.specs import SPECS, Checkpoint


def made(name: str = "x3d_mini", **options: int) -> bytes:
    """A weights file of a model, as we write them."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "made.safetensors"
        checkpoints.save(
            co3d.create(name, **options), file, training_data="", source="", licence=""
        )
        return file.read_bytes()


DATA = made()
SHA256 = hashlib.sha256(DATA).hexdigest()
HALF = len(DATA) // 2


@pytest.fixture
def server(server, monkeypatch, tmp_path):
    """The server has the weights; the cache is empty."""
    monkeypatch.setenv("CACHE_PATH", str(tmp_path))
    server.answer = serve(DATA)
    return server


@pytest.fixture
def published(server, monkeypatch):
    """Makes the server's file the published weights of a mini model and of its twin."""

    def publish(name="x3d_mini", url=f"{server.url}/mini.pkl", data="kinetics400", **more):
        weights = Checkpoint(data, url, **{"num_classes": 12, **more})
        for entry in (name, f"co{name}"):
            monkeypatch.setitem(SPECS, entry, replace(SPECS[entry], checkpoints=(weights,)))
        return SPECS[name], weights

    return publish


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "weights"


def visible(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


NAME = "x3d_mini.kinetics400.pkl"
DONE = sorted([downloads.LOCK, NAME])


def test_a_file_is_fetched_once_and_pinned(server, published, folder):
    path = downloads.fetch(*published())
    assert path == folder / NAME and path.read_bytes() == DATA
    pin = json.loads((folder / downloads.LOCK).read_text())[NAME]
    assert pin.pop("date")[:2] == "20"
    assert pin == {"url": f"{server.url}/mini.pkl", "sha256": SHA256, "bytes": len(DATA)}
    assert downloads.fetch(*published()) == path and visible(folder) == DONE
    ((method, _, headers),) = server.asked
    assert method == "GET" and headers["User-Agent"].startswith("co3d") and "Range" not in headers


@pytest.mark.parametrize(
    ("again", "start"),
    [
        (serve(DATA), HALF),
        (serve(DATA, ranges=False), 0),
        (serve(DATA, etag='"2"'), 0),
        (serve(DATA, etag='"2"', conditions=False), 0),
    ],
    ids=["resumes", "no ranges", "changed", "changed, and If-Range ignored"],
)
def test_what_was_cut_off_is_completed(server, published, folder, again, start):
    old = b"\x80\x02" + bytes(len(DATA) - 2) if start == 0 else DATA
    server.answer = serve(old, cut=HALF)
    with pytest.raises(ConnectionError, match="cut off at .* run the command again, it resumes"):
        downloads.fetch(*published())
    assert visible(folder) == [f"{NAME}.part", f"{NAME}.part.validator"]
    came = (folder / f"{NAME}.part").stat().st_size
    assert HALF - 4096 <= came <= HALF
    server.asked.clear()
    server.answer = again
    assert downloads.fetch(*published()).read_bytes() == DATA
    assert visible(folder) == DONE
    _, _, headers = server.asked[0]
    assert headers["Range"] == f"bytes={came}-" and headers["If-Range"] == '"1"'
    if start:
        assert len(server.asked) == 1


def test_a_cut_connection_goes_on_by_itself_and_a_busy_server_is_asked_again(
    server, published, monkeypatch
):
    monkeypatch.setattr(web, "RETRY", Retry(2, status_forcelist=[503]))
    answers = [says(503), serve(DATA, cut=HALF), serve(DATA, cut=HALF + 50_000), serve(DATA)]
    server.answer = lambda handler: answers.pop(0)(handler)
    assert downloads.fetch(*published()).read_bytes() == DATA and not answers


def test_a_silent_server_is_given_up(server, published, monkeypatch):
    monkeypatch.setattr(web, "TIMEOUT_S", 0.2)
    leave = threading.Event()
    server.answer = lambda _: leave.wait(10)
    with pytest.raises(ConnectionError, match=r"cannot reach 127.0.0.1:\d+ \(.*timed out"):
        downloads.fetch(*published())
    leave.set()


HTML = b"<!DOCTYPE html><html><body>Please sign in</body></html>"
WRONG = {
    "HTML": (says(200, HTML, Content_Length=len(HTML)), "is an HTML page, not weights"),
    "empty": (says(200, Content_Length=0), "is empty"),
    "404": (says(404, HTML), "answers 404 Not Found"),
    "to http": (says(307, Location="http://192.0.2.1/mini.pkl"), "only https is fetched"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_answer_is_one_sentence_and_leaves_nothing(server, published, folder, case):
    server.answer, sentence = WRONG[case]
    with pytest.raises((ValueError, ConnectionError)) as refused:
        downloads.fetch(*published())
    assert sentence in str(refused.value) and "\n" not in str(refused.value)
    assert f"{server.url}/mini.pkl" in str(refused.value)
    assert visible(folder) == []


@pytest.mark.parametrize(
    "url",
    ["http://192.0.2.1/x.pkl", "http://127.0.0.1.example/x", "file:///x"],
)
def test_only_https_is_fetched_without_a_connection(server, published, monkeypatch, url):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("asks for a host"))
    with pytest.raises(ValueError, match="only https is fetched"):
        downloads.fetch(*published(url=url))


def test_no_network_is_a_sentence_with_the_command(server, published, folder):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/mini.pkl"
        with pytest.raises(ConnectionError) as refused:
            published(url=url)
            co3d.load("cox3d_mini", "kinetics400")
    assert str(refused.value) == (
        f"cannot reach {url[7:-9]} ([Errno 111] Connection refused): run `co3d download weights "
        f"cox3d_mini` where there is a network, or copy the file to {folder / NAME}"
    )


def test_a_file_that_was_copied_there_is_pinned_and_a_tampered_one_refused(published, folder):
    folder.mkdir()
    (folder / NAME).write_bytes(DATA)
    entry = published(url="https://192.0.2.1/mini.pkl")
    assert downloads.fetch(*entry).read_bytes() == DATA
    (folder / NAME).write_bytes(DATA[:-1] + b"\0")
    with pytest.raises(ValueError, match=f"not {SHA256} as pinned in .*: delete the file"):
        downloads.fetch(*entry)


def test_known_hashes_and_sizes_are_held_against_the_file(server, published, folder):
    with pytest.raises(ValueError, match=f"{SHA256}, not 91a641e6 as published"):
        downloads.fetch(*published(sha256="91a641e6"))
    with pytest.raises(ValueError, match=f"not {'0' * 64} as asked for"):
        downloads.fetch(*published(), "0" * 64)
    with pytest.raises(ValueError, match=r"has 0.265 MiB instead of 120.318: refused"):
        downloads.fetch(*published(mebibytes=120.318))
    assert visible(folder) == []
    assert downloads.fetch(*published(sha256=SHA256[:8], mebibytes=0.265), SHA256.upper())
    with pytest.raises(ValueError, match="as asked for"):
        downloads.fetch(*published(), "0" * 64)


def test_a_broken_lock_file_is_named_and_no_download_lost(server, published, folder):
    folder.mkdir()
    (folder / downloads.LOCK).write_text(f'{{"{NAME}": {{"sha256": 1}}}}')
    with pytest.raises(OSError, match=r"weights.lock.json cannot be read: repair or delete it"):
        downloads.fetch(*published())
    assert (folder / f"{NAME}.part").read_bytes() == DATA


UNFIT = {
    "cut": (lambda: DATA[:-100], f"{NAME} is not a whole safetensors file"),
    "another model": (lambda: made("slow_mini"), "expected weights of x3d_mini, given those of "),
    "other classes": (lambda: made(num_classes=7), "expected 12 classes, given 7 in"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_what_does_not_fit_is_never_pinned(server, published, folder, case):
    make, sentence = UNFIT[case]
    data = make()
    server.answer = says(200, data)  # no length: only the content tells
    with pytest.raises(ValueError) as refused:
        downloads.fetch(*published())
    assert str(refused.value).startswith(sentence) and ".part" not in str(refused.value)
    assert str(refused.value).endswith(f"(from {server.url}/mini.pkl, not pinned)")
    assert visible(folder) == []
    (folder / NAME).write_bytes(data)
    with pytest.raises(ValueError):
        downloads.fetch(*published())
    assert visible(folder) == [NAME]  # what the user copied there is not removed


def test_several_at_once_fetch_one_file(server, published):
    entry = published()
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: downloads.fetch(*entry), range(4)))
    assert {path.read_bytes() for path in paths} == {DATA} and len(server.asked) == 1


def test_an_interrupted_download_is_kept_and_goes_on(server, published, run, folder, monkeypatch):
    published()
    whole = web.requests.Response.iter_content

    def some(*arguments):
        yield next(whole(*arguments))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(web.requests.Response, "iter_content", some)
        code, shown, error = run("download", "weights", "x3d_mini")
    came = (folder / f"{NAME}.part").stat().st_size
    assert (code, shown) == (130, "") and error.endswith("co3d: interrupted\n")
    assert f"{NAME}.part keeps what came: run the command again, it resumes" in error
    code, shown, error = run("download", "weights", "x3d_mini")
    assert (code, error) == (0, "") and (folder / NAME).read_bytes() == DATA
    expected = ["x3d_mini", "kinetics400", f"{len(DATA):,}", "bytes", str(folder / NAME)]
    assert shown.split() == expected
    assert server.asked[1][2]["Range"] == f"bytes={came}-" and came


def test_one_of_several_that_fails_does_not_stop_the_others(server, published, run, folder):
    published("slow_mini", url=f"{server.url}/other.pkl")
    published()
    server.answer = lambda handler: (says(404) if "other" in handler.path else serve(DATA))(handler)
    code, shown, error = run("download", "weights", "coslow_mini", "x3d_mini", "cox3d_mini")
    assert code == 1 and len(shown.splitlines()) == 1 and visible(folder) == DONE
    assert error == (f"co3d: slow_mini kinetics400: {server.url}/other.pkl answers 404 Not Found\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["x3d_n"], "expected a model such as"),
        (["i3d_mini"], "no weights are published for i3d_mini"),
        (["x3d_m", "--data", "charades"], "no charades weights are published for x3d_m"),
        (["x3d_m", "--sha256", "91a641e6"], "expected --sha256 with 64 hexadecimal digits"),
        (["slow_8x8_r50", "--sha256", "0" * 64], "and one file, given '000"),
        (["x3d_m", "--sha256", "0" * 64, "--check"], "--check reads no file"),
        (["--data", "chardes"], "nobody publishes chardes weights: there are kinetics400, chara"),
    ],
)
def test_what_cannot_be_fetched_is_one_line(run, arguments, sentence):
    code, shown, error = run("download", "weights", *arguments)
    assert code == 2 and shown == "" and error.startswith("co3d: ") and error.count("\n") == 1
    assert sentence in error


def test_check_asks_every_address_and_stops_at_none(server, published, run, folder):
    answers = {"/nosize": says(200), "/gone": says(404)}
    server.answer = lambda handler: answers.get(handler.path, serve(DATA))(handler)
    names = ("x3d_mini", "slow_mini", "i3d_mini")
    for name, path in zip(names, ("/file", "/gone", "/nosize"), strict=True):
        published(name, url=server.url + path)
    code, shown, error = run("download", "weights", "--check", *names)
    assert code == 1 and error == f"co3d: {server.url}/gone answers 404 Not Found\n"
    assert [line.split()[0] for line in shown.splitlines()[:2]] == [f"{len(DATA):,}", "answers"]
    assert run("download", "weights", "--check", "x3d_mini")[0] == 0 and not folder.exists()
    published("slow_mini", mebibytes=31.5)
    code, _, error = run("download", "weights", "--check", "slow_mini")
    assert code == 1 and "has 0.265 MiB instead of 31.5: refused" in error


@pytest.mark.parametrize("name", ["x3d_mini", "cox3d_mini"])
def test_load_by_name_downloads_once(server, published, name):
    _, weights = published(url=f"{server.url}/x3d.safetensors", licence="MIT")
    torch.manual_seed(0)
    trained = co3d.create("x3d_mini")
    for _ in range(2):
        model, transform = co3d.load(name, "kinetics400")
        assert torch.equal(model.classifier.weight, trained.classifier.weight)
        origin = model.weights.source, model.weights.training_data, model.weights.licence
        assert origin == (weights.url, "kinetics400", "MIT") and model.weights.sha256 == SHA256
        assert (transform.image_size, transform.channel_order) == (48, "rgb")
    assert len(server.asked) == 1


def test_weights_bring_their_classes_and_channel_order(server, published):
    server.answer = serve(made("slow_mini", num_classes=157))
    url = f"{server.url}/slow.safetensors"
    record, _ = published("slow_mini", url, "charades", num_classes=157, channel_order="bgr")
    for classes in (None, 157):
        model, transform = co3d.load("coslow_mini", "charades", num_classes=classes)
        assert model.classifier.out_features == 157
        assert transform == co3d.transform_for("slow_mini", "charades")
        assert transform.channel_order == "bgr" and transform.mean == record.mean
    with pytest.raises(ValueError, match="157"):
        co3d.load("coslow_mini", "charades", num_classes=10)
    model, transform = co3d.load("coslow_mini", "charades", num_classes=10, new_head=True)
    assert model.classifier.out_features == 10 and transform.channel_order == "bgr"


def test_the_published_files_are_those_of_the_authors(monkeypatch, tmp_path):
    monkeypatch.setenv("CACHE_PATH", str(tmp_path))
    chosen = downloads.published()
    files = {(net.name, one.training_data): one.url.rpartition("/")[2] for net, one in chosen}
    assert files == {
        **{(f"x3d_{size}", "kinetics400"): f"x3d_{size}.pyth" for size in ("xs", "s", "m", "l")},
        ("slow_8x8_r50", "kinetics400"): "SLOW_8x8_R50.pyth",
        ("slow_8x8_r50", "charades"): "SLOW_8x8_R50.pyth",
        ("i3d_8x8_r50", "kinetics400"): "I3D_8x8_R50.pkl",
        ("slowfast_4x16_r50", "kinetics400"): "SLOWFAST_4x16_R50.pkl",
        ("slowfast_8x8_r50", "kinetics400"): "SLOWFAST_8x8_R50.pkl",
        ("r2plus1d_18", "kinetics400"): "r2plus1d_18-91a641e6.pth",
    }
    assert len({downloads.place(*one) for one in chosen}) == len(chosen)
    slow = [one for one in chosen if one[0].name == "slow_8x8_r50"]
    assert downloads.published(["coslow_8x8_r50", "slow_8x8_r50"]) == slow
    assert downloads.published(["slow_8x8_r50"], "charades") == slow[1:]
    assert all(one.url.startswith("https://") for _, one in chosen)
    charades = slow[1][1]
    assert (charades.num_classes, charades.channel_order) == (157, "bgr")
    assert charades.scores == "sigmoid"
    assert co3d.transform_for("coslow_8x8_r50", "charades").channel_order == "bgr"
    assert co3d.transform_for("coslow_8x8_r50", "kinetics400").channel_order == "rgb"

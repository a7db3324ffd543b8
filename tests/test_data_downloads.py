"""Downloads of data sets, made small, from a server on this machine."""

import io
import json
import random
from pathlib import Path, PurePosixPath

import pytest
from servers import says, serve
from test_archives import found, tar, zipped

from co3d import files
from co3d.data import archives, download
from co3d.data.download import fetch_charades, fetch_kinetics

CSV = b"""label,youtube_id,time_start,time_end,split,is_cc
abseiling,-3B32lodo2M,59,69,val,0
"air drumming",_dbcJuKJQNs,40,50,val,0
"""
NOISE = random.Random(0).randbytes
VIDEOS = {f"{name}_000000_000010.mp4": NOISE(9000) for name in ("a", "b", "c", "d")}
A, B, C, D = VIDEOS
PARTS = [{f"./{A}": VIDEOS[A], f"./._{A}": b"x", f"./{B}": VIDEOS[B]}, {f"val/{C}": VIDEOS[C]}]
CHARADES = {
    "/Charades.zip": zipped({"Charades/Charades_v1_test.csv": b"id\n" * 500, "license.txt": b"1"}),
    "/Charades_v1_480.zip": zipped({f"Charades_v1_480/{n}.mp4": VIDEOS[A] for n in "XYZ"}),
    "/Charades_v1_rgb.tar": tar(
        {f"Charades_v1_rgb/{n}/{n}-00000{i}.jpg": b"%d" % i for n in "XY" for i in (1, 2, 3)}, "w"
    ),
}


class Site(dict):
    """What the server has: path -> bytes or an answer."""

    def __call__(self, handler):
        one = self.get(handler.path, says(404))
        (serve(one) if isinstance(one, bytes) else one)(handler)


@pytest.fixture
def server(server, monkeypatch, tmp_path):
    monkeypatch.setenv("DATASETS_PATH", str(tmp_path / "data"))
    monkeypatch.setattr(download, "BASES", dict.fromkeys(download.BASES, server.url))
    server.answer = Site(CHARADES)
    for split in ("val", "train"):
        urls = [f"{server.url}/{split}/part_{n}.tar.gz" for n in range(len(PARTS))]
        server.answer[f"/{split}/k400_{split}_path.txt"] = "\n".join(urls).encode()
        server.answer[f"/annotations/{split}.csv"] = CSV
        for number, members in enumerate(PARTS):
            server.answer[f"/{split}/part_{number}.tar.gz"] = tar(members)
    return server


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data" / "kinetics400"


def gets(server):
    """What was asked for since the last time, once where its size was asked for before."""
    paths = list(dict.fromkeys(path for _, path, _ in server.asked))
    server.asked.clear()
    return paths


LIST, ANNOTATION = "/val/k400_val_path.txt", "/annotations/val.csv"
PART0, PART1 = "/val/part_0.tar.gz", "/val/part_1.tar.gz"


def test_a_split_is_fetched_once(server, root, capsys):
    assert fetch_kinetics() == root
    shown = capsys.readouterr().out.splitlines()
    assert gets(server) == [LIST, ANNOTATION, PART0, PART1]
    assert found(root / "val") == {name: VIDEOS[name] for name in (A, B, C)}
    assert (root / "annotations" / "val.csv").read_bytes() == CSV
    assert "CC BY 4.0" in shown[0] and "val.csv has sha256" in shown[1]
    assert shown[2:] == [
        f"part_0.tar.gz: 2 files in {root / 'val'}",
        f"part_1.tar.gz: 1 files in {root / 'val'}",
    ]
    left = sorted(path.name for path in (root / ".download").rglob("*") if path.is_file())
    assert left == ["k400_val_path.txt", "part_0.tar.gz.json", "part_1.tar.gz.json"]
    server.shutdown()
    assert fetch_kinetics() == root and gets(server) == [] and capsys.readouterr().out == ""


def test_parts_are_the_first_ones(server, root, run):
    assert fetch_kinetics("val", 1) == root
    assert set(found(root / "val")) == {A, B} and gets(server) == [LIST, ANNOTATION, PART0]
    assert run("download", "kinetics400", "--parts", "2")[0] == 0
    assert set(found(root / "val")) == {A, B, C} and gets(server) == [PART1]
    with pytest.raises(ValueError, match="expected 1 to 2 parts of val, given 3"):
        fetch_kinetics("val", 3)
    with pytest.raises(ValueError, match="expected a split of train, val, test, given 'dev'"):
        fetch_kinetics("dev")


def test_what_was_deleted_is_fetched_again_and_what_was_sorted_is_found(server, root, capsys):
    fetch_kinetics()
    (root / "val" / "air drumming").mkdir()
    (root / "val" / B).rename(root / "val" / "air drumming" / B)
    gets(server)
    fetch_kinetics()
    assert gets(server) == []
    (root / "val" / C).unlink()
    capsys.readouterr()
    fetch_kinetics()
    assert gets(server) == [PART1] and set(found(root / "val")) == {A, f"air drumming/{B}", C}
    assert "1 files of part_1.tar.gz are gone: it is fetched again" in capsys.readouterr().out


def test_replacements_come_before_the_parts_of_train(server, root):
    good = NOISE(7000)
    server.answer["/replacement_for_corrupted_k400.tgz"] = says(404)
    with pytest.raises(ConnectionError, match=r"1 of 1 archives failed \(replacement_for"):
        fetch_kinetics("train", 1)
    assert not (root / "train").exists()
    server.answer["/replacement_for_corrupted_k400.tgz"] = tar({f"replacement/{A}": good})
    gets(server)
    fetch_kinetics("train", 1)
    assert gets(server) == ["/replacement_for_corrupted_k400.tgz", "/train/part_0.tar.gz"]
    assert found(root / "train") == {A: good, B: VIDEOS[B]}


HTML = b"<!DOCTYPE html><html><body>Please sign in</body></html>"
CUT = tar({A: VIDEOS[A], B: VIDEOS[B]})[:-5000]
WRONG = {
    "HTML": (says(200, HTML, Content_Length=len(HTML)), "begins with b'<!DOCTYPE"),
    "escape": (tar({"../evil.mp4": b"1"}), "which could lead elsewhere: refused"),
    "no video": (zipped({}), "holds no file .mp4"),
    "cut as published": (CUT, "part_0.tar.gz is damaged or cut off"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_answer_is_one_sentence_and_the_other_parts_come(server, root, run, case):
    whole, (server.answer[PART0], sentence) = server.answer[PART0], WRONG[case]
    code, shown, error = run("download", "kinetics400")
    lines = [line for line in shown.splitlines() if sentence in line]
    assert code == 2 and len(lines) == 1 and f"{server.url}{PART0}" in lines[0]
    assert error == "co3d: 1 of 2 archives failed (part_0.tar.gz): run the command again\n"
    assert set(found(root / "val")) == {C}
    assert not list((root / ".download").rglob("*.tar.gz"))
    server.answer[PART0] = whole
    assert run("download", "kinetics400")[0] == 0 and set(found(root / "val")) == {A, B, C}


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        (LIST, "k400_val_path.txt has no .tar.gz in its first line"),
        (ANNOTATION, "val.csv has no youtube_id in its first line"),
    ],
)
def test_a_wrong_list_or_annotation_is_refused(server, root, path, sentence):
    server.answer[path] = HTML
    with pytest.raises(ValueError, match=sentence):
        fetch_kinetics()
    assert found(root / "val") == {}


@pytest.mark.parametrize(
    "step", [(archives, "unpack"), (download, "_move"), (files, "write"), (Path, "unlink")]
)
def test_killed_at_any_step_it_goes_on_without_fetching_again(server, root, monkeypatch, step):
    place, name = step
    whole = getattr(place, name)

    def die(*arguments, **options):
        if name != "unlink" or arguments[0].suffix == ".gz":
            raise SystemExit
        whole(*arguments, **options)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(place, name, die)
        fetch_kinetics("val", 1)
    (archive,) = (root / ".download").rglob("*.tar.gz")
    gets(server)
    fetch_kinetics("val", 1)
    assert gets(server) == [] and not archive.exists()
    assert found(root / "val") == {A: VIDEOS[A], B: VIDEOS[B]}
    assert json.loads(archive.with_name("part_0.tar.gz.json").read_text())["files"] == {A: 1, B: 1}


@pytest.mark.parametrize(
    ("arguments", "archive", "names"),
    [
        (["--annotations-only"], None, set()),
        ([], "/Charades_v1_480.zip", {f"Charades_v1_480/{n}.mp4" for n in "XYZ"}),
        (
            ["--form", "frames"],
            "/Charades_v1_rgb.tar",
            {f"Charades_v1_rgb/{n}/{n}-00000{i}.jpg" for n in "XY" for i in (1, 2, 3)},
        ),
    ],
)
def test_charades_in_each_form(server, run, tmp_path, arguments, archive, names):
    root = tmp_path / "data" / "charades"
    code, shown, error = run("download", "charades", "--yes", *arguments)
    assert (code, error) == (0, "")
    assert gets(server) == list(filter(None, ["/Charades.zip", archive]))
    assert shown.startswith("Charades is for non-commercial use only")
    names = names | {"Charades/Charades_v1_test.csv", "Charades/license.txt"}
    assert {name for name in found(root) if not name.startswith(".")} == names
    code, shown, error = run("download", "charades", *arguments)  # nothing to accept any more
    assert (code, shown, gets(server)) == (0, f"in {root}\n", [])


def test_frames_that_are_gone_are_fetched_again(server, tmp_path, capsys):
    root = fetch_charades("frames", agree=print)
    (root / "Charades_v1_rgb" / "X" / "X-000002.jpg").unlink()
    gets(server)
    fetch_charades("frames", agree=print)
    assert gets(server) == ["/Charades_v1_rgb.tar"] and "1 files of Charades" in (
        capsys.readouterr().out
    )
    assert (root / "Charades_v1_rgb" / "X" / "X-000002.jpg").read_bytes() == b"2"


def test_charades_needs_the_licence_accepted(server, run, monkeypatch, tmp_path):
    code, shown, error = run("download", "charades")
    assert code == 2 and "non-commercial" in shown and gets(server) == []
    assert error == "co3d: expected --yes, which accepts the licence, where nobody can answer\n"

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    assert run("download", "charades")[0] == 130 and gets(server) == []
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    assert run("download", "charades", "--annotations-only")[0] == 0 and gets(server) == [
        "/Charades.zip"
    ]


def test_check_asks_every_address_and_writes_nothing(server, run, tmp_path):
    del server.answer[PART1]
    code, shown, error = run("download", "kinetics400", "--check")
    part = len(server.answer[PART0])
    assert code == 1 and error == f"co3d: {server.url}{PART1} answers 404 Not Found\n"
    assert [line.split()[0] for line in shown.splitlines()] == [
        f"{size:,}" for size in (len(CSV), part, len(CSV) + part)
    ]
    assert gets(server) == [LIST, ANNOTATION, PART0, PART1]
    assert run("download", "charades", "--check")[0] == 0
    assert gets(server) == ["/Charades.zip", "/Charades_v1_480.zip"]
    assert not (tmp_path / "data").exists()


def test_the_published_addresses():
    assert download.BASES["kinetics400"] == "https://s3.amazonaws.com/kinetics/400"
    base = "https://ai2-public-datasets.s3-us-west-2.amazonaws.com/charades"
    annotations, frames = download.charades_archives("frames")
    _, videos = download.charades_archives("videos")
    names = ["Charades.zip", "Charades_v1_480.zip", "Charades_v1_rgb.tar"]
    assert [one.url for one in (annotations, videos, frames)] == [f"{base}/{n}" for n in names]
    assert archives.MEMBERS > 9848 * 31 * 24  # 31 s at 24 frames per s
    assert frames.place(PurePosixPath("a/r/X/X-1.jpg")) == PurePosixPath("X/X-1.jpg")

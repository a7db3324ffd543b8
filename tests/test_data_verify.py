import os

import numpy as np
import pytest
from PIL import Image
from trees_data import make_charades, make_frames, make_kinetics, tiny_video

from co3d.data import folder, video
from co3d.data.sets import open_set
from co3d.data.verify import verify


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    monkeypatch.setenv("CACHE_PATH", str(tmp_path / "cache"))
    monkeypatch.delenv("DATASETS_PATH", raising=False)
    monkeypatch.setattr("co3d.paths.repo_root", lambda: tmp_path)
    monkeypatch.chdir(tmp_path)


def own(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(tiny_video())
    return root


# open_set


def test_real_sets_are_found_under_the_datasets_path(tmp_path, monkeypatch):
    monkeypatch.setenv("DATASETS_PATH", str(tmp_path))
    make_kinetics(tmp_path / "kinetics400")
    make_charades(tmp_path / "charades")
    data = open_set("kinetics400")
    assert (data.name, data.split, len(data.videos)) == ("kinetics400", "val", 40)
    assert open_set("kinetics400", "validation", limit=3).videos == data.videos[:3]
    data = open_set("charades")
    assert (data.name, data.split, len(data.videos)) == ("charades", "test", 6)
    assert open_set("charades", "val", root=tmp_path / "charades") == data


@pytest.mark.parametrize("name", ["kinetics400", "charades"])
def test_a_set_that_is_not_there_is_said_with_what_to_do(tmp_path, monkeypatch, name):
    with pytest.raises(FileNotFoundError, match=f"{name} .* DATASETS_PATH, which is not set: set"):
        open_set(name)
    monkeypatch.setenv("DATASETS_PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=f"no folder .*{name}; .*`co3d download {name}`"):
        open_set(name)
    (tmp_path / name).mkdir()
    with pytest.raises(FileNotFoundError, match="no annotation of the split"):
        open_set(name)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        (
            "kinetics",
            {},
            "expected kinetics400, charades, .* or a folder of videos, given kinetics",
        ),
        ("./none", {}, "expected a folder of videos, given none"),
        ("own", {"split": "val"}, "has no splits"),
        ("own", {"root": "own"}, "expected root only with one of"),
        ("synthetic-kinetics", {"split": "vals"}, "expected a split"),
        ("empty", {}, "one folder per class with videos in it"),
        ("./charades", {}, "may not be called charades"),
        ("k400", {}, "an annotation of Kinetics, .* --root k400 kinetics400"),
    ],
)
def test_what_is_no_set_is_said(tmp_path, name, options, sentence):
    for folder_name in ("own", "charades"):
        own(tmp_path / folder_name, "a/1.mp4")
    (tmp_path / "empty").mkdir()
    make_kinetics(tmp_path / "k400", "underscore", count=1)
    with pytest.raises((ValueError, FileNotFoundError), match=sentence):
        open_set(name, **options)


# Folders of one's own


def test_a_folder_without_splits(tmp_path):
    root = own(tmp_path / "my set", "b é/2.mp4", "B/1.mkv", "b é/10.AVI", "a/1.mp4", ".x/1.mp4")
    for name in ("a/._1.mp4", "a/.DS_Store", "a/notes.txt", "readme.txt", "a/sub/3.mp4"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).touch()
    data = open_set(root)
    assert (data.name, data.split, data.multilabel) == ("my set", "all", False)
    assert data.labels == ("B", "a", "b é")
    assert [(clip.id, clip.label, clip.class_id, clip.class_ids) for clip in data.videos] == [
        ("B/1.mkv", "B", 0, (0,)),
        ("a/1.mp4", "a", 1, (1,)),
        ("b é/10.AVI", "b é", 2, (2,)),
        ("b é/2.mp4", "b é", 2, (2,)),
    ]
    assert [clip.path for clip in data.videos][0] == root / "B" / "1.mkv"


def test_a_folder_with_splits_has_the_classes_of_all(tmp_path):
    root = own(tmp_path / "set", "train/a/1.mp4", "train/b/1.mp4", "validate/c/1.mp4")
    train, val = open_set(root, "train"), open_set(str(root), "val")
    assert train.labels == val.labels == ("a", "b", "c")
    assert [clip.id for clip in train.videos] == ["a/1.mp4", "b/1.mp4"]
    assert [(clip.class_id, clip.path) for clip in val.videos] == [
        (2, root / "validate" / "c" / "1.mp4")
    ]
    with pytest.raises(FileNotFoundError, match="no split test; expected one of train, val"):
        open_set(root)


def test_labels_txt_orders_the_classes(tmp_path):
    root = own(tmp_path / "set", "a/1.mp4", "b/1.mp4")
    (root / "labels.txt").write_text("b\nunseen\n\na\n")
    data = folder.load(root)
    assert data.labels == ("b", "unseen", "a")
    assert [clip.class_id for clip in data.videos] == [2, 0]
    for text in ("b\n", "a\nb\nb\n", ""):
        (root / "labels.txt").write_text(text)
        with pytest.raises(ValueError, match="labels.txt: expected every class folder's name once"):
            folder.load(root)


# verify


def test_a_whole_tree_is_complete(tmp_path):
    make_kinetics(tmp_path, "label", count=5)
    report = verify("kinetics400", root=tmp_path, progress=False)
    assert report.complete and report.findings == () and report.note == ""
    assert report.summary.splitlines() == [
        "kinetics400, split val: 5 of 5 planned videos are there; 0 missing, 0 broken, 0 extra",
        "published: 19,906 rows, 19,881 videos",
    ]


def test_missing_broken_and_extra_files_are_listed(tmp_path):
    make_kinetics(tmp_path, missing=(3,), count=7)
    paths = [clip.path for clip in open_set("kinetics400", root=tmp_path).videos]
    paths[0].write_bytes(b"")
    paths[2].write_bytes(tiny_video()[:200])
    paths[5].unlink()
    paths[5].symlink_to(paths[6])
    (tmp_path / "val" / "other").mkdir()
    for name in ("other/zzz.mp4", f"other/{paths[6].name}", "part_0.tar.gz.part", "._zzz.mp4"):
        (tmp_path / "val" / name).write_bytes(tiny_video())
    report = verify("kinetics400", root=tmp_path, progress=False)
    assert not report.complete
    kinds = [finding.kind for finding in report.findings]
    assert kinds == ["missing", *["broken"] * 2, *["extra"] * 3]
    reasons = {os.path.basename(what): why for _, what, why in report.findings}
    assert reasons[paths[0].name] == "the file is empty (0 bytes)."
    assert "damaged, cut off or no video" in reasons[paths[2].name]
    assert reasons[paths[6].name] == "another file of its name is used"
    assert reasons["zzz.mp4"] == reasons["part_0.tar.gz.part"] == "no row plans it"
    assert "6 of 7 planned videos are there; 1 missing, 2 broken, 3 extra" in report.summary


def test_decoding_finds_what_opening_does_not(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (30, 48, 64, 3), np.uint8)

    def clip(path, number):
        video.write(path, noise, 15)
        data = bytearray(path.read_bytes())
        if number == 1:
            data[len(data) // 3 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 3)
        path.write_bytes(data)

    make_kinetics(tmp_path, count=2, clip=clip)
    assert verify("kinetics400", root=tmp_path, progress=False).complete
    report = verify("kinetics400", root=tmp_path, decode=True, progress=False)
    (finding,) = report.findings
    assert finding.kind == "broken" and "frames damaged" in finding.why
    assert finding.what == str(open_set("kinetics400", root=tmp_path).videos[1].path)


@pytest.mark.parametrize("form", ["videos", "frames"])
def test_charades_splits_share_their_folder(tmp_path, form):
    make_charades(tmp_path, form)
    report = verify("charades", root=tmp_path, progress=False)
    assert report.complete and "not checked: which files are extra" in report.summary
    make_charades(tmp_path, form, split="train", count=3)
    report = verify("charades", root=tmp_path, progress=False)
    assert report.complete and report.findings == () and report.note == ""
    media = next(path for path in tmp_path.rglob("Charades_v1_*") if path.is_dir())
    extra = media / ("QQQQQ.mp4" if form == "videos" else "QQQQQ")
    own(media, extra.name) if form == "videos" else make_frames(extra, 2)
    assert verify("charades", root=tmp_path, progress=False).findings == (
        ("extra", str(extra), "no row plans it"),
    )


def test_frames_are_counted_and_decoded(tmp_path):
    make_charades(tmp_path, "frames", count=6, frames=3)
    make_charades(tmp_path, "frames", split="train", count=1)
    folders = [clip.path for clip in open_set("charades", root=tmp_path).videos]
    frames = [sorted(folder.iterdir()) for folder in folders]
    frames[0][1].unlink()
    for path in frames[1]:
        path.unlink()
    frames[2][2].write_bytes(b"")
    frames[3][1].write_bytes(frames[3][1].read_bytes()[:-60])
    Image.new("RGB", (8, 8)).save(frames[4][0], "PNG")
    (folders[5] / "._x-000004.jpg").touch()
    faults = [
        "JPEG frames missing or damaged: 1.",
        "there are no numbered JPEG frames in this folder.",
        f"{frames[2][2].name} is empty (0 bytes)",
        f"{frames[3][1].name}: is damaged or no JPEG.",
        f"{frames[4][0].name}: is damaged or no JPEG.",
    ]
    for decode, count in ((False, 3), (True, 5)):
        findings = verify("charades", root=tmp_path, decode=decode, progress=False).findings
        assert findings == tuple(("broken", str(folders[i]), faults[i]) for i in range(count))


def test_folders_of_one_s_own_are_verified(tmp_path):
    root = own(tmp_path / "set", "train/a/1.mp4", "train/b/2.mp4")
    (root / "train" / "b" / "2.mp4").write_bytes(b"")
    (root / "train" / "notes.txt").touch()
    report = verify(root, "train", progress=False)
    assert [finding.kind for finding in report.findings] == ["broken", "extra"]
    assert "published" not in report.summary


def test_the_command(run, tmp_path):
    make_kinetics(tmp_path / "whole", count=3)
    make_kinetics(tmp_path / "holes", count=3, missing=(1,))
    code, shown, error = run("verify", "kinetics400", "--root", tmp_path / "whole")
    assert (code, error) == (0, "") and shown.count("\n") == 2
    code, shown, _ = run("verify", "kinetics400", "--root", tmp_path / "holes", "--split", "val")
    name = open_set("kinetics400", root=tmp_path / "holes").videos[1].id
    assert code == 1 and shown.startswith(f"missing  {name}  ")
    code, shown, error = run("verify", "kinetics400")
    assert (code, shown) == (2, "") and error.startswith("co3d: kinetics400 is looked for in")
    code, shown, _ = run("verify", own(tmp_path / "own", "a/1.mp4"), "--decode")
    assert code == 0 and shown.startswith("own, split all: 1 of 1 planned videos are there")

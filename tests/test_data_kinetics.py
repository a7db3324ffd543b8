import hashlib
import json

import pytest
from trees_data import (
    ANNOTATIONS,
    CONVENTIONS,
    SPELLINGS,
    kinetics_rows,
    make_kinetics,
)

from co3d.data import kinetics
from co3d.data.kinetics import KINETICS400_LABELS

CSV = """label,youtube_id,time_start,time_end,split,is_cc
abseiling,-3B32lodo2M,59,69,val,0
"air drumming",_dbcJuKJQNs,40,50,val,0
"passing American football (in game)",abcdefghijk,0,10,val,1
abseiling,-3B32lodo2M,100,110,val,0
"massaging person's head",ABCDEFGHIJK,3,13,val,0
"""


@pytest.fixture
def root(tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "val.csv").write_text(CSV)
    return tmp_path


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def load(root, split="val"):
    return kinetics.load(root, split, KINETICS400_LABELS, "kinetics400")


def test_labels_are_the_published_list():
    text = "".join(label + "\n" for label in KINETICS400_LABELS)
    digest = "e9f2806fe9109b851a80a74841244f6f8c9d10917fa0229cd82bab67f2f8e28f"
    assert hashlib.sha256(text.encode()).hexdigest() == digest
    assert len(set(KINETICS400_LABELS)) == 400
    assert list(KINETICS400_LABELS) == sorted(KINETICS400_LABELS)
    anchors = {
        0: "abseiling",
        1: "air drumming",
        5: "archery",
        115: "eating ice cream",
        208: "passing American football (in game)",
        290: "sharpening knives",
        399: "zumba",
    }
    assert {i: KINETICS400_LABELS[i] for i in anchors} == anchors


def test_all_planned_rows_in_order_missing_ones_included(root):
    touch(root, "val/_dbcJuKJQNs_000040_000050.mp4", "val/-3B32lodo2M_000100_000110.mkv")
    data = load(root)
    assert (data.name, data.split, data.labels) == ("kinetics400", "val", KINETICS400_LABELS)
    assert [video.class_id for video in data.videos] == [0, 1, 208, 0, 196]
    assert [video.label for video in data.videos][1] == "air drumming"
    assert [video.path and video.path.name for video in data.videos] == [
        None,
        "_dbcJuKJQNs_000040_000050.mp4",
        None,
        "-3B32lodo2M_000100_000110.mkv",
        None,
    ]


def test_folders_and_extensions_but_no_companions_leftovers_or_other_splits(root):
    stem = "abcdefghijk_000000_000010"
    touch(root, f"val/._{stem}.mp4", f"val/{stem}.mp4.17.part", f"val/{stem}.txt")
    touch(root, f"train/{stem}.mp4")
    assert [video.path for video in load(root).videos] == [None] * 5
    path = root / "val" / "a (b)" / f"{stem}.AVI"
    touch(root, path)
    assert (load(root).videos[2].class_id, load(root).videos[2].path) == (208, path)


HEADER = b"label,youtube_id,time_start,time_end\n"


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("val.csv", b"", "the columns label, youtube_id, time_start, time_end, given ''"),
        ("val.csv", b"\xef\xbb\xbf" + HEADER, "at least one video"),
        ("val.csv", HEADER + b"zumba,abcd,0,10,val\n", "line 2: expected 4 fields .* given 5"),
        ("val.csv", HEADER.decode().encode("utf-16"), "the columns label|no table in UTF-8"),
        ("val.csv", HEADER + b'"zumba,a,0,10\n' + b"zumba,b,0,1\n" * 9, "check the quotes"),
        ("val.csv", HEADER + b"zumba,abcdefghijk,soon,10\n", "row 1: could not convert"),
        ("val.csv", HEADER + b",abcdefghijk,0,10\n", "label '' is not among the set's 400"),
        ("val.csv", HEADER + b"zumba,abc,0,1\nabseiling,abc,0,1\n", "row 2: .* there before"),
        ("val.json", b"{", "no annotation of Kinetics in JSON"),
        ("val.json", b'{"a": {"annotations": {"label": "zumba"}}}', "in JSON .*segment"),
        ("val.json", b'{"a": {"annotations": {"segment": [null, 1]}}}', "row 1"),
    ],
)
def test_annotations_that_cannot_be_used_are_named(tmp_path, name, text, sentence):
    (tmp_path / name).write_bytes(text)
    with pytest.raises(ValueError, match=f"(?s){name}.*{sentence}"):
        load(tmp_path)


def test_a_missing_annotation_and_an_unknown_split_are_said(root):
    with pytest.raises(FileNotFoundError, match=r"split train in .* annotations/train\.csv"):
        load(root, "train")
    with pytest.raises(ValueError, match="expected a split .*given 'vals'"):
        load(root, "vals")


def test_a_row_that_is_there_twice_counts_once_and_a_byte_order_mark_not(tmp_path):
    (tmp_path / "val.csv").write_bytes(b"\xef\xbb\xbf" + HEADER + b"zumba,abc,0,10\n" * 2)
    assert [video.id for video in load(tmp_path).videos] == ["abc_000000_000010"]


def plan(data):
    return [(video.id, video.label, video.class_id, video.class_ids) for video in data.videos]


EXPECTED = [
    (f"{name}_{start:06d}_{end:06d}", label, KINETICS400_LABELS.index(label))
    for label, name, start, end in kinetics_rows()
]


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("annotation", ANNOTATIONS)
def test_every_form_of_a_tree_gives_the_same_data_set(tmp_path, convention, annotation):
    make_kinetics(tmp_path, convention, annotation, "val", missing=(3, 17))
    data = load(tmp_path)
    assert plan(data) == [(*row, (row[2],)) for row in EXPECTED]
    assert [i for i, video in enumerate(data.videos) if video.path is None] == [3, 17]
    assert all(video.path.stem == video.id for video in data.videos if video.path)
    assert len({video.class_id for video in data.videos}) == 10


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("annotation", ["csv", "json", "list", "list-csv"])
def test_every_spelling_of_the_split_gives_the_same_data_set(tmp_path, spelling, annotation):
    make_kinetics(tmp_path, "label", annotation, spelling)
    for asked in ("val", spelling):
        data = load(tmp_path, asked)
        assert data.split == "val" and [row[:3] for row in plan(data)] == EXPECTED
        assert all(video.path.is_file() for video in data.videos)


def test_test_rows_may_lack_labels_in_every_form(tmp_path):
    name = "abcdefghijk_000000_000010"
    entry = {"annotations": {"segment": [0, 10]}}
    for table, text in (
        ("test.csv", "youtube_id,time_start,time_end,split\nabcdefghijk,0,10,test\n"),
        ("test.json", json.dumps({"abcdefghijk": entry})),
        ("test.txt", f"test/{name}.mp4 -1\n"),
    ):
        (tmp_path / table).write_text(text)
        assert plan(load(tmp_path, "test")) == [(name, "", None, ())]
        (tmp_path / table).rename(tmp_path / table.replace("test", "val"))
        with pytest.raises(ValueError, match="label '' is not among|columns label"):
            load(tmp_path)
        (tmp_path / table.replace("test", "val")).unlink()


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("val/abseiling/abc.mp4 1", "1 is that of 'air drumming', but .* 'abseiling': the ids .*"),
        ("val/shooting_goal_soccer/abc.mp4 307", "in the folder of 'shooting_goal_soccer'"),
        ("val/abc.mp4 400", "a class id below 400, given 'val/abc.mp4 400'"),
        ("val/abc.mp4 -1", "label '' is not among"),
        ("val/abc.mp4 nan", "expected the path of a video and a class id"),
        ("val/abc.mp4", "expected the path of a video and a class id"),
        ("frames/abc 300 3", "expected the path of a video"),
        ("/elsewhere/fine.mp4 4", "'fine' was there before"),
    ],
)
def test_lines_of_lists_that_cannot_be_used_are_named(tmp_path, line, sentence):
    (tmp_path / "val.txt").write_text(f"val/fine.mp4 3\n\n{line}\n")
    with pytest.raises(ValueError, match=f"val.txt, row 2: .*{sentence}"):
        load(tmp_path)


def test_lists_name_files_with_spaces_climbing_and_absolute(tmp_path):
    root, other = tmp_path / "set", tmp_path / "elsewhere" / "my clips" / "c d.mp4"
    touch(root, "val/a  b.mp4", "val/e.mp4")
    touch(other.parent, other.name)
    lines = ["../val/a  b.mp4 0", f"{other}\t1", "val/e.mp4   2 ", "/nowhere/f.mp4 3"]
    (root / "annotations").mkdir()
    (root / "annotations" / "val.txt").write_bytes(("\r\n".join(lines)).encode("utf-8-sig"))
    videos = load(root).videos
    assert [video.id for video in videos] == ["a  b", "c d", "e", "f"]
    assert [video.class_id for video in videos] == [0, 1, 2, 3]
    paths = [video.path for video in videos]
    assert paths == [root / "val" / "a  b.mp4", other, root / "val" / "e.mp4", None]


def test_links_in_circles_end(tmp_path):
    (tmp_path / "val").mkdir()
    (tmp_path / "val.csv").write_text("label,youtube_id,time_start,time_end\nzumba,a,0,10\n")
    for name in "ab":
        (tmp_path / "val" / name).symlink_to(tmp_path / "val", target_is_directory=True)
    (tmp_path / "val" / "a_000000_000010.mp4").write_bytes(b"")
    (video,) = kinetics.load(tmp_path, "val", kinetics.KINETICS400_LABELS, "k").videos
    assert video.path is not None

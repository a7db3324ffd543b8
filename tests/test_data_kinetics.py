import hashlib

import pytest

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


@pytest.mark.parametrize(
    "folder",
    [
        "val",
        "val/passing American football (in game)",
        "val/passing_American_football_(in_game)",
        "val/passing_American_football_in_game",
    ],
)
@pytest.mark.parametrize("extension", ["mp4", "mkv", "webm", "avi", "MP4"])
def test_folder_spellings_and_extensions(root, folder, extension):
    touch(root, f"{folder}/abcdefghijk_000000_000010.{extension}")
    video = load(root).videos[2]
    assert (video.class_id, video.path) == (
        208,
        root / folder / f"abcdefghijk_000000_000010.{extension}",
    )


def test_companions_leftovers_and_other_splits_are_no_clips(root):
    touch(
        root,
        "val/._abcdefghijk_000000_000010.mp4",
        "val/abcdefghijk_000000_000010.mp4.17.part",
        "val/abcdefghijk_000000_000010.txt",
        "train/abcdefghijk_000000_000010.mp4",
    )
    assert [video.path for video in load(root).videos] == [None] * 5


def test_older_spellings(tmp_path):
    rows = "label,youtube_id,time_start,time_end,split\nzumba,abcdefghijk,1.0,11.0,validate\n"
    (tmp_path / "val.csv").write_text(rows + "zumba,ABCDEFGHIJK,1,11,train\n")
    touch(tmp_path, "validate/abcdefghijk_000001_000011.mp4")
    (video,) = load(tmp_path).videos
    assert video.class_id == 399
    assert video.path == tmp_path / "validate" / "abcdefghijk_000001_000011.mp4"


def test_rows_without_label_have_no_class(tmp_path):
    (tmp_path / "test.csv").write_text("youtube_id,time_start,time_end,split\nabc,0,10,test\n")
    (video,) = load(tmp_path, "test").videos
    assert (video.label, video.class_id) == ("", None)


def test_refuses_unknown_labels_bad_rows_and_missing_annotations(root):
    table = root / "annotations" / "val.csv"
    table.write_text(CSV.replace("abseiling", "absailing", 1))
    with pytest.raises(ValueError, match="'absailing' is not among kinetics400's 400"):
        load(root)
    for broken in (CSV.replace("59", "soon"), CSV.replace(",40,50,val,0", "")):
        table.write_text(broken)
        with pytest.raises(ValueError, match="need columns youtube_id, time_start and time_end"):
            load(root)
    with pytest.raises(FileNotFoundError, match=r"looked for .*train\.csv and .*train\.csv"):
        load(root, "train")


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path):
    (tmp_path / "val.csv").write_bytes(
        b"\xef\xbb\xbflabel,youtube_id,time_start,time_end,split\nzumba,abcdefghijk,0,10,val\n"
    )
    (video,) = kinetics.load(tmp_path, "val", kinetics.KINETICS400_LABELS, "k").videos
    assert (video.label, video.class_id) == ("zumba", 399)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"youtube_id,time_start,time_end\nabcdefghijk,0,10\n", "need a column label"),
        (b"label,youtube_id,time_start,time_end\n\xff\xfe,a,0,10\n", "no CSV file in UTF-8"),
        (b"label,youtube_id,time_start,time_end\nzumba,abcdefghijk,0,inf\n", "need columns"),
        (b"label,youtube_id,time_start,time_end\n" + b"a" * 200_000 + b",b,0,1\n", "no CSV file"),
    ],
)
def test_annotations_that_cannot_be_read_are_named(tmp_path, text, sentence):
    (tmp_path / "val.csv").write_bytes(text)
    with pytest.raises(ValueError, match=f"val.csv: .*{sentence}"):
        kinetics.load(tmp_path, "val", kinetics.KINETICS400_LABELS, "k")


def test_links_in_circles_end(tmp_path):
    (tmp_path / "val").mkdir()
    (tmp_path / "val.csv").write_text("label,youtube_id,time_start,time_end\nzumba,a,0,10\n")
    for name in "ab":
        (tmp_path / "val" / name).symlink_to(tmp_path / "val", target_is_directory=True)
    (tmp_path / "val" / "a_000000_000010.mp4").write_bytes(b"")
    (video,) = kinetics.load(tmp_path, "val", kinetics.KINETICS400_LABELS, "k").videos
    assert video.path is not None

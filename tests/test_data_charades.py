import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees_data import CHARADES_FORMS, charades_rows, make_charades, make_kinetics

from co3d.data import charades, kinetics

HEADER = "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length\n"
FRAMES = "original_vido_id video_id frame_id path labels\n"
# Class ids, then actions, of the first rows that trees_data makes.
QUIRKS = [
    ((8, 149), ((8, 0.0, 4.2), (149, 11.9, 21.2))),
    ((), ()),
    ((156,), ((156, 5.0, 2.0),)),
    ((0, 3), ((3, 0.0, 0.3), (3, 0.1, 0.4), (0, 0.0, 1.0))),
]


def row(actions="", name="AB12C", script="Made up."):
    return f'{name},XY07,Hallway,5,7,Yes,"{script}",bag;door,Made up.,{actions},20.00\n'


@pytest.mark.parametrize("form", CHARADES_FORMS)
def test_every_form_gives_the_same_videos(tmp_path, form):
    make_charades(tmp_path, form, missing=(4,))
    data = charades.load(tmp_path, "test")
    assert (data.name, data.split, data.multilabel) == ("charades", "test", True)
    assert [video.id for video in data.videos] == [name for name, _, _ in charades_rows()]
    assert [video.class_ids for video in data.videos[:4]] == [ids for ids, _ in QUIRKS]
    assert [video.path is None for video in data.videos] == [i == 4 for i in range(6)]
    listed = form in ("frame-list", "original")
    actions = [video.actions for video in data.videos[:4]]
    assert actions == [() if listed else expected for _, expected in QUIRKS]
    names = [data.labels[8], data.videos[0].label, data.videos[1].label, data.videos[2].label]
    assert names == ["Made action 8", "", "", "Made action 156"]
    assert [video.class_id for video in data.videos[:4]] == [None, None, 156, None]
    video = data.videos[0]
    if form.startswith("videos"):
        assert video.path.is_file() and video.frames_fps is None
    else:
        assert (video.path / f"{video.id}-000001.jpg").is_file() and video.frames_fps == 24


@pytest.mark.parametrize("form", ["videos", "original"])
def test_val_means_test_and_train_is_its_own(tmp_path, form):
    make_charades(tmp_path, form)
    make_charades(tmp_path, form, split="train", count=9)
    test = charades.load(tmp_path, "test")
    for spelling in ("val", "validate", "validation"):
        assert charades.load(tmp_path, spelling) == test
    train = charades.load(tmp_path, "train")
    assert (len(train.videos), train.split) == (9, "train")
    assert not {video.id for video in train.videos} & {video.id for video in test.videos}


def test_one_kind_of_media_serves_the_whole_set_frames_first(tmp_path):
    make_charades(tmp_path, "videos-full")
    make_charades(tmp_path, "videos", missing=range(6))
    (tmp_path / "Charades_v1_480" / "extra.mp4").touch()
    assert charades.media(tmp_path) == tmp_path / "Charades_v1_480"
    assert {video.path for video in charades.load(tmp_path, "test").videos} == {None}
    make_charades(tmp_path, "frames", missing=(1,))
    videos = charades.load(tmp_path, "test").videos
    assert [video.path is None for video in videos] == [i == 1 for i in range(6)]
    assert {video.frames_fps for video in videos} == {24}


def test_another_number_of_classes(tmp_path):
    names = ["turning", "drifting left", "c"]
    lines = [f"c{i:03d} {name}\n" for i, name in enumerate(names)]
    (tmp_path / "Charades_v1_classes.txt").write_text("".join(reversed(lines)))
    (tmp_path / "Charades_v1_test.csv").write_text(HEADER + row("c002 0.00 1.00"))
    data = charades.load(tmp_path, "test", 3, "synthetic-charades")
    assert (data.name, data.labels) == ("synthetic-charades", tuple(names))
    assert data.videos[0].label == "c"
    (tmp_path / "Charades_v1_test.csv").write_text(HEADER + row("c003 0.00 1.00"))
    with pytest.raises(ValueError, match="expected class ids from 0 to 2, given 3"):
        charades.load(tmp_path, "test", 3)


@pytest.mark.parametrize(
    ("lines", "right"),
    [
        (["Turning", "Drifting"], True),  # as the original code keeps them: counted
        (["\ufeffc000 Turning", "c001 Drifting", ""], True),
        (["c001", "c000\tTurning"], True),
        (["c000 Turning"], False),
        (["c000 Turning", "c000 Drifting"], False),
        (["c000 Turning", "c002 Drifting"], False),
        (["c000 Turning", "Drifting"], False),
        (["c000 Turning", "c001 Drifting", "c002 Growing"], False),
        ([], False),
    ],
)
def test_class_files(tmp_path, lines, right):
    (tmp_path / "classes.txt").write_text("\n".join(lines), "utf-8")
    if right:
        names = charades.class_names(tmp_path, 2)
        assert names in [("Turning", "Drifting"), ("Turning", "c001")]
    else:
        with pytest.raises(ValueError, match="classes.txt: expected 2 lines such as 'c008 Open"):
            charades.class_names(tmp_path, 2)


@pytest.mark.parametrize(
    "actions",
    [
        *("c08 0.00 1.00", "c008 0.00", "c008 0.00 1.00;", "c008 nan 1.00", "c008 -1.00 1.00"),
    ],
)
def test_actions_against_the_grammar_are_named(tmp_path, actions):
    table = tmp_path / "Charades_v1_test.csv"
    table.write_text(HEADER + row() + row(actions, "ZZ12C"), "utf-8")
    with pytest.raises(ValueError, match=r"test.csv, row 2: expected actions such as"):
        charades.load(tmp_path, "test")


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("Charades_v1_test.csv", "", "first line with the columns id, actions, length, given ''"),
        ("Charades_v1_test.csv", HEADER, "expected at least one video"),
        ("Charades_v1_test.csv", HEADER + row("c157 0.00 1.00"), "row 1: .* ids from 0 to 156"),
        ("Charades_v1_test.csv", HEADER + row() + row("c000 0.00 1.00"), "row 2: 'AB12C' was"),
        ("Charades_v1_test.csv", HEADER + row(script='one", "two') + row() * 9, "check the quotes"),
        ("val.csv", FRAMES, "expected at least one video"),
        ("val.csv", f'{FRAMES}AB12C 0 0 a.jpg "157"\n', "row 1: .* ids from 0 to 156"),
        ("val.csv", f'{FRAMES}AB12C 0 0 a.jpg "1;2"\n', "row 1: invalid literal"),
        ("val.csv", f"{FRAMES}AB12C 0 0 my folder/a.jpg 3 4\n", "line 2: expected 5 fields"),
    ],
)
def test_annotations_that_cannot_be_used_are_named(tmp_path, name, text, sentence):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=f"(?s){name}.*{sentence}"):
        charades.load(tmp_path, "test")


def test_lists_of_frames_lead_to_no_other_files(tmp_path):
    """Whatever stands before the folder's name, the frames are those of this set."""
    root, other = tmp_path / "set", tmp_path / "other" / "AB12C"
    other.mkdir(parents=True)
    lines = [
        f'AB12C 0 0 {other}/AB12C-000001.jpg "59,147"\n',
        "AB12C 0 1 ../other/AB12C/AB12C-000002.jpg\n",
        'ZZ12C 1 0 ZZ12C/ZZ12C-000001.jpg ""\n',
        'AB12C 0 2 AB12C/AB12C-000003.jpg "3, 59"\n',
    ]
    (root / "Charades_v1_rgb" / "ZZ12C").mkdir(parents=True)
    (root / "val.csv").write_text(FRAMES + "".join(lines))
    videos = charades.load(root, "val").videos
    assert [video.class_ids for video in videos] == [(3, 59, 147), ()]
    assert [video.path for video in videos] == [None, root / "Charades_v1_rgb" / "ZZ12C"]


def test_without_annotation(tmp_path):
    with pytest.raises(FileNotFoundError, match="split train in .*Charades_v1_train.csv"):
        charades.load(tmp_path, "train")


DAMAGE = st.tuples(st.integers(0, 2000), st.integers(0, 9), st.binary(max_size=9))
TABLES = {"videos": charades, "frame-list": charades} | dict.fromkeys(
    ("csv", "json", "list"), kinetics
)


@given(st.lists(DAMAGE, min_size=1, max_size=4), st.sampled_from(sorted(TABLES)))
def test_a_damaged_annotation_ends_in_a_data_set_or_a_sentence(tmp_path_factory, damages, form):
    root, reader = tmp_path_factory.mktemp("set"), TABLES[form]
    if reader is charades:
        make_charades(root, form, missing=range(6), classes=False)
    else:
        make_kinetics(root, "flat", form, count=6, missing=range(6))
    split = "test" if reader is charades else "val"
    table = reader.annotation(root, split)
    content = bytearray(table.read_bytes())
    for at, length, new in damages:
        content[at % len(content) : at % len(content) + length] = new
    table.write_bytes(content)
    try:
        data = reader.load(root, split)
    except ValueError as error:
        assert str(error).startswith(str(table)) and len(str(error)) < 1000
    else:
        assert all(0 <= i < len(data.labels) for video in data.videos for i in video.class_ids)

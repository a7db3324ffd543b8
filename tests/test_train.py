"""Training is seeded, and a stopped run goes on to the same weights."""

import json
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import logsigmoid

import co3d
from co3d import train as training
from co3d.data import sets, synthetic, video
from co3d.data.dataset import Dataset, Video
from co3d.train import (
    RECIPES,
    Clips,
    Recipe,
    clips,
    recipe_for,
    run_folder,
    splits,
    train,
    train_mini,
    validate,
)

RECIPE = Recipe(epochs=2, batch=6, warmup_epochs=1)
ONE = Recipe(epochs=1, batch=4, warmup_epochs=0)
SPEC = co3d.spec("slow_mini")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CACHE_PATH", str(tmp_path / "cache"))


def _train(folder, name="slow_mini", data="synthetic-kinetics", **options):
    options = {"recipe": RECIPE, "limit": 12, "progress": False, **options}
    return train(name, data, folder, **options)


def _clips(data, **options):
    return Clips(data, SPEC, co3d.transform_for("slow_mini"), progress=False, **options)


def _write(path, seconds=1.5, fps=15, label="expanding", shade=0):
    recipe = replace(synthetic.RECIPE, frames=int(seconds * fps), visible=6.0)
    path.parent.mkdir(parents=True, exist_ok=True)
    video.write(path, synthetic.render(recipe, label, [shade]), fps)


@pytest.fixture
def own(tmp_path):
    """Three classes that no weights know, 9 videos of 1.5 s each."""
    for shade, label in enumerate(("expanding", "drifting left", "rotating clockwise")):
        for n in range(3):
            _write(tmp_path / f"own/{label[0]} class/{n}.mp4", label=label, shade=[shade, n])
    return tmp_path / "own"


def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    curve = _train(tmp_path / "whole")
    assert [row["epoch"] for row in curve] == [1, 2]
    assert all(row["map_common"] is None for row in curve)

    def stop(*args):
        if (tmp_path / "parts/last.pt").exists():
            raise KeyboardInterrupt
        return validate(*args)

    with monkeypatch.context() as patched:
        patched.setattr(training, "validate", stop)
        with pytest.raises(KeyboardInterrupt):
            _train(tmp_path / "parts")
    assert len(json.loads((tmp_path / "parts/curve.json").read_text())["curve"]) == 1
    assert not (tmp_path / "parts/weights.safetensors").exists()
    assert _train(tmp_path / "parts") == curve
    whole, parts = (tmp_path / part / "weights.safetensors" for part in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()
    assert not list(tmp_path.glob("*/*.part"))

    with pytest.raises(ValueError, match="belongs to a run of other settings"):
        _train(tmp_path / "parts", seed=1)
    (tmp_path / "parts/last.pt").write_text("junk")
    with pytest.raises(ValueError, match="last.pt is not a whole checkpoint"):
        _train(tmp_path / "parts")
    model, _ = co3d.load("slow_mini", tmp_path / "whole" / "weights.safetensors")
    assert model.weights.labels == synthetic.SYNTHETIC_KINETICS_LABELS
    assert (model.weights.licence, model.weights.notes) == ("Apache-2.0", ())
    data = _clips(synthetic.dataset("val", limit=12, progress=False))
    assert validate(model, data) == curve[-1]["top1"]


def test_one_s_own_classes_with_the_body_frozen(tmp_path, own, monkeypatch):
    curve = _train(tmp_path / "run", data=own, start="synthetic-kinetics", freeze=True, recipe=ONE)
    assert curve[0]["top1"] in (0, 100 / 3, 200 / 3, 100)
    model, _ = co3d.load("slow_mini", tmp_path / "run/weights.safetensors", num_classes=3)
    assert model.weights.labels == ("d class", "e class", "r class")
    assert (model.weights.training_data, model.weights.licence) == ("own", "")
    before, _ = co3d.load("slow_mini", "synthetic-kinetics", num_classes=3, new_head=True)
    for key, value in before.body.state_dict().items():
        assert torch.equal(model.body.state_dict()[key], value), key


def test_several_classes_per_video(tmp_path):
    start = "synthetic-kinetics"
    curve = _train(tmp_path, data="synthetic-charades", start=start, recipe=RECIPE, limit=16)
    assert [row["top1"] for row in curve] == [None, None]
    assert all(0 < row["map_common"] <= 100 for row in curve)
    model, transform = co3d.load("slow_mini", tmp_path / "weights.safetensors")
    assert (model.weights.scores, model.weights.training_data) == ("sigmoid", "synthetic-charades")
    assert model.weights.source == "slow_mini trained on synthetic-charades from synthetic-kinetics"
    logits, targets = torch.tensor([[2.0, -1.0, 0.5]]), torch.tensor([[1.0, 0.0, 1.0]])
    assert torch.equal(co3d.scores(model, logits), logits.sigmoid())
    right = torch.tensor([2.0, 1.0, 0.5])
    assert torch.isclose(training.loss_of(logits, targets), -logsigmoid(right).mean())


def test_a_clip_shows_the_actions_that_overlap_it():
    actions = ((3, 0.0, 4.0), (1, 3.5, 9.0), (1, 8.0, 9.0), (2, 9.0, 3.0))
    row = Video("V", "", None, None, (1, 2, 3), actions=actions)
    assert clips.shown(row, 0.0, 1.0) == (3,)
    assert clips.shown(row, 3.0, 4.0) == (1, 3)
    assert clips.shown(row, 4.0, 5.0) == (1,)  # what ends as the clip begins is not shown
    assert clips.shown(row, 20.0, 21.0) == ()
    assert clips.shown(Video("V", "", None, None), 0.0, 1.0) == ()
    untimed = Video("V", "", None, None, (1, 2))  # a list of frames gives no times
    assert clips.shown(untimed, 0.0, 1.0) == (1, 2)


@pytest.mark.parametrize("fps", [12.5, 24000 / 1001])
def test_clips_held_and_clips_from_files_are_the_same(tmp_path, monkeypatch, fps):
    for n, seconds in enumerate((1.5, 2.2)):
        _write(tmp_path / f"{n}.mp4", seconds, fps)
    rows = tuple(Video(str(n), "a", 0, tmp_path / f"{n}.mp4", (0,)) for n in range(2))
    data = Dataset("own", "train", ("a",), rows)
    held = _clips(data)
    monkeypatch.setattr(clips, "MEMORY", 0)
    read = _clips(data)
    assert held.lengths == read.lengths
    ends = [length - held.frames for length in held.lengths]
    for starts in ([0, 0], [held.middle(0), held.middle(1)], ends):
        assert torch.equal(held.batch([0, 1], starts)[0], read.batch([0, 1], starts)[0])
    assert len(held.memory) == 2 and not read.memory


def test_unusable_videos_are_left_out_and_counted(tmp_path):
    _write(tmp_path / "good.mp4")
    _write(tmp_path / "short.mp4", 0.8)
    half = (tmp_path / "good.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(half[: len(half) // 2])
    paths = [tmp_path / f"{name}.mp4" for name in ("short", "good", "cut", "none")]
    rows = [Video(p.stem, "a", 0, p if p.exists() else None, (0,)) for p in paths]
    rows.append(Video("unlabelled", "", None, paths[1]))
    data = Dataset("own", "train", ("a",), tuple(rows))
    usable = _clips(data)
    assert [row.id for row in usable.videos] == ["good"]
    assert usable.notes == ("4 of 5 train videos left out",)
    paths[0].write_bytes(paths[1].read_bytes())
    data = _clips(replace(data, videos=tuple(rows[:2])))
    paths[0].write_bytes(b"gone")  # later
    x, y = data.batch([0, 1], [0, 0])
    assert len(x) == 1 and y.tolist() == [0]
    with pytest.raises(ValueError, match="expected undamaged videos, given none among .*short.mp4"):
        data.batch([0], [0])
    data = Dataset("own", "train", ("a",), (Video("none", "a", 0, None, (0,)),))
    with pytest.raises(
        ValueError, match=r"expected train videos of 1.07 s or more in own, given 1"
    ):
        _clips(data)


def test_what_validates_was_not_trained_on(own, tmp_path):
    for data, sizes in (("synthetic-kinetics", (12, 12)), ("synthetic-charades", (21, 3))):
        parts = splits(data, limit=sum(sizes) if data == "synthetic-charades" else 12)
        assert tuple(len(part.videos) for part in parts) == sizes
        assert not {v.path for v in parts[0].videos} & {v.path for v in parts[1].videos}
    kept, validation = splits(own)
    assert [v.id for v in validation.videos] == [f"{c} class/2.mp4" for c in "der"]
    assert len(kept.videos) == 6

    for part in ("train", "val"):
        _write(tmp_path / "split" / part / "a" / f"{part}.mp4")
    kept, validation = splits(tmp_path / "split")
    assert [v.id for v in (*kept.videos, *validation.videos)] == ["a/train.mp4", "a/val.mp4"]


def test_the_published_recipes():
    kinetics, charades = RECIPES["slow-kinetics400"], RECIPES["slow-charades"]
    assert kinetics == Recipe(196, 64, 0.1, 0, 1e-4, "sgd")
    assert charades == Recipe(60, 64, 0.25, 0, 1e-4, "sgd", "kinetics400")
    assert kinetics.with_batch(16) == replace(kinetics, batch=16, lr=0.025)
    assert recipe_for("kinetics400") == "mini" and RECIPES["mini"] == Recipe()


def test_minis_begin_on_charades_from_their_own_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("LOGS_PATH", str(tmp_path))
    for recipe in ("mini", "mini-charades"):
        monkeypatch.setitem(RECIPES, recipe, replace(RECIPES[recipe], epochs=1))
    for data in ("synthetic-kinetics", "synthetic-charades"):
        curve = train_mini("slow_mini", data, seed=1, limit=8)
        assert train_mini("slow_mini", data, seed=1, limit=8) == curve
    folders = [run_folder("slow_mini", data, 1, 8) for data in sets.NAMES[2:]]
    assert [path.name for path in folders] == [
        "slow_mini-synthetic-kinetics-1-first-8",
        "slow_mini-synthetic-charades-1-first-8",
    ]
    model, _ = co3d.load("slow_mini", folders[1] / "weights.safetensors")
    assert model.weights.source == (
        "co3d train slow_mini synthetic-charades --from synthetic-kinetics:1 --seed 1"
    )

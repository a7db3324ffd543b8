import csv
import hashlib
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from co3d.data import drawing, synthetic, synthetic_charades, video
from co3d.data.synthetic import SPLITS, SYNTHETIC_KINETICS_LABELS, DotRecipe

SMALL = DotRecipe(frames=12, visible=6.0)
# One pixel per frame and nothing that disturbs: for checking which way things move.
PLAIN = DotRecipe(
    frames=6,
    lifetime=6,
    coherence=(1.0, 1.0),
    speed=(1.0, 1.0),
    direction_jitter=0.0,
    centre_jitter=0.0,
    pixel_noise=0.0,
    background_noise=0.0,
)


def make(root, limit=2, split="test", **options):
    options = {"recipe": SMALL, "progress": False, **options}
    return synthetic.dataset(split, root, limit=limit, **options)


def contents(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_same_seed_same_bytes_and_an_interrupted_set_goes_on(tmp_path):
    make(tmp_path / "one", 4, workers=1)
    root = tmp_path / "four"
    data = make(root, 4, workers=4)
    before = contents(root)
    assert contents(tmp_path / "one") == before
    make(tmp_path / "other", 4, seed=1)
    assert not {*before.values()} & {*contents(tmp_path / "other").values()}
    kept, lost = (clip.path for clip in data.videos[:2])
    stamp = kept.stat().st_mtime_ns
    lost.unlink()
    make(root, 4)
    assert contents(root) == before and kept.stat().st_mtime_ns == stamp


def test_kinetics_layout_and_annotation(tmp_path, monkeypatch):
    monkeypatch.setenv("CACHE_PATH", str(tmp_path))
    root = synthetic.folder(0, SMALL)
    assert root == tmp_path / f"synthetic-kinetics-0-{SMALL.hash}"
    assert replace(SMALL, crf=30).hash != SMALL.hash
    names = set()
    for split, size in SPLITS.items():
        data = make(None, 14, split)
        assert (data.name, data.split) == ("synthetic-kinetics", split)
        assert data.labels == SYNTHETIC_KINETICS_LABELS == tuple(sorted(SYNTHETIC_KINETICS_LABELS))
        assert [clip.class_id for clip in data.videos] == [*range(12), 0, 1]
        text = (root / "annotations" / f"{split}.csv").read_text()
        header, *lines = text.splitlines()
        assert header == "label,youtube_id,time_start,time_end,split,is_cc"
        grammar = re.compile(rf'(\w+|"[\w ]+ [\w ]+"),[\w-]{{11}},0,10,{split},0')
        assert all(grammar.fullmatch(line) for line in lines)
        rows = list(csv.DictReader(text.splitlines()))
        assert set(Counter(row["label"] for row in rows).values()) == {size // 12}
        names |= {row["youtube_id"] for row in rows}
        for row, clip in zip(rows, data.videos, strict=False):
            name = f"{row['youtube_id']}_000000_000010.mp4"
            assert clip.path == root / split / row["label"] / name and clip.path.is_file()
    assert len(names) == sum(SPLITS.values())


def test_decoded_gives_all_frames_or_says_which_file(tmp_path):
    (clip,) = make(tmp_path, 1).videos
    frames = synthetic.decoded(clip)
    assert (frames.shape, frames.dtype) == ((12, 48, 64, 3), np.uint8)
    drawn = synthetic.render(SMALL, clip.label, [0, 2, 0])
    assert np.abs(frames.astype(int) - drawn).mean() < 12
    clip.path.write_bytes(clip.path.read_bytes()[:2000])
    with pytest.raises(video.VideoError, match=clip.id):
        synthetic.decoded(clip)


def test_the_sets_are_those_that_the_committed_numbers_were_measured_on(tmp_path, monkeypatch):
    monkeypatch.setenv("CACHE_PATH", str(tmp_path))
    for made in (synthetic, synthetic_charades):
        made.dataset("test", limit=0, progress=False)
    tables = (
        tmp_path / "synthetic-kinetics-0-b00fe373/annotations/test.csv",
        tmp_path / "synthetic-charades-0-bf7aaf80/Charades_v1_test.csv",
    )
    digests = [hashlib.sha256(table.read_bytes()).hexdigest()[:16] for table in tables]
    assert digests == ["8467cd76d6e274c8", "5ebfa4c658eda19b"]
    assert synthetic.render(synthetic.RECIPE, "expanding", [0, 2, 9]).mean() == pytest.approx(
        74.29431745741103, abs=1e-4
    )
    scene = synthetic_charades.plan(synthetic_charades.RECIPE, (0, 1, 2))
    frames = synthetic_charades.render(synthetic_charades.RECIPE, scene, (0, 1, 2))
    assert frames.mean() == pytest.approx(60.211868476742275, abs=1e-4)


DRIFTS = [label for label in SYNTHETIC_KINETICS_LABELS if label.startswith("drifting")]


@pytest.mark.parametrize("label", DRIFTS)
def test_drifts_go_where_their_name_says(label):
    x = ("right" in label) - ("left" in label)
    y = ("down" in label) - ("up" in label)
    frames = np.stack([synthetic.render(PLAIN, label, [i]) for i in range(8)]).astype(float)

    def change(dx, dy):
        return np.abs(frames[:, 1:] - np.roll(frames, (dy, dx), (2, 3))[:, :-1]).mean()

    others = [change(dx, dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1) if (dx, dy) != (x, y)]
    assert change(x, y) < 0.9 * min(others)


def test_turning_and_growth_go_where_their_name_says():
    """At the right edge of the picture each is a drift: down, up, right, left."""
    right = (slice(None), slice(None), slice(8, -8), slice(40, 60))
    ways = {
        "rotating clockwise": (0, 1),
        "rotating counterclockwise": (0, -1),
        "expanding": (1, 0),
        "contracting": (-1, 0),
    }
    for label, way in ways.items():
        frames = np.stack([synthetic.render(PLAIN, label, [i]) for i in range(16)]).astype(float)
        change = {
            (dx, dy): np.abs(frames[:, 1:] - np.roll(frames, (dy, dx), (2, 3))[:, :-1])[
                right
            ].mean()
            for dx, dy in ways.values()
        }
        assert min(change, key=change.get) == way


def test_no_frame_shows_the_class():
    """As many shapes, as evenly spread, in every class and at every time."""
    recipe = replace(PLAIN, frames=64, lifetime=10)
    counts, pictures = [], 40
    for own in np.arange(len(SYNTHETIC_KINETICS_LABELS)):
        cells = np.zeros((pictures, 2, 3, 4))
        for i in range(pictures):
            rng = np.random.default_rng(i)
            places, _ = drawing._lives(recipe, np.arange(64), lambda times, own=own: own, rng)
            for half, part in enumerate((places[:, :32], places[:, 32:])):
                x, y = part.real.ravel(), part.imag.ravel()
                grid = np.histogram2d(y, x, bins=(3, 4), range=((0, 48), (0, 64)))[0]
                cells[i, half] = grid / 32
        counts.append(cells)
    counts = np.array(counts)
    error = counts.std(axis=1).mean() / pictures**0.5
    assert np.abs(counts.mean(axis=1) - recipe.visible / 12).max() < 5 * error
    assert error < 0.1 * recipe.visible / 12

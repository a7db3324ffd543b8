import re
from collections import Counter
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from co3d.data import sets, video
from co3d.data import synthetic_charades as synthetic
from co3d.data.synthetic import decoded
from co3d.data.synthetic_charades import LABELS, RATES, RECIPE, ROTATIONS, SPLITS, Script

SMALL = replace(RECIPE, shortest=12, frames=24, visible=6.0)
# Nothing that disturbs: for checking when what is shown.
PLAIN = replace(
    RECIPE,
    lifetime=6,
    coherence=(1.0, 1.0),
    speed=(1.0, 1.0),
    direction_jitter=0.0,
    centre_jitter=0.0,
    pixel_noise=0.0,
    background_noise=0.0,
)


def make(root, limit=2, split="train"):
    return synthetic.dataset(split, root, recipe=SMALL, limit=limit, progress=False)


def plans(recipe=RECIPE):
    return {
        split: [synthetic.plan(recipe, (0, number, i)) for i in range(size)]
        for number, (split, size) in enumerate(SPLITS.items())
    }


def test_layout_and_grammar_are_those_of_charades(tmp_path):
    for split in SPLITS:
        make(tmp_path, 1, split)
    lines = (tmp_path / "Charades_v1_classes.txt").read_text().splitlines()
    assert lines == [f"c{n:03d} {label}" for n, label in enumerate(LABELS)]
    triplet = r"c\d{3} \d+\.\d\d \d+\.\d\d"
    row = rf'[A-Z0-9]{{5}},\w+,\w+,\d,\d,Yes,"[^"]+",[\w;]+,"[^"]+",(|{triplet}(;{triplet})*),'
    names = set()
    for split, size in SPLITS.items():
        header, *rows = (tmp_path / f"Charades_v1_{split}.csv").read_text().splitlines()
        assert header == (
            "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length"
        )
        assert len(rows) == size
        assert all(re.fullmatch(row + r"\d+\.\d\d", line) for line in rows)
        names |= {line[:5] for line in rows}
    assert len(names) == sum(SPLITS.values())


def test_the_set_has_what_makes_the_real_one_hard():
    made = plans()
    everything = [*made["train"], *made["test"]]
    assert all(8 <= one.seconds <= 16.1 for one in everything)
    for part in made.values():
        numbers = Counter(len(one.windows) for one in part)
        assert set(numbers) == {0, 1, 2, 3, 4}
        assert 0.01 < numbers[0] / len(part) < 0.1
        assert {one.fps for one in part} == {Fraction(15), *RATES.values()}
        assert {one.rotation for one in part} == {0, *ROTATIONS.values()}
        assert any(start > end for one in part for _, start, end in one.windows)
        shown = Counter(motion for one in part for motion, _, _ in one.windows)
        assert len(shown) == 12 and max(shown.values()) < 3 * min(shown.values())
    shown = {one: sorted(sorted(ends) for _, *ends in one.windows) for one in everything}
    ends = [(one, *window) for one, windows in shown.items() for window in windows]
    assert all(0 <= start < end and start < one.seconds for one, start, end in ends)
    late = sum(end > one.seconds for one, _, end in ends) / len(ends)
    assert 0.2 < late < 0.5  # in the real set 30 %
    pairs = [windows[:2] for windows in shown.values() if windows[1:]]
    assert sum(a[1] > b[0] for a, b in pairs) > 0.9 * len(pairs)


def test_dataset_lists_what_was_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("CACHE_PATH", str(tmp_path))
    data = make(None, 8, "test")
    assert (data.name, data.split, data.multilabel) == ("synthetic-charades", "test", True)
    assert data.labels == LABELS and len(data.videos) == 8
    folder = synthetic.folder(0, SMALL)
    assert folder == tmp_path / f"synthetic-charades-0-{SMALL.hash}" != synthetic.folder()
    assert replace(SMALL, span=(0.1, 0.2)).hash != SMALL.hash
    for i, row in enumerate(data.videos):
        one = synthetic.plan(SMALL, (0, 1, i))
        assert (row.id, row.path) == (one.id, folder / "Charades_v1_480" / f"{one.id}.mp4")
        assert row.class_ids == tuple(sorted({motion for motion, _, _ in one.windows}))
        assert row.actions == one.windows
    opened = sets.open_set("synthetic-charades", limit=1, root=folder)
    assert [row.id for row in opened.videos] == [data.videos[0].id]


@pytest.mark.parametrize("index", [0, *RATES, *ROTATIONS])
def test_what_a_player_shows_is_what_was_drawn(tmp_path, index):
    clip = make(tmp_path, index + 1).videos[index]
    one = synthetic.plan(SMALL, (0, 0, index))
    with video.Reader(clip.path) as reader:
        assert reader.fps == pytest.approx(float(one.fps))
        assert next(reader.decode())[1].rotation % 360 == one.rotation
    frames = decoded(clip)
    drawn = synthetic.render(SMALL, one, (0, 0, index))
    assert frames.shape == drawn.shape == (one.n_frames, 48, 64, 3)
    assert np.abs(frames.astype(int) - drawn).mean() < 12


def test_motions_are_shown_within_their_windows_at_any_rate():
    """To the right in the first 3 s, then down; measured in pixels per 1/15 s."""
    right, down = LABELS.index("drifting right"), LABELS.index("drifting down")
    windows = ((right, 0.0, 3.0), (down, 3.0, 9.0))
    for fps, step in ((15, 1), (Fraction(30), 2)):
        one = Script("AB12C", Fraction(fps), int(6 * fps), 0, windows)
        frames = synthetic.render(PLAIN, one, [1]).astype(float)[::step]

        def change(part, dx, dy):
            return np.abs(part[1:] - np.roll(part, (dy, dx), (1, 2))[:-1]).mean()

        for part, way in ((frames[:40], (1, 0)), (frames[50:], (0, 1))):
            other = way[::-1]
            assert change(part, *way) < 0.8 * change(part, *other)

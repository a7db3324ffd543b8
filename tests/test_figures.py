"""Each figure has its entry and says in its file where it is from; unchanged pictures stay."""

import re
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from co3d.paths import repo_root
from co3d.report import drawings, figures, style
from co3d.report.schema import TABLES


def test_every_figure_has_its_entry_and_every_entry_its_notebook_and_tables():
    for path in (repo_root() / "figures").iterdir():
        assert path.stem in figures.FIGURES, path.name
    for stem, record in figures.FIGURES.items():
        assert record.caption.endswith("."), stem
        notebook = (repo_root() / "notebooks" / f"{record.notebook}.ipynb").read_text("utf-8")
        by_data_set = record.notebook in ("05_kinetics400", "06_charades")
        assert f'\\"{stem}\\"' in notebook or by_data_set, stem
        for table in record.tables:
            known = table.removesuffix("-<device>-<precision>") in TABLES
            assert known or (repo_root() / "results" / f"{table}.csv").exists(), table


@pytest.fixture
def at(monkeypatch):
    """Sets the commit."""
    return lambda commit, dirty=0: monkeypatch.setattr(
        figures, "git_state", lambda: (commit, dirty)
    )


def test_files_say_what_they_are_drawn_from(at, tmp_path):
    at("abc123", 1)
    png = figures.save(drawings.residual_alignment(), "break_even", tmp_path)
    gif = drawings.save_gif([Image.new("RGB", (9, 9))] * 2, "hero", tmp_path, ms=100)
    svg = png.with_suffix(".svg").read_text("utf-8")
    metadata = re.search("<metadata>.*</metadata>", svg, re.DOTALL)[0]
    with Image.open(png) as image, Image.open(gif) as animation:
        words, comment = image.text, animation.info["comment"].decode()
    assert words["Source"] == "results/models.csv" and "Software" not in words
    assert words["Relation"] == "notebooks/03_complexity.ipynb" and words["Rights"] == "Apache-2.0"
    for text in words.values():
        assert text in metadata
    assert "<dc:date>" not in metadata
    for text in (metadata, words["Identifier"], comment):
        assert "commit abc123, with changes" in text
    assert "Source: notebooks/00_start_here.ipynb" in comment


def test_a_picture_that_did_not_change_keeps_its_file(at, tmp_path):
    new, committed = tmp_path / "new" / "figures", tmp_path / "committed"
    for commit, delay in (("first", 1), ("second", 1), ("third", 2)):
        at(commit)
        figures.save(drawings.residual_alignment(delay=delay), "continual_residual", new.parent)
        image = Image.new("RGB", (9, 9), (40 * delay, 0, 0))
        drawings.save_gif([image, Image.new("RGB", (9, 9))], "hero", new.parent, ms=100)
        (new / "table.md").write_text("| a |")
        copied = figures.merge(new, committed)
        names = ["continual_residual.png", "continual_residual.svg", "hero.gif"]
        expected = {"first": [*names, "table.md"], "second": [], "third": names}
        assert copied == expected[commit]
    assert "third" in (committed / "continual_residual.svg").read_text("utf-8")


# What is left of linear RGB without red, green or blue cones (Machado and others, 2009).
SIGHT = {
    "normal": np.eye(3),
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
}
TO_XYZ = [[0.4339, 0.3762, 0.1899], [0.2126, 0.7152, 0.0722], [0.0177, 0.1095, 0.8728]]


def lab(colour, sight):
    """CIE L*a*b* of a colour as somebody with this sight sees it."""
    rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    f = np.cbrt(np.array(TO_XYZ) @ np.clip(sight @ linear, 0.001, 1))
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("sight", SIGHT)
def test_families_differ_for_every_sight_and_can_be_read_on_white(sight):
    seen = {name: lab(c, np.array(SIGHT[sight])) for name, c in style.FAMILY_COLORS.items()}
    for one, other in combinations(seen, 2):
        assert np.linalg.norm(seen[one] - seen[other]) > 14, f"{one} and {other}"
    assert max(colour[0] for colour in seen.values()) < 65

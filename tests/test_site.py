"""The site is whole, needs nothing from elsewhere, and says what the repository says."""

import base64
import re
import shutil

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import co3d
from co3d import report
from co3d.measure.forms import OPTIMISED
from co3d.paths import repo_root
from co3d.report.figures import FIGURES
from co3d.report.site import cards, links, markup, models, pages
from co3d.report.site.build import build, contents
from co3d.report.site.source import Source

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
GIF = base64.b64decode("R0lGODlhAQABAAAAACwAAAAAAQABAAACAkQBADs=")
WIDGET = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "HBox()"}
HELP = {"bench": "Usage: co3d bench <b>"}
FIRST = """# {}

**A claim with $x_t$.**

- Reads: nothing.
- Writes: `figures/one_*`.
- Takes: 1 minute."""
TEXT = """## A heading

A formula $w_1 x_{t-2}$, and $$\\frac{a}{b}$$

| a | b |
|---|---|
| 1 | 2 |

See [the next](01_b.ipynb#A-heading), [the ledger](../results/paper/claims.csv), [gone](../GONE.md)
and [elsewhere](https://example.org).

<details>
<summary>Answer</summary>

It is **bold**, as $k$ is.

</details>
"""


def shown(data):
    return {kind: base64.b64encode(data).decode() for kind in ("image/png",)}


def notebook(title, *outputs):
    cells = [new_markdown_cell(FIRST.format(title), id="a"), new_markdown_cell(TEXT, id="b")]
    cells.append(new_code_cell("1 < 2", id="c", outputs=list(outputs)))
    return new_notebook(cells=cells)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A small repository with the real published tables and nothing measured."""
    root = tmp_path_factory.mktemp("repository")
    for name in ("notebooks", "figures"):
        (root / name).mkdir()
    shutil.copytree(repo_root() / "results" / "paper", root / "results" / "paper")
    (root / "README.md").write_text(
        "# A title\n\n**What it is.** See [02](notebooks/01_b.ipynb).\n\n## Run\n"
    )
    (root / "figures" / "hero.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (root / "figures" / "published_benchmark.md").write_text("| a |\n|---|\n| 1 |\n")
    outputs = (
        new_output("display_data", {**shown(PNG), **WIDGET}),
        new_output("display_data", dict(WIDGET)),
        new_output("display_data", shown(GIF)),
        new_output("display_data", {"text/html": "<table><tr><td>7</td></tr></table>"}),
        new_output("stream", text="printed"),
    )
    nbformat.write(notebook("00 One", *outputs), root / "notebooks" / "00_start_here.ipynb")
    nbformat.write(notebook("01 Two"), root / "notebooks" / "01_b.ipynb")
    return root


@pytest.fixture(scope="module")
def made(root):
    return contents(Source(root), HELP)


def test_the_site_is_whole_and_asks_for_nothing(made):
    assert links.problems(made) == []
    texts = [text for text in made.values() if isinstance(text, str)]
    assert not any("<script" in text or "@import" in text or "url(" in text for text in texts)


def test_every_page_can_be_read_on_a_phone_and_by_ear(made):
    for path, text in made.items():
        if path.endswith(".html"):
            assert '<html lang="en">' in text and 'name="viewport"' in text, path
            assert 'href="#content">Skip' in text and text.count("<h1") == 1, path
            assert (
                text.count("<table") == text.count("<caption")
                or "notebooks/" in path
                or (path in ("figures.html", "results.html"))
            ), path


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ('<img src="https://example.org/a.png" alt="a">', "loads 'https://example.org/a.png'"),
        ('<link rel="stylesheet" href="//example.org/a.css">', "loads '//example.org/a.css'"),
        ("<script>1</script>", "loads 'a script'"),
        ('<img src="gone.png" alt="a">', "loads 'gone.png'"),
        ('<img src="data:," alt="">', "without alternative text"),
        ('<a href="gone.html">a</a>', "links to 'gone.html'"),
        ('<a href="/b.html">a</a>', "links to '/b.html'"),
        ('<a href="b.html#there">a</a>', "there is no such place"),
        ('<a href="#there">a</a>', "there is no such place"),
        ('<p id="x"></p><p id="x"></p>', "has the id 'x' twice"),
    ],
)
def test_what_is_not_whole_is_named(body, problem):
    (found,) = links.problems({"a.html": body, "b.html": '<p id="here"></p>'})
    assert problem in found


def test_what_is_whole_passes():
    good = '<a href="b.html#here"></a><a href="https://example.org">e</a><img src="c.png" alt="c">'
    assert not links.problems({"a.html": good, "b.html": '<p id="here"></p>', "c.png": b""})


def test_equal_files_give_equal_bytes_and_no_other_folder_is_replaced(
    root, made, tmp_path, monkeypatch
):
    out = tmp_path / "site"
    for _ in range(2):  # the second replaces the first
        count = build(out, HELP, root)
        monkeypatch.setattr("co3d.report.site.build.contents", lambda *_: made)
        written = {
            p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()
        }
        assert count == len(made)
        assert written == {
            path: content.encode() if isinstance(content, str) else content
            for path, content in made.items()
        }
        assert list(tmp_path.iterdir()) == [out]
    own = tmp_path / "own"
    own.mkdir()
    (own / "index.html").write_text("mine")
    with pytest.raises(ValueError, match="expected a new or empty folder or an earlier site"):
        build(own, HELP, root)
    assert (own / "index.html").read_text() == "mine"


def test_a_site_that_is_not_whole_is_not_written(root, made, tmp_path, monkeypatch):
    broken = {**made, "index.html": '<img src="gone.gif" alt="a">'}
    monkeypatch.setattr("co3d.report.site.build.contents", lambda *_: broken)
    with pytest.raises(ValueError, match="not whole: index.html loads 'gone.gif'"):
        build(tmp_path / "site", HELP, root)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError, match="there is no notebooks/"):
        build(tmp_path / "site", HELP, tmp_path)


def test_a_notebook_shows_pictures_formulas_and_folded_answers(made):
    page = made["notebooks/00_start_here.html"]
    assert (
        made["notebooks/00_start_here-1.png"] == PNG
        and made["notebooks/00_start_here-2.gif"] == GIF
    )
    assert 'src="00_start_here-1.png"' in page and 'alt="Output of: A heading"' in page
    assert "HBox" not in page and "model_id" not in page
    assert page.count("<math") == 4 and "$" not in page
    assert "<summary>Answer</summary>" in page and "<strong>bold</strong>" in page
    assert "<td>7</td>" in page and "printed" in page


def test_links_of_notebooks_stay_in_the_site(made):
    page = made["notebooks/00_start_here.html"]
    assert 'href="01_b.html#A-heading"' in page and 'href="../results/paper/claims.csv"' in page
    assert "gone" in page and "GONE" not in page and 'href="https://example.org"' in page
    assert 'href="01_b.html">→ 01 Two</a>' in page
    assert 'href="notebooks/01_b.html"' in made["index.html"]


def test_a_formula_that_cannot_be_set_is_named():
    for formula in ("\\unknowncommand{x}", "x_{", "\\left( a"):
        with pytest.raises(ValueError, match="the formula .* cannot be set"):
            pages.markdown(f"See ${formula}$.")


def test_figures_have_their_captions_and_the_notebook_that_draws_them(made):
    page = made["figures.html"]
    assert 'src="figures/hero.svg"' in page
    assert page.count('Drawn by <a href="notebooks/00_start_here.html">00 One</a>') == 1
    assert page.count(FIGURES["hero"].caption) == 2  # as the picture's text, too
    assert FIGURES["published_benchmark"].caption in page and "<td>1</td>" in page


def test_each_model_has_a_card_and_published_numbers_are_as_printed(made):
    for name in co3d.list_models():
        assert f"models/{name}.html" in made
    card = made["models/coslow_8x8_r50.html"]
    assert "73.05" in card and "Neither accuracy nor speed was measured" in card
    assert markup.text('co3d.load("coslow_8x8_r50", "kinetics400", window=8)') in card
    assert "The paper has no numbers" in made["models/coslowfast_8x8_r50.html"]
    assert "Apache-2.0" in made["models/x3d_mini.html"]


@pytest.fixture(scope="module")
def chosen():
    """The table of models on the committed results, by name and size; blank cells kept."""
    ((_, page),) = models.which(Source(repo_root()))
    body = page.partition("<tbody>")[2].partition("</tbody>")[0]
    rows = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in body.split("</tr>")[:-1]]
    rows = [[re.sub("<[^>]*>", "", cell) for cell in row] for row in rows]
    assert {len(row) for row in rows} == {len(models.HEAD)}
    return {(row[0], row[1]): dict(zip(models.HEAD, row, strict=True)) for row in rows}


TOP1, FASTEST, STATE = models.HEAD[2], models.HEAD[4], "State, optimised (MB)"


def test_the_table_of_models_leaves_blank_what_does_not_exist(chosen):
    first, clip = "First after (s)", ("x3d_m", "clip of 16 frames")
    assert chosen["cox3d_s", "frame, window 64"][TOP1] == "67.33"
    assert chosen["cox3d_s", "frame, window 13"][TOP1] == "60.18"
    assert (
        chosen["cox3d_m", "frame, window 64"][first] == "15.3"
    )  # (91 + 1) / 6, at 6 frames per second
    assert {row[TOP1] for (name, _), row in chosen.items() if "mini" in name} == {""}
    assert chosen[clip]["State, eager (MB)"] == "" and chosen[clip][TOP1] == "67.24"
    assert chosen["r2plus1d_18", "clip of 8 frames"][FASTEST] == ""
    assert {name for name, _ in chosen} == set(co3d.list_models())


def test_times_are_per_frame_and_those_of_another_window_are_marked(chosen):
    timed = report.read("benchmark").query("precision == 'float32' and batch == 1")
    timed = timed[timed["implementation"] == OPTIMISED]
    timed = timed[timed["threads"] == timed["threads"].max()]
    assert len(timed)
    sizes = {(name, size): row for (name, size), row in chosen.items()}
    for row in timed.itertuples():
        stride = co3d.create(row.model).stride if row.mode == "stream" else 1
        ms = models.number(1000 / row.throughput_per_s / stride)
        every = "frame" if stride == 1 else f"{stride} frames"
        if row.mode == "stream":
            native, wide = (sizes[row.model, f"{every}, window {n}"] for n in (row.window, 64))
            assert native["co3d optimised, ms per frame or clip"] == ms
            assert wide["co3d optimised, ms per frame or clip"] == f"~ {ms}"
            assert native[STATE] == models.number(row.state_mb) and not wide[STATE]
    assert {size for name, size in sizes if name == "cor2plus1d_18"} == {
        *("8 frames, window 8", "8 frames, window 16", "8 frames, window 64"),
    }


def test_a_card_says_once_what_its_rows_share_and_names_weights():
    source = Source(repo_root())
    pages = dict(cards.cards(source))
    card = pages["models/x3d_mini.html"]
    assert "synthetic-kinetics:1</td>" in card and "In all rows: " in card
    assert "    Stage(width=24, inner=54, squeeze=8, blocks=2)\n" in card
    slip = pages["models/slowfast_8x8_r50.html"]
    assert ">66.25*<" in slip and "the network has 34,566,488 parameters" in slip
    stream = pages["models/coi3d_8x8_r50.html"]
    assert ">3.00 ±0.17<" in stream and "every 2nd frame" in stream
    assert not any("_per_s" in page or "_std" in page for page in pages.values())


def test_the_ledger_is_there_row_for_row(root, made):
    ledger = pd.read_csv(
        root / "results" / "paper" / "claims.csv", dtype=str, keep_default_na=False
    )
    page = made["claims.html"]
    assert page.count('class="status"') == len(ledger) + 6
    assert all(markup.text(claim) in page for claim in ledger["claim"])


def test_the_api_has_every_public_name_and_every_command(made):
    page = made["api.html"]
    for name in co3d.__all__:
        assert f'id="co3d.{name}"' in page
    assert 'id="co3d.nn.StreamNet.step"' in page and "0x" not in page
    for name in ("OptimizedStream", "OptimizedClip", "Report", "Runner"):
        assert re.search(rf'id="co3d\.[\w.]+\.{name}"', page)
    assert 'id="co3d.nn.Continual.step"' in page and 'id="co3d.nn.StreamNet.begin"' not in page
    assert "Usage: co3d bench &lt;b&gt;" in page


def test_markup_is_escaped_and_numbers_are_aligned():
    table = markup.table("a<b", ("x", "n", "blank"), [("<i>", 1.5, ""), ("b", "~ 2", "")])
    assert 'data-head="n"' in markup.table("", ("x", "n"), [("a", "b")], stacked=True)
    assert '<th scope="row">' in markup.table("", ("x", "n"), [("a", "b")], named=True)
    assert "a&lt;b" in table and "&lt;i&gt;" in table and "blank" not in table
    assert table.count('class="number"') == 3
    assert markup.link("w", "models/a.html#b", "notebooks/c.html") == (
        '<a href="../models/a.html#b">w</a>'
    )

"""The site is whole, needs nothing from elsewhere, and says what the repository says."""

import re
import shutil
import subprocess
import sys

import pandas as pd
import pytest

import co3d
from co3d.paths import repo_root
from co3d.report import site
from co3d.report.notebooks import names

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
LOADED = re.compile(r'<(?:script|link|img|source|iframe)\b[^>]*\b(?:src|href)="([^"]*)"')


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The site of this repository, two folders deep."""
    out = tmp_path_factory.mktemp("served") / "some" / "where"
    out.parent.mkdir()
    command = [sys.executable, "-m", "co3d", "site", "--out", str(out)]
    run = subprocess.run(command, cwd=repo_root(), capture_output=True, text=True)
    assert run.returncode == 0 and not run.stderr, run.stderr
    assert list(out.parent.iterdir()) == [out]
    return out


@pytest.mark.slow
def test_nothing_is_loaded_from_elsewhere(folder):
    pages = [path for path in folder.rglob("*.html") if "_static" not in path.parts]
    assert len(pages) > 90
    for page in pages:
        text = page.read_text("utf-8")
        for address in LOADED.findall(text):
            path = page.parent / re.sub("[?#].*", "", address)
            assert path.exists(), f"{page} loads {address}"
        assert page.name in ("search.html", "genindex.html") or text.count("<h1") == 1, page
    for style in folder.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\W*(https?:)?//", style.read_text("utf-8")), style


@pytest.mark.slow
def test_every_notebook_model_claim_and_public_name_has_its_place(folder):
    def text(name):
        return (folder / name).read_text("utf-8")

    assert {path.stem for path in (folder / "notebooks").iterdir()} == set(names())
    assert {path.stem for path in (folder / "models").iterdir()} == set(co3d.list_models())
    for name in set(co3d.__all__) - {"report"}:
        assert f'href="api/co3d.{name}' in text("api.html")
    assert "73.05" in text("models/coslow_8x8_r50.html")
    claims = pd.read_csv(repo_root() / "results" / "paper" / "claims.csv")
    assert text("claims.html").count("<tr") > len(claims)
    assert "<math" in text("notebooks/01_continual_convolution.html")
    assert "Usage: co3d bench" in text("commands.html") and "synthetic-charades" in text(
        "data.html"
    )


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
def test_pages_fit_a_phone_and_search_finds_a_word(folder):
    from playwright.sync_api import sync_playwright

    wrong = []
    with sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 900})
        page.on("console", lambda message: wrong.append(f"{page.url}: {message.text}"))
        page.on("pageerror", lambda error: wrong.append(f"{page.url}: {error}"))
        page.on("requestfailed", lambda request: wrong.append(f"{page.url} lacks {request.url}"))
        for path in sorted(folder.rglob("*.html")):
            page.goto(path.as_uri())
            over = page.evaluate("document.scrollingElement.scrollWidth - innerWidth")
            wrong += [f"{path.name} is {over} px too wide"] if over > 0 else []
        page.goto((folder / "search.html").as_uri() + "?q=receptive")
        page.get_by_role("link", name="01 Continual convolution").last.wait_for()
        browser.close()
    assert not wrong


def test_no_other_folder_is_replaced(tmp_path, monkeypatch):
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(ValueError, match="expected a new or empty folder or an earlier site"):
        site.build(tmp_path, {})
    monkeypatch.setattr(site, "repo_root", lambda: tmp_path)
    with pytest.raises(FileNotFoundError, match="built in a clone"):
        site.build(tmp_path / "site", {})
    assert (tmp_path / "index.html").read_text() == "mine"


def test_a_table_escapes_rounds_and_says_once_what_rows_share():
    rows = pd.DataFrame(
        {"a_b": ["x|<y", "$z"], "n": ["1.23456", "2"], "same": ["s", "s"], "blank": ["", ""]}
    )
    assert site.table(rows).splitlines() == [
        "In all rows: same s.",
        "",
        r"| a\_b | n |",
        "| :-- | --: |",
        r"| x\|\<y | 1.235 |",
        r"| \$z | 2 |",
    ]


def test_times_of_streams_are_per_frame():
    results = repo_root() / "results"
    models = site.read([results / "models.csv"]).query("model == 'coi3d_8x8_r50'")
    published = site.read([results / "paper" / "kinetics400_published.csv"])
    timed = pd.DataFrame({"implementation": ["co3d optimised", "openvino", "co3d eager"],
                          "throughput_per_s": ["10", "20", "5"]})  # fmt: skip
    timed = timed.assign(model="coi3d_8x8_r50", batch="1", precision="float32", threads="2",
                         stride="2", state_mb="3")  # fmt: skip
    rows = site.which(models, timed, published)
    shown = rows[["window", "top1_percent", "ms", "ms_fastest", "implementation"]]
    assert shown.values.tolist() == [["8", "59.58", 50.0, 25.0, "openvino"],
                                     ["64", "56.86", 50.0, 25.0, "openvino"]]  # fmt: skip


def test_the_examples_of_the_api_run(capsys):
    text = (repo_root() / "notebooks" / "site" / "api.md").read_text("utf-8")
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for example in examples:
        exec(compile(example, "api.md", "exec"), {})
    assert len(examples) == 4 and "cox3d_mini" in capsys.readouterr().out

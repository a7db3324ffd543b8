"""The README keeps its word: the snippet prints what it says, and the tables are complete."""

import contextlib
import io
import re

import co3d
from co3d import __main__ as command_line
from co3d import report
from co3d.paths import repo_root
from co3d.report import claims, notebooks, readme
from co3d.zoo import downloads

UPDATE = "run `co3d update`"
README = (repo_root() / "README.md").read_text("utf-8")


def test_the_snippet_prints_what_the_readme_says():
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    said = re.search(r"```text\n(.*?)```", README, re.DOTALL)[1]
    assert len(code.strip().splitlines()) <= 12
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    assert printed.getvalue() == said


def test_the_table_lists_every_notebook():
    assert re.findall(r"^\| \[(\w+)\]", README, re.MULTILINE) == sorted(notebooks.names())


def test_links_lead_somewhere():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links and all((repo_root() / link).exists() for link in links)


def test_the_counts_are_those_of_the_ledger():
    ledger = claims.ledger(**{name: report.read(name) for name in claims.TABLES})
    assert readme.with_block(README, "claims", claims.summary(ledger)) == README, UPDATE


def test_the_table_of_models_is_that_of_the_specs():
    assert readme.with_block(README, "models", readme.models()) == README, UPDATE
    rows = [row for row in README.splitlines() if row.endswith("` |") and "`co3d bench " in row]
    assert len(rows) == len(downloads.published()) == 10
    for (record, weights), row in zip(downloads.published(), rows, strict=True):
        assert f"`{record.name}`, `co{record.name}`" in row and f"({weights.url})" in row
        assert f"({record.paper})" in row and f"({weights.source})" in row
    slow = [row for row in rows if "`slow_8x8_r50`" in row]
    assert len(slow) == 2 and all("facebookresearch/pytorchvideo" in row for row in slow)
    assert "`co3d evaluate charades --models slow_8x8_r50,coslow_8x8_r50`" in slow[1]


def test_the_benchmark_commands_of_the_table_are_understood():
    commands = re.findall(r"`co3d bench ([^`]+)`", readme.models())
    assert len(commands) == len(downloads.published())
    command = command_line.cli.commands["bench"]
    for arguments in map(str.split, commands):
        given = command.make_context("bench", list(arguments)).params
        regular, continual = given["names"]
        assert co3d.spec(continual).continual and co3d.spec(continual).weights == regular


def test_the_commands_in_the_readme_exist():
    named = set(re.findall(r"`co3d ([a-z]\w+)", README))
    assert named <= set(command_line.cli.commands) and {"download", "convert"} <= named

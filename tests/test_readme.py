"""The README keeps its word: the snippet prints what it says, and the tables are complete."""

import contextlib
import io
import re

from co3d import report
from co3d.paths import repo_root
from co3d.report import claims, notebooks

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
    ledger = claims.ledger(report.read("models"))
    assert claims.with_summary(README, ledger) == README, "run `co3d update`"

"""The README keeps its word: the snippet prints what it says, and the tables are complete."""

import contextlib
import io
import re
import shlex

import click

from co3d import __main__ as command_line
from co3d import report
from co3d.paths import repo_root
from co3d.report import claims, notebooks, readme

UPDATE = "run `co3d update`"
README = (repo_root() / "README.md").read_text("utf-8")


def test_the_snippets_run_and_print_what_the_readme_says():
    snippets = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    expected = "".join(re.findall(r"```text\n(.*?)```", README, re.DOTALL))
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for code in snippets:
            assert len(code.strip().splitlines()) <= 12
            names = {}
            exec(compile(code, "README.md", "exec"), names)
            classes = names["model"].classifier.out_features
            assert "scores" in names or names["logits"].shape == (1, classes)
    assert len(snippets) == 3 and printed.getvalue() == expected


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


def written():
    """The lines of `co3d` in the README's text and listings, each as words."""
    listings = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    texts = [text for language, text in listings.findall(README) if not language]
    lines = [line.partition("#")[0] for text in texts for line in text.splitlines()]
    lines += re.findall(r"`([^`\n]+)`", listings.sub("", README))
    matches = (re.search(r"(?:^|[\s;])co3d ([a-z].*)", line) for line in lines)
    return [shlex.split(match[1]) for match in matches if match]


def test_the_commands_in_the_readme_exist_with_their_options():
    seen = set()
    for words in written():
        command = command_line.cli
        while isinstance(command, click.Group) and words:
            seen.add(words[0])
            command = command.commands[words.pop(0)]
        options = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
        assert {word for word in words if word.startswith("-")} <= options, (command.name, words)
    assert {"download", "convert", "evaluate", "stream", "bench", "train"} <= seen

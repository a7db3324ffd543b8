"""Pieces of HTML: a document, the frame of a page, links, tables, lists of terms."""

import posixpath
import re
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

from pygments.formatters import HtmlFormatter

from ..style import FAMILY_COLORS

GENERATOR = "co3d site"
TOP = {
    "index.html": "Start",
    "models.html": "Models",
    "figures.html": "Figures",
    "results.html": "Results",
    "claims.html": "Claims",
    "data.html": "Data",
    "api.html": "API",
}
NUMBER = re.compile(r"[~<]? ?[-+]?[\d,]*\.?\d+(e[-+]?\d+)?( ±[\d.]+)?\*?")
WIDE = 32  # characters; longer cells wrap


class Html(str):
    """Markup; any other text is escaped."""


def text(value: object) -> Html:
    """The value as markup, escaped unless it is markup; "" for None."""
    if isinstance(value, Html):
        return value
    return Html("" if value is None else escape(str(value)))


def code(value: object) -> Html:
    """The value as code."""
    return Html(f"<code>{text(value)}</code>")


def relative(target: str, at: str) -> str:
    """The link from the page `at` to `target`, both paths in the site."""
    path, mark, anchor = target.partition("#")
    return (posixpath.relpath(path, posixpath.dirname(at) or ".") if path else "") + mark + anchor


def link(words: object, target: str, at: str = "") -> Html:
    """A link: to an address as it is, else from the page `at` to a path in the site."""
    if "://" not in target:
        target = relative(target, at)
    return Html(f'<a href="{escape(target)}">{text(words)}</a>')


def picture(target: str, at: str, alt: str, lazy: bool = False) -> Html:
    """An image of the site."""
    late = ' loading="lazy"' if lazy else ""
    return Html(f'<img src="{escape(relative(target, at))}" alt="{escape(alt)}"{late}>')


def scroller(markup: str) -> Html:
    """What is too wide for a phone moves in its own box, also by keyboard."""
    return Html(f'<div class="scroller" tabindex="0">{markup}</div>\n')


def table(
    caption: object,
    head: Sequence[object],
    rows: Iterable[Sequence[object]],
    *,
    named: bool = False,
    stacked: bool = False,
) -> Html:
    """A table with a caption; blank columns are left out, columns of numbers aligned right.

    Args:
        named: whether the first cell of a row is its name, which stays in sight on a phone.
        stacked: whether a row becomes a list there, each cell behind the head of its column.
    """
    cells = [[text(cell) for cell in row] for row in rows]
    if not cells:
        return Html(f"<p>{text(caption)} There are no rows so far.</p>\n")
    kept = [n for n in range(len(head)) if any(row[n] for row in cells)]
    numbers = {n for n in kept if all(not r[n] or NUMBER.fullmatch(r[n]) for r in cells)}

    def kind(n: int, content: Html) -> str:
        wide = len(re.sub("<[^>]*>", "", content)) > WIDE
        return ' class="number"' if n in numbers else ' class="wide"' if wide else ""

    def cell(n: int, content: Html) -> str:
        if named and n == 0:
            return f'<th scope="row"{kind(n, content)}>{content}</th>'
        label = f' data-head="{text(head[n])}"' if stacked and content else ""
        return f"<td{kind(n, content)}{label}>{content}</td>"

    top = "".join(f'<th scope="col"{kind(n, text(head[n]))}>{text(head[n])}</th>' for n in kept)
    body = "\n".join(f"<tr>{''.join(cell(n, row[n]) for n in kept)}</tr>" for row in cells)
    look = "named" if named else "stacked" if stacked else "plain"
    return scroller(
        f'<table class="{look}"><caption><span>{text(caption)}</span></caption>\n'
        f"<thead><tr>{top}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"
    )


def terms(pairs: Iterable[tuple[object, object]]) -> Html:
    """A list of terms, each with what it means here; those without are left out."""
    shown = [(text(term), text(meaning)) for term, meaning in pairs]
    rows = (f"<dt>{term}</dt><dd>{meaning}</dd>\n" for term, meaning in shown if meaning)
    return Html(f"<dl>\n{''.join(rows)}</dl>\n")


def bullets(lines: Iterable[object]) -> Html:
    """A list."""
    items = "".join(f"<li>{text(line)}</li>\n" for line in lines)
    return Html(f"<ul>\n{items}</ul>\n")


def swatch(family: str) -> Html:
    """A dot in the colour that a family of networks has in all figures."""
    return Html(f'<span class="swatch" style="background:{FAMILY_COLORS[family]}"></span>')


def styles() -> str:
    """The one style sheet, the colours of code included."""
    own = (files(__package__) / "style.css").read_text("utf-8")
    light = HtmlFormatter(style="default").get_style_defs(".highlight")
    dark = HtmlFormatter(style="github-dark").get_style_defs(".highlight")
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n{own}"


def document(title: str, body: str, head: str) -> str:
    """A whole HTML document."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="generator" content="{GENERATOR}">\n'
        f"<title>{escape(title)}</title>\n{head}\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def page(title: str, body: str, at: str) -> str:
    """The page of the site at the path `at`, with the way to all others; `body` has its heading."""
    here = ' aria-current="page"'
    ways = "\n".join(
        f'<a href="{relative(target, at)}"{here if target == at else ""}>{name}</a>'
        for target, name in TOP.items()
    )
    frame = (
        '<a class="skip" href="#content">Skip to content</a>\n'
        f'<header><nav aria-label="Site">\n{ways}\n</nav></header>\n'
        f'<main id="content">\n{body}\n</main>\n'
        "<footer><p>Published and measured numbers are kept apart on every page: published are "
        "those of the paper, measured those of the machine that is named with them.</p></footer>"
    )
    # a favicon of no bytes: otherwise a browser asks the server for one
    head = f'<link rel="stylesheet" href="{relative("style.css", at)}">\n'
    head += '<link rel="icon" href="data:,">'
    name = title if at == "index.html" else f"{title} · Continual 3D CNNs"
    return document(name, frame, head)

"""Whether a folder of pages is whole: links and anchors resolve, nothing comes from elsewhere."""

import posixpath
from collections.abc import Mapping
from html.parser import HTMLParser
from urllib.parse import unquote

LOADED = {"src", "srcset", "poster", "data", "background"}


class _Page(HTMLParser):
    """The ids of a page, the addresses that it links to, and those that it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.linked: list[str] = []
        self.loaded: list[str] = []
        self.bare: list[str] = []  # images without alternative text
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        self.ids += [values["id"]] if "id" in values else []
        if tag == "img" and not values.get("alt"):
            self.bare.append(values.get("src", ""))
        for name, value in values.items():
            if name in LOADED or (tag == "link" and name == "href"):
                self.loaded.append(value)
            elif name == "href":
                self.linked.append(value)
        if tag == "script":
            self.loaded.append(values.get("src") or "a script")


def problems(files: Mapping[str, str | bytes]) -> list[str]:
    """All that is wrong with the site, as sentences; empty if nothing is.

    Args:
        files: the content of each file by its path in the site.
    """
    pages = {path: _Page(text) for path, text in files.items() if isinstance(text, str)
             and path.endswith(".html")}  # fmt: skip
    found = []
    for at, page in pages.items():
        found += [f"{at} has the id {one!r} twice" for one in _repeated(page.ids)]
        found += [f"{at} shows {one[:60]!r} without alternative text" for one in page.bare]
        for address in page.loaded:
            if address.startswith("data:"):
                continue
            if _elsewhere(address) or _path(at, address) not in files:
                found.append(f"{at} loads {address!r}, which is not in the site")
        for address in page.linked:
            if _elsewhere(address):
                continue
            path, anchor = _path(at, address), address.partition("#")[2]
            if path not in files:
                found.append(f"{at} links to {address!r}, which is not in the site")
            elif anchor and path in pages and not {anchor, unquote(anchor)} & {*pages[path].ids}:
                found.append(f"{at} links to {address!r}, but there is no such place")
    return found


def _path(at: str, address: str) -> str:
    path = unquote(address.partition("#")[0])
    return posixpath.normpath(posixpath.join(posixpath.dirname(at), path)) if path else at


def _elsewhere(address: str) -> bool:
    return "://" in address or address.startswith(("//", "mailto:"))


def _repeated(ids: list[str]) -> list[str]:
    return sorted({one for one in ids if ids.count(one) > 1})

"""The site in a real browser: on a desk and a phone, from a folder and a server's subpath."""

import functools
import http.server
import shutil
import subprocess
import sys
import threading

import pytest

from co3d.paths import repo_root

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here"),
]
WIDTHS = (1280, 390)  # pixels
SEEN = """async () => {
    const images = [...document.images]
    images.forEach(image => { image.loading = "eager" })
    await Promise.all(images.map(image => image.decode().catch(() => null)))
    return {
        broken: images.filter(image => !image.naturalWidth).map(image => image.src),
        over: document.scrollingElement.scrollWidth - innerWidth,
        cut: [...document.querySelectorAll(".stacked")].map(table => table.parentElement)
            .filter(box => box.scrollWidth > box.clientWidth)
            .map(box => box.innerText.slice(0, 60)),
    }
}"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The site of this repository, two folders deep."""
    out = tmp_path_factory.mktemp("served") / "some" / "where"
    out.parent.mkdir()
    command = [sys.executable, "-m", "co3d", "site", "--out", str(out)]
    done = subprocess.run(command, cwd=repo_root(), capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return out


@pytest.fixture
def places(folder):
    """Where the site is found: as files, and under a server's path."""
    handler = functools.partial(Quiet, directory=folder.parent.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield {"file": folder.as_uri(), "http": f"http://127.0.0.1:{server.server_port}/some/where"}
        server.shutdown()
        thread.join()


def test_no_page_is_heavy(folder):
    heavy = {p.name: p.stat().st_size for p in folder.rglob("*.html") if p.stat().st_size > 700_000}
    assert not heavy


@pytest.mark.parametrize("place", ["file", "http"])
def test_every_page_is_whole_and_fits(folder, places, place):
    from playwright.sync_api import sync_playwright

    base, wrong = places[place], []
    with sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("console", lambda message: wrong.append(f"{page.url}: {message.text}"))
        page.on("pageerror", lambda error: wrong.append(f"{page.url}: {error}"))
        page.on("requestfailed", lambda request: wrong.append(f"failed: {request.url}"))
        page.on("request", lambda request: request.url.startswith((base, "data:"))
                or wrong.append(f"{page.url} asks for {request.url}"))  # fmt: skip
        page.on("response", lambda response: response.status < 400
                or wrong.append(f"{response.status}: {response.url}"))  # fmt: skip
        paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.html"))
        assert len(paths) > 50
        for path in paths:
            page.goto(f"{base}/{path}")
            for width in WIDTHS:
                page.set_viewport_size({"width": width, "height": 900})
                seen = page.evaluate(SEEN)
                wrong += [f"{path}: broken {image}" for image in seen["broken"]]
                wrong += [f"{path}: {seen['over']} px too wide at {width}"] * (seen["over"] > 0)
                wrong += [f"{path}: at {width} a stacked table is cut: {c}" for c in seen["cut"]]
        browser.close()
    assert not wrong

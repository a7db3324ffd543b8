"""JupyterLab as a reader has it: `co3d lab` and a browser that opens notebooks, runs all of their
cells, and moves a slider.

`pytest -m slow tests/test_jupyterlab.py` is the whole of it. A picture of a page on which
something failed stays in pytest's temporary folder.
"""

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from typing import NamedTuple

import nbformat
import pytest
from playwright.sync_api import expect, sync_playwright

from co3d.paths import cache_path, repo_root

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
                None)  # fmt: skip
pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("jupyterlab"),  # one server
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},  # all cells are in the page
}
OPTIONS = ("--no-browser", "--ServerApp.port_retries=0", "--LabApp.news_url=None",
           "--LabApp.extension_manager=readonly",
           "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate")  # fmt: skip
PATIENCE = 600_000  # ms; a machine may be busy
CELLS = ".jp-NotebookPanel:not(.lm-mod-hidden) .jp-CodeCell"


class Lab(NamedTuple):
    """A server: its address, its token, and the clone that it serves."""

    url: str
    token: str
    folder: object


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """`co3d lab` in a copy of the repository, so that the clone stays as it is."""
    folder = tmp_path_factory.mktemp("jupyterlab")
    clone, home = folder / "clone", folder / "jupyter"
    for name in ("co3d", "notebooks"):
        shutil.copytree(repo_root() / name, clone / name,
                        ignore=shutil.ignore_patterns("__pycache__", ".*"))  # fmt: skip
    shutil.copy(repo_root() / "pyproject.toml", clone)
    for name, values in SETTINGS.items():
        file = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    foreign = home / "data" / "kernels" / "python3"  # a kernel that another environment left
    foreign.mkdir(parents=True)
    spec = {"argv": ["false"], "display_name": "Another Python", "language": "python"}
    (foreign / "kernel.json").write_text(json.dumps(spec))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    own = {
        "JUPYTER_TOKEN": token,
        "JUPYTER_CONFIG_DIR": home / "config",
        "JUPYTER_DATA_DIR": home / "data",
        "JUPYTER_RUNTIME_DIR": home / "runtime",
        "JUPYTERLAB_SETTINGS_DIR": home / "settings",
        "JUPYTERLAB_WORKSPACES_DIR": home / "workspaces",
        "IPYTHONDIR": home / "ipython",
        "LOGS_PATH": folder / "runs",
        "CACHE_PATH": cache_path(),
        "PYTHONPATH": clone,
    }
    command = [sys.executable, "-m", "co3d", "lab", *OPTIONS, f"--ServerApp.port={port}"]
    command += ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    environment = os.environ | {name: str(value) for name, value in own.items()}
    with (folder / "log.txt").open("wb") as log:
        server = subprocess.Popen(command, cwd=clone, env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(server, f"{url}/api?token={token}", folder / "log.txt")
        yield Lab(url, token, clone)
    finally:
        server.kill()  # its kernels end themselves once they have no parent
        server.wait()


def wait_for(server, address, log):
    """Until the server answers; with its log if it ends first."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while server.poll() is None:
        try:
            with opener.open(address, timeout=10):
                return
        except OSError:
            time.sleep(0.25)
    pytest.fail(f"co3d lab does not answer:\n{log.read_text()[-3000:]}")


@contextmanager
def opened(lab, name, folder):
    """The page of a notebook, once its kernel waits; what it complains of fails the test."""
    faults = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--no-proxy-server", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: message.type == "error" and faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: re.match(rf"{lab.url}/|data:|blob:", request.url)
                or faults.append(f"asks for {request.url}"))  # fmt: skip
        try:
            page.goto(f"{lab.url}/lab/tree/{name}.ipynb?reset&token={lab.token}")
            wait_until_idle(page)
            yield page
            assert not faults, faults
        except BaseException:
            page.screenshot(path=folder / f"{name}.png")
            raise
        finally:
            browser.close()


def wait_until_idle(page):
    page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").first.wait_for()


def run_all(page, count):
    """Runs all cells; the code cells of the page, none of which failed."""
    cells = page.locator(CELLS)
    expect(cells).to_have_count(count)
    for menu, entry in (("Edit", "Clear Outputs of All Cells"), ("Run", "Run All Cells")):
        page.get_by_role("menubar").get_by_text(menu, exact=True).click()
        page.locator(".lm-Menu-itemLabel").get_by_text(entry, exact=True).click()
    failed = f'{CELLS} [data-mime-type="application/vnd.jupyter.error"]'
    page.wait_for_function(
        """([cells, failed]) => document.querySelector(failed)
            || [...document.querySelectorAll(cells + " .jp-InputArea-prompt")]
                .every(prompt => /^\\[\\d+\\]:$/.test(prompt.textContent))""",
        arg=[CELLS, failed],
    )
    assert page.locator(failed).all_inner_texts() == []
    wait_until_idle(page)
    return cells


def pictures(output):
    """How many pixels wide each picture is, and its address."""
    output.locator("img").first.wait_for()
    return [image.evaluate("i => [i.naturalWidth, i.src]") for image in output.locator("img").all()]


def has_picture(cell):
    data = (output.get("data", {}) for output in cell.get("outputs", ()))
    return any(kind.startswith("image/") for kinds in data for kind in kinds)


def run_and_look(lab, name, page):
    """Runs a notebook; its code cells, each with the pictures that the repository's copy has."""
    notebook = nbformat.read(lab.folder / "notebooks" / f"{name}.ipynb", 4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    cells = run_all(page, len(code))
    shown = [number for number, cell in enumerate(code) if has_picture(cell)]
    for number in shown:
        assert all(width > 0 for width, _ in pictures(cells.nth(number)))
    assert len(shown) > 2
    return cells


def test_start_here_shows_its_figures_and_a_match(lab, tmp_path):
    name = "00_start_here"
    with opened(lab, name, tmp_path) as page:
        cells = run_and_look(lab, name, page)
        printed = cells.locator(".jp-OutputArea-output").filter(has_text="match: True")
        expect(printed).to_be_visible()


def test_a_slider_of_continual_convolution_changes_its_picture(lab, tmp_path):
    """By its handle and the arrow keys, as from the keyboard alone."""
    name = "01_continual_convolution"
    with opened(lab, name, tmp_path) as page:
        cells = run_and_look(lab, name, page)
        cell = cells.filter(has=page.locator(".noUi-handle")).first
        before = pictures(cell)
        handle = cell.locator(".noUi-handle").first
        handle.focus()
        handle.press("ArrowRight")
        expect(cell.locator("img").first).not_to_have_attribute("src", before[0][1])

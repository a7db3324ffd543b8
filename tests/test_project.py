"""The repository agrees with itself: pins, environments, lint, layers, no trace of a machine."""

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import co3d
from co3d.paths import repo_root

ROOT = repo_root()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def tool(*command, **options):
    """Runs a module with this interpreter in the repository; its output, once it succeeded."""
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, text=True,
                          capture_output=True, **options)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tracked():
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git clone")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def pins():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def test_pins_are_exact_without_local_versions_and_satisfy_the_ranges():
    assert pins()["torch"] == "2.13.0"
    assert all(re.fullmatch(r"[0-9]+(\.[0-9a-z]+)*", version) for version in pins().values())
    extras = PROJECT["optional-dependencies"].values()
    for text in [*PROJECT["dependencies"], *(text for extra in extras for text in extra)]:
        wanted = Requirement(text)
        assert wanted.specifier.contains(pins()[canonicalize_name(wanted.name)]), text


def test_everything_that_the_project_pulls_in_is_pinned():
    seen, todo = set(), [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    while todo:
        wanted = Requirement(todo.pop())
        name = canonicalize_name(wanted.name)
        extra = {"extra": next(iter(wanted.extras), "")}
        if name in seen or (wanted.marker and not wanted.marker.evaluate(extra)):
            continue
        seen.add(name)
        todo += metadata.requires(wanted.name) or []
    assert seen <= pins().keys(), f"not in constraints.txt: {seen - pins().keys()}"
    installed = {name: metadata.version(name).split("+")[0] for name in seen}
    assert installed == {name: pins()[name] for name in seen}


def test_the_dependencies_are_those_that_are_imported():
    """co3d also imports what is optional, where it is used: runtimes, and a library to compare."""
    names = {"PIL": "pillow", "yaml": "pyyaml", "continual": "continual-inference"}
    names["sklearn"] = "scikit-learn"
    for folder, extra, optional, indirect in (
        ("co3d", [], ["cluster", "deploy", "dev"], {"jupyterlab", "seaborn"}),  # a notebook's
        ("tests", ["dev"], [], {"jupyterlab", "import-linter", "ruff", "setuptools"}),
    ):
        extras = PROJECT["optional-dependencies"]
        texts = PROJECT["dependencies"] + [text for e in extra for text in extras[e]]
        declared = {canonicalize_name(Requirement(text).name) for text in texts}
        more = [text for e in optional for text in extras[e]]
        allowed = declared | {canonicalize_name(Requirement(text).name) for text in more}
        imported = {names.get(name, name) for name in top_level_imports(ROOT / folder)}
        imported = {canonicalize_name(name) for name in imported}
        assert imported <= allowed, f"{folder}/ imports what is not declared"
        if folder == "co3d":
            assert declared - imported <= indirect, "declared, but not imported"


def top_level_imports(folder):
    """Names of the third-party packages that the folder's modules import."""
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module.split(".")[0])
    local = {"co3d", "standin", *(path.stem for path in (ROOT / "tests").glob("*.py"))}
    return found - set(sys.stdlib_module_names) - local


def test_ruff_finds_nothing():
    tool("ruff", "check", "--no-cache", ".")


def test_files_and_functions_of_the_package_are_short():
    long = {}
    for path in (ROOT / "co3d").rglob("*.py"):
        text = path.read_text("utf-8")
        name = path.relative_to(ROOT).as_posix()
        long[name] = text.count("\n") - 350
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                long[f"{name}:{node.lineno}"] = node.end_lineno - node.lineno + 1 - 75
    assert not {name for name, over in long.items() if over >= 0}


def test_imports_point_one_way():
    command = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_tracked_files_name_no_machine():
    path = re.compile(rb"(?<![\w.~/:-])/(work|root|home|tmp|Users|mnt)/\w|site-packages/\w")
    host = re.compile(
        rb"(pypi\.org|pythonhosted\.org|download\.pytorch\.org(?!/models/)|localhost:\d)"
    )
    mine = {Path(__file__), ROOT / "tests" / "test_notebooks.py", ROOT / "co3d/report/rules.py"}
    found = {
        str(file.relative_to(ROOT)): match[0]
        for file in tracked()
        if file not in mine
        for pattern in (path, host)
        if (match := pattern.search(file.read_bytes()))
    }
    assert not found


def test_nothing_big_or_generated_is_tracked():
    sizes = {file.relative_to(ROOT): file.stat().st_size for file in tracked()}
    assert not [name for name, size in sizes.items() if size > 4_000_000]
    generated = {".mp4", ".pyc", ".part", ".pt", ".npy"}
    assert not [name for name in sizes if name.suffix in generated or name.name == ".env"]


def test_importing_and_asking_for_help_creates_no_folder(tmp_path):
    places = {name: str(tmp_path / name) for name in ("CACHE_PATH", "LOGS_PATH")}
    code = "import co3d, co3d.report, co3d.report.notebooks; co3d.list_models()"
    environment = {**os.environ, **places, "HOME": str(tmp_path)}
    environment["MPLCONFIGDIR"] = str(tmp_path.parent)  # matplotlib's own cache is not ours
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
    assert not list(tmp_path.iterdir())


def test_the_command_is_the_module():
    assert tool("co3d", "--help").startswith("Usage: co3d")
    assert tool("co3d", "--version").strip().endswith(co3d.__version__)
    (script,) = metadata.entry_points(group="console_scripts", name="co3d")
    assert script.value == "co3d.__main__:main"


def test_a_wheel_holds_all_that_the_package_reads(tmp_path):
    package = ROOT / "co3d"
    files = {
        str(path.relative_to(ROOT))
        for path in package.rglob("*")
        if path.suffix in {".css", ".py", ".txt", ".safetensors"}
    }
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("co3d", "pyproject.toml", "LICENSE", "README.md"):
        (copy / name).symlink_to(ROOT / name)
    tool("pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(copy))
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert files <= set(archive.namelist())

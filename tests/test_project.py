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


def output(*command):
    """What a command prints in the repository, once it succeeded."""
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tracked():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git clone")
    names = output("git", "ls-files", "-z").split("\0")
    return [ROOT / name for name in names if (ROOT / name).is_file()]


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
    seen, todo = {}, [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    for text in todo:  # grows
        wanted = Requirement(text)
        name, extra = canonicalize_name(wanted.name), {"extra": next(iter(wanted.extras), "")}
        if name not in seen and (not wanted.marker or wanted.marker.evaluate(extra)):
            seen[name] = metadata.version(name).split("+")[0]
            todo += metadata.requires(name) or []
    assert seen.items() <= pins().items(), f"not as in constraints.txt: {seen}"


def test_what_the_package_imports_is_declared():
    names = {"PIL": "pillow", "yaml": "pyyaml", "sklearn": "scikit-learn",
             "continual": "continual-inference"}  # fmt: skip
    extras = PROJECT["optional-dependencies"].values()
    texts = [*PROJECT["dependencies"], *(text for extra in extras for text in extra)]
    imported = set()
    for path in (ROOT / "co3d").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.split(".")[0])
    imported -= {"co3d", *sys.stdlib_module_names}
    imported = {canonicalize_name(names.get(name, name)) for name in imported}
    assert imported <= {canonicalize_name(Requirement(text).name) for text in texts}


def test_files_and_functions_of_the_package_are_short():
    for path in (ROOT / "co3d").rglob("*.py"):
        text = path.read_text("utf-8")
        assert text.count("\n") <= 350, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 75, f"{path}: {node.name}"


def test_ruff_finds_nothing_and_imports_point_one_way():
    output(sys.executable, "-m", "ruff", "check", "--no-cache", ".")
    output(Path(sys.executable).with_name("lint-imports"), "--no-cache")


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
    for file in tracked():
        assert file.stat().st_size <= 4_000_000, file
        assert file.suffix not in {".mp4", ".pyc", ".part", ".pt", ".npy"}, file
        assert file.name != ".env", file


def test_importing_and_asking_for_help_creates_no_folder(tmp_path):
    places = {name: str(tmp_path / name) for name in ("CACHE_PATH", "LOGS_PATH")}
    code = "import co3d, co3d.report, co3d.report.notebooks; co3d.list_models()"
    environment = {**os.environ, **places, "HOME": str(tmp_path)}
    environment["MPLCONFIGDIR"] = str(tmp_path.parent)  # matplotlib's own cache is not ours
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
    assert not list(tmp_path.iterdir())


def test_the_command_is_the_module():
    assert output(sys.executable, "-m", "co3d", "--help").startswith("Usage: co3d")
    assert output(sys.executable, "-m", "co3d", "--version").strip().endswith(co3d.__version__)
    (script,) = metadata.entry_points(group="console_scripts", name="co3d")
    assert script.value == "co3d.__main__:main"


def test_a_wheel_holds_all_that_the_package_reads(tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("co3d", "pyproject.toml", "LICENSE", "README.md"):
        (copy / name).symlink_to(ROOT / name)
    options = ("-q", "--no-deps", "--no-build-isolation", "-w", tmp_path)
    output(sys.executable, "-m", "pip", "wheel", *options, copy)
    (wheel,) = tmp_path.glob("*.whl")
    kinds = {".cpp", ".py", ".toml", ".txt", ".safetensors"}
    paths = [path for path in (ROOT / "co3d").rglob("*") if path.suffix in kinds]
    assert {str(path.relative_to(ROOT)) for path in paths} <= {*zipfile.ZipFile(wheel).namelist()}

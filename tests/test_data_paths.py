from pathlib import Path

import pytest

from co3d import paths


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    for name in ("DATASETS_PATH", "LOGS_PATH", "CACHE_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(paths, "repo_root", lambda: tmp_path)
    monkeypatch.chdir(tmp_path)


def test_defaults_create_nothing(tmp_path):
    assert paths.datasets_path() is None
    assert paths.logs_path() == tmp_path / "runs"
    assert paths.cache_path() == Path.home() / ".cache" / "co3d"
    assert list(tmp_path.iterdir()) == []


def test_env_file_and_environment(tmp_path, monkeypatch):
    (tmp_path / ".env").write_text(
        '# folders\n\nDATASETS_PATH="/data/my sets"\nexport LOGS_PATH = logs\n#CACHE_PATH=/no\n'
    )
    assert paths.datasets_path() == Path("/data/my sets")
    assert paths.logs_path() == tmp_path / "logs"
    assert paths.cache_path() == Path.home() / ".cache" / "co3d"
    monkeypatch.setenv("LOGS_PATH", "/elsewhere")
    monkeypatch.setenv("CACHE_PATH", "~/cache")
    assert paths.logs_path() == Path("/elsewhere")
    assert paths.cache_path() == Path.home() / "cache"

"""One thread (so that times and sums do not depend on the machine), seeds, hypothesis' profile."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # also of processes that tests start

import pytest
import torch
from hypothesis import settings

settings.register_profile("co3d", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("co3d")
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def inline(monkeypatch):
    """Videos are decoded in this process, which saves the start of others."""
    from co3d.measure.workers import Processes

    monkeypatch.setattr(Processes, "results", lambda self, f, jobs: map(f, jobs))


@pytest.fixture(scope="session")
def exports(tmp_path_factory):
    """A folder in which `nets.exported` keeps the files of minis, each of which is made once."""
    return tmp_path_factory.mktemp("exports")

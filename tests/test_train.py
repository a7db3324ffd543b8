"""Training is seeded, and a stopped run goes on to the same weights."""

import json

import pytest
import torch
from safetensors.torch import load_file

import co3d
from co3d.data import synthetic
from co3d.train import Clips, Recipe, _rate, top1, train

RECIPE = Recipe(epochs=2, batch=6, warmup_epochs=1)


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CACHE_PATH", str(tmp_path / "cache"))


def _train(folder, **options):
    options = {"recipe": RECIPE, "limit": 12, "progress": False, **options}
    return train("x3d_mini", folder, **options)


def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    curve = _train(tmp_path / "whole")
    assert [row["epoch"] for row in curve] == [1, 2]
    checked = []

    def stop(*args):
        checked.append(args)
        raise KeyboardInterrupt

    monkeypatch.setattr("co3d.train.top1", lambda *args: stop() if checked else top1(*args))
    import co3d.train as module

    once = module._checkpoint
    monkeypatch.setattr(module, "_checkpoint", lambda *args: (once(*args), checked.append(1)))
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path / "parts")
    assert len(json.loads((tmp_path / "parts/curve.json").read_text())["curve"]) == 1
    assert not (tmp_path / "parts/weights.safetensors").exists()
    monkeypatch.undo()
    monkeypatch.setenv("CACHE_PATH", str(tmp_path / "cache"))
    assert _train(tmp_path / "parts") == curve
    whole, parts = (load_file(tmp_path / f / "weights.safetensors") for f in ("whole", "parts"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    assert not list(tmp_path.glob("*/*.part"))

    with pytest.raises(ValueError, match="belongs to a run of other settings"):
        _train(tmp_path / "parts", seed=1)
    model, _ = co3d.load("x3d_mini", tmp_path / "whole" / "weights.safetensors")
    assert model.weights.training_data == "synthetic-kinetics"
    clips = Clips(synthetic.dataset("val", limit=12, progress=False), "x3d_mini", progress=False)
    assert top1(model, clips) == curve[-1]["top1"]


def test_continual_nets_are_trained_as_their_twins(tmp_path):
    with pytest.raises(
        ValueError, match="expected a regular net, given cox3d_mini: train x3d_mini"
    ):
        train("cox3d_mini", tmp_path)


def test_the_learning_rate_rises_then_falls_to_zero():
    recipe = Recipe(epochs=10, lr=1.0, warmup_epochs=2)
    rates = [_rate(recipe, epoch / 4) for epoch in range(40)]
    peak = rates.index(max(rates))
    assert 0 < rates[0] < 0.02 and 4 <= peak <= 8 and rates[-1] < 0.01
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_damaged_runs_and_numbers_below_one_are_refused(tmp_path):
    (tmp_path / "last.pt").write_text("junk")
    with pytest.raises(ValueError, match="last.pt is not a whole checkpoint"):
        _train(tmp_path)
    for options in ({"recipe": Recipe(epochs=0)}, {"limit": 0}):
        with pytest.raises(ValueError, match="epochs and limit of 1 or more"):
            _train(tmp_path / "new", **options)

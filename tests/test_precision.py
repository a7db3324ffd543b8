"""Predictions in another number type against float32: what is counted, and over which videos."""

import dataclasses

import pytest
import torch

import co3d
from co3d.data import synthetic
from co3d.measure import precision
from co3d.report.schema import TABLES

N = 5


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CACHE_PATH", str(tmp_path_factory.mktemp("cache")))
        yield synthetic.dataset("val", limit=N, progress=False)


def rows(names, data, **options):
    return precision.rows(names, data, limit=N, progress=False, **options)


def test_streams_and_clip_nets_in_bfloat16_agree_nearly(data, monkeypatch):
    monkeypatch.setattr(precision, "BATCH", 2)  # the last one is smaller
    stream, clip = rows(["cox3d_mini", "x3d_mini"], data)
    for row in (stream, clip):
        assert set(row) == set(TABLES["precision"].own)
        assert (row["n_scored"], row["dtype"], row["limit"]) == (N, "bfloat16", N)
        assert 0 < row["max_prob_diff"] < 0.1 and row["top1_agreement"] >= 80
    assert (stream["window"], clip["window"]) == (16, None)


def test_the_same_number_type_gives_the_same(data):
    (row,) = rows(["coslow_mini"], data, dtype=torch.float32)
    assert row["top1_agreement"] == 100 and row["max_prob_diff"] < 1e-5


@pytest.mark.parametrize("name", ["coslow_mini", "slow_mini"])
def test_disagreement_is_counted(data, monkeypatch, name):
    def reversed_classes(net, example, dtype):
        twin = co3d.optimize(net, example, torch.float32)
        twin.classifier.weight.neg_()
        twin.classifier.bias.neg_()
        return twin

    monkeypatch.setattr(precision, "optimize", reversed_classes)
    (row,) = rows([name], data)
    assert row["top1_agreement"] == 0 and row["max_prob_diff"] > 0.1


def test_a_missing_video_is_left_out_and_too_few_or_many_classes_are_refused(data):
    gone = dataclasses.replace(data.videos[0], path=None)
    some = dataclasses.replace(data, videos=(gone, *data.videos[1:]))
    assert rows(["slow_mini"], some)[0]["n_scored"] == N - 1
    with pytest.raises(ValueError, match="expected videos that slow_mini can read"):
        rows(["slow_mini"], dataclasses.replace(data, videos=(gone,)))
    several = dataclasses.replace(data, multilabel=True)
    with pytest.raises(ValueError, match="expected one class per video"):
        rows(["slow_mini"], several)


def test_names_are_the_continual_nets_whose_weights_come_with_the_package():
    names = precision.names_with_weights("synthetic-kinetics")
    assert "cox3d_mini" in names and all(co3d.spec(name).continual for name in names)
    assert {f"co{co3d.spec(name).weights}" for name in names} == set(names)

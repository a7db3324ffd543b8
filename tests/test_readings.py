"""Which readings there are of which models, what they share, and what tells their runs apart."""

import dataclasses

import av
import numpy as np
import pytest
import torch
from nets import clip_net

import co3d
from co3d.data.dataset import Dataset
from co3d.measure import protocols, readings, transient
from co3d.measure.decoding import Decoded
from co3d.zoo.checkpoints import Weights

PAIR = ("x3d_mini", "cox3d_mini")


@pytest.fixture(scope="module")
def nets():
    return clip_net(0), clip_net(1)


def of(models, chosen, dataset="synthetic-kinetics", **options):
    return readings.readings(models, dataset, chosen, **options)


def decoded(some, length=64):
    """A video of so many random frames, of which each plan takes the first."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(3, length, 48, 48, generator=generator).numpy()
    plans = {reading.plan for reading in some}
    transforms = {transform for plan in plans for transform in plan.transforms}
    return Decoded(
        {plan: (tuple(range(plan.frames)),) for plan in plans},
        dict.fromkeys(plans, ("ok", "")),
        {transform: {n: n for n in range(length)} for transform in transforms},
        dict.fromkeys(transforms, frames),
        0.0,
    )


def test_nets_of_one_name_keep_their_own_readings(nets):
    models = [(name, net) for net in nets for name in PAIR]
    some = of(models, ["native", "steady"], controls=True)
    assert len(some) == 6 and len({id(reading.model) for reading in some}) == 4
    apart = of(models, ["native", "steady"])
    scores = [tuple(record["scores"]) for record in readings.predict(apart, decoded(apart))]
    assert len(set(scores)) == 4
    assert len({str(reading.header()) for reading in some}) == 6
    twice = of([*models, *models], ["native", "steady"], controls=True)
    assert len(twice) == 6


def test_streams_of_all_protocols_and_windows_share_one_pass(nets, monkeypatch):
    some = of([("cox3d_mini", nets[0])], ["first-valid", "steady"], windows=(16, 32))
    assert len(some) == 4
    video, passes = decoded(some), []
    apart = [readings.predict([reading], video)[0]["scores"] for reading in some]
    whole = readings.steps_of_windows

    def counted(*arguments, **options):
        passes.append(arguments[1])
        return whole(*arguments, **options)

    monkeypatch.setattr(readings, "steps_of_windows", counted)
    together = [record["scores"] for record in readings.predict(some, video)]
    assert passes == [{16, 32}]
    assert np.allclose(together, apart, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["x3d_mini", "slowfast_mini", "r2plus1d_mini"])
def test_the_optimised_step_predicts_as_the_net_itself(name, monkeypatch):
    if not readings.native_runs():
        pytest.skip("there is no C++ compiler here")
    some = of([(f"co{name}", clip_net(0, name=name))], ["steady"], windows=(16, 32))
    videos = [decoded(some, length=128), decoded(some, length=128)]
    videos[1].frames = {t: -frames for t, frames in videos[1].frames.items()}
    scores = {}
    for engine in ("native", "eager"):
        monkeypatch.setattr(readings, "native_runs", lambda engine=engine: engine == "native")
        assert {reading.header()["compute"]["engine"] for reading in some} == {engine}
        records = [readings.predict(some, video) for video in (*videos, videos[0])]
        assert records[0] == records[2] != records[1]  # each video begins anew
        scores[engine] = np.array([[one["scores"] for one in video] for video in records])
    away = abs(scores["native"] - scores["eager"]).max()
    assert 0 < away <= 3e-4 * abs(scores["eager"]).max()


def test_what_the_optimised_step_lacks_the_net_itself_computes(nets):
    some = of([("cox3d_mini", nets[0])], ["steady"], fill="replicate")
    some += transient.start_ups([("cox3d_mini", nets[0])], "made", 40)
    assert {reading.engine for reading in some} == {"eager"}


def slow(classes):
    net = co3d.create("slow_8x8_r50", num_classes=classes)
    net.weights = Weights("a test", "0" * 64, "charades", "none", scores="sigmoid")
    return [("slow_8x8_r50", net), ("coslow_8x8_r50", net)]


def test_the_usual_protocols_fit_on_charades():
    some = of(slow(157), protocols.usual("charades"), "charades")
    found = {(reading.plan.mode, reading.plan.protocol) for reading in some}
    assert found == {("clip", "paper"), ("stream", "first-valid"), ("stream", "steady")}


def test_what_fits_no_model_is_refused_with_the_reason():
    with pytest.raises(ValueError, match="first-valid or steady for a stream on Charades, given p"):
        of(slow(157)[1:], ["paper"], "charades")
    net = clip_net()
    with pytest.raises(ValueError, match="given native$"):
        of([("cox3d_mini", net)], ["native"])
    with pytest.raises(ValueError, match="paper, native, first-valid, steady, given 'best'"):
        of([("x3d_mini", net)], ["native", "best"])
    with pytest.raises(ValueError, match="expected a model, given none"):
        of([], ["native"])


def test_options_that_nothing_reads_are_refused(nets):
    for name, options in (("x3d_mini", {"fill": "zeros"}), ("cox3d_mini", {"position": 0.0})):
        with pytest.raises(ValueError, match=f"expected no {next(iter(options))} where no "):
            of([(name, nets[0])], ["native", "steady"], **options)
    some = of([(name, nets[0]) for name in PAIR], ["native", "steady"], fill="replicate", views=2)
    assert [(r.plan.views, r.plan.fill) for r in some] == [(2, None), (1, "replicate")]


def test_all_that_decides_a_prediction_is_in_the_header(nets):
    (reading,) = of([("x3d_mini", nets[0])], ["native"])
    header = reading.header()
    assert header["compute"] == {
        "device": "cpu",
        "engine": "eager",
        "dtype": "float32",
        "threads": 1,
        "chunk": readings.CHUNK,
        "torch": torch.__version__,
        "av": av.__version__,
    }
    assert header["plan"] == dataclasses.asdict(reading.plan)
    assert header["code"] == readings.code_hash() and header["weights"]["sha256"] == "0" * 64


def test_every_source_of_predictions_is_hashed():
    root = readings.Path(readings.__file__).parent.parent
    hashed = {path for pattern in readings.CODE for path in root.glob(pattern)}
    assert all(list(root.glob(pattern)) for pattern in readings.CODE)
    for name in ("nn/conv.py", "zoo/specs.py", "zoo/checkpoints.py", "data/video.py"):
        assert root / name in hashed
    own = {path for path in hashed if path.parent.name == "measure"}
    assert {path.stem for path in own} >= {"feeding", "plans", "decoding", "readings", "transient"}


def test_start_ups_need_one_class_per_video_of_the_models_own(nets, tmp_path):
    some = transient.start_ups([("cox3d_mini", nets[0])], "made", 40)
    for data, sentence in (
        (Dataset("made", "test", ("a",) * 12, (), multilabel=True), "one class per video"),
        (Dataset("made", "test", ("a", "b"), ()), "expected a model of the 2 classes"),
    ):
        with pytest.raises(ValueError, match=sentence):
            transient.evaluate(some, data, folder=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()

"""Which readings there are of which models, what tells their runs apart, and what they share."""

import numpy as np
import pytest
import torch
from nets import clip_net

import co3d
from co3d.data.dataset import Dataset
from co3d.measure import predict, protocols, readings, transient
from co3d.measure.equivalence import calibrate
from co3d.measure.frames import Frames
from co3d.measure.predict import steps_of_windows
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
    pictures = {number: frames[:, number] for number in range(length)}
    return Frames(
        dict.fromkeys(plans, ("ok", "")),
        {plan: (tuple(range(plan.frames)),) for plan in plans},
        {transform: pictures for plan in plans for transform in plan.transforms},
    )


def test_nets_of_one_name_keep_their_own_readings(nets):
    models = [(name, net) for net in nets for name in PAIR]
    some = of(models, ["native", "steady"], controls=True)
    assert len(some) == 6 and len({id(reading.model) for reading in some}) == 4
    apart = of(models, ["native", "steady"])
    scores = [tuple(record["scores"]) for record in predict.predict(apart, decoded(apart))]
    assert len(set(scores)) == 4
    assert len({str(reading.header) for reading in some}) == 6
    twice = of([*models, *models], ["native", "steady"], controls=True)
    assert len(twice) == 6


def test_streams_of_all_protocols_and_windows_share_one_pass(nets, monkeypatch):
    some = of([("cox3d_mini", nets[0])], ["first-valid", "steady"], windows=(16, 32))
    assert len(some) == 4
    video, passes = decoded(some), []
    apart = [predict.predict([reading], video)[0]["scores"] for reading in some]
    whole = predict.steps_of_windows

    def counted(*arguments, **options):
        passes.append(arguments[1])
        return whole(*arguments, **options)

    monkeypatch.setattr(predict, "steps_of_windows", counted)
    together = [record["scores"] for record in predict.predict(some, video)]
    assert passes == [{16, 32}]
    assert np.allclose(together, apart, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["x3d_mini", "slowfast_mini", "r2plus1d_mini"])
def test_the_optimised_step_predicts_as_the_net_itself(name, monkeypatch):
    if not readings.native_runs():
        pytest.skip("there is no C++ compiler here")
    some = of([(f"co{name}", clip_net(0, name=name))], ["steady"], windows=(16, 32))
    videos = [decoded(some, length=128), decoded(some, length=128)]
    for pictures in videos[1].pictures.values():
        pictures |= {number: -picture for number, picture in pictures.items()}
    scores = {}
    for engine in ("native", "eager"):
        monkeypatch.setattr(readings, "native_runs", lambda engine=engine: engine == "native")
        assert {reading.header["compute"]["engine"] for reading in some} == {engine}
        records = [predict.predict(some, video) for video in (*videos, videos[0])]
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


def test_each_crop_of_a_stream_is_a_stream_of_its_own(nets):
    (one,) = of([("cox3d_mini", nets[0])], ["steady"])
    (three,) = of([("cox3d_mini", nets[0])], ["steady"], crops=3)
    videos = [decoded([reading]) for reading in (one, three)]  # the same in every crop
    records = [predict.predict(*pair)[0] for pair in (([one], videos[0]), ([three], videos[1]))]
    logits = torch.tensor(records[0]["scores"])
    torch.testing.assert_close(torch.tensor(records[1]["scores"]), logits.softmax(0))


def test_start_ups_need_one_class_per_video_of_the_models_own(nets, tmp_path):
    some = transient.start_ups([("cox3d_mini", nets[0])], "made", 40)
    for data, sentence in (
        (Dataset("made", "test", ("a",) * 12, (), multilabel=True), "one class per video"),
        (Dataset("made", "test", ("a", "b"), ()), "expected a model of the 2 classes"),
    ):
        with pytest.raises(ValueError, match=sentence):
            transient.evaluate(some, data, folder=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


MINIS = ("x3d_mini", "slow_mini", "i3d_mini", "slowfast_mini", "r2plus1d_mini")


@pytest.fixture(scope="module", params=MINIS)
def twins(request):
    """A function from a window to a stream net, with shared random weights in float64."""
    torch.manual_seed(0)
    regular = co3d.create(request.param).double()
    calibrate(regular, torch.randn(4, 3, 16, 32, 32, dtype=torch.float64))
    gate = "frame" if regular.spec.gate else None
    return lambda window: co3d.continual(regular, gate=gate, window=window)


@pytest.mark.parametrize("fill", ["zeros", "replicate"])
@pytest.mark.parametrize("emit", ["valid", "always"])
def test_each_window_equals_its_own_stream(twins, fill, emit):
    clip = torch.randn(2, 3, 70, 32, 32, dtype=torch.float64)
    stride = twins(16).stride
    found = steps_of_windows(twins(stride), [16, 40, 64], clip, fill, emit, chunk=29)
    for window, logits in found.items():
        net = twins(window)
        expected, _ = net.steps(clip, net.begin(fill, emit))
        if expected is None:
            assert logits is None and window == 64 and emit == "valid"
            continue
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-10 * expected.abs().max())


def test_too_few_frames_give_none(twins):
    clip = torch.randn(1, 3, 4, 32, 32, dtype=torch.float64)
    net = twins(twins(16).stride)
    assert steps_of_windows(net, [16, 64], clip) == {16: None, 64: None}

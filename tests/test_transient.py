"""Start-up: which frame an output came at, rows, and outputs from the first frame on."""

import dataclasses

import pytest
import torch
from nets import clip_net

import co3d
from co3d.data import synthetic
from co3d.measure import transient

N, FRAMES = 4, 20


@pytest.fixture(scope="module")
def nets():
    return {name: clip_net(name=name) for name in ("x3d_mini", "r2plus1d_mini")}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CACHE_PATH", str(tmp_path_factory.mktemp("cache")))
        yield synthetic.dataset("val", limit=N, progress=False)


def start_ups(nets, frames=FRAMES, **options):
    models = [pair for name, net in nets.items() for pair in ((name, net), (f"co{name}", net))]
    return transient.start_ups(models, "synthetic-kinetics", frames, **options)


def evaluate(some, data, folder):
    return transient.evaluate(some, data, folder=folder, progress=False)[0]


def test_readings_are_of_continual_nets_with_both_fills(nets):
    some = start_ups(nets, windows=(None, 32))
    assert [(r.model.spec.name, r.model.window, r.plan.fill) for r in some] == [
        (name, window, fill)
        for name in ("cox3d_mini", "cor2plus1d_mini")
        for window in (16, 32)
        for fill in ("zeros", "replicate")
    ]
    for reading in some:
        assert (reading.plan.frames, reading.plan.fps, reading.plan.position) == (20, 15.0, 0.0)
        assert reading.plan.emit == "always" and reading.keys["protocol"] == "start-up"
    assert {r.plan.fps for r in start_ups(nets, fps=10.0)} == {10.0}


@pytest.mark.parametrize("frames", [8, 13, 18])
@pytest.mark.parametrize("name", ["x3d_mini", "i3d_mini", "slowfast_mini", "r2plus1d_mini"])
def test_outputs_know_the_newest_frame_that_they_have_seen(name, frames):
    (one,) = start_ups({name: clip_net(name=name)}, frames, fills=("zeros",))
    clip = torch.randn(1, 3, frames, 32, 32)
    others = clip.repeat(frames, 1, 1, 1, 1)
    for n in range(frames):
        others[n, :, n] += torch.randn(3, 32, 32)
    logits, _ = one.model.steps(torch.cat([clip, others]), one.model.begin(emit="always"))
    differences = (logits[1:] - logits[0]).abs().amax(1)  # (frame that is another, output)
    changed = differences > 1e-5 * logits.abs().max()
    newest = [1 + int(column.nonzero().max()) for column in changed.T]
    assert list(one.outputs(frames)) == newest
    assert newest[-1] > frames - one.model.stride


@torch.no_grad()
def test_only_shortcuts_that_wait_are_left_out():
    net = clip_net(name="slow_mini")
    alone = transient.without_waiting_shortcuts("coslow_mini", net)
    clip = torch.randn(2, 3, 16, 32, 32)
    expected = clip
    for name, stage in net.body.named_children():
        for block in stage if name in ("res3", "res4") else ():
            expected = block.activation(block.main(expected))
        expected = expected if name in ("res3", "res4") else stage(expected)
    expected = net.classifier(expected.flatten(1))
    torch.testing.assert_close(alone(clip), expected)
    assert (net(clip) - expected).abs().max() > 0.05 * expected.abs().max()


@torch.no_grad()
def test_rows_are_those_of_streams_that_always_emit(nets, data, tmp_path, inline):
    rows = evaluate(start_ups(nets), data, tmp_path)
    transform = co3d.transform_for("x3d_mini")
    clips = [transform(synthetic.decoded(video))[None, :, :FRAMES] for video in data.videos]
    found = {(row["model"], row["fill"], row["frames_seen"]): row for row in rows}
    assert len(found) == len(rows) == 2 * (FRAMES + FRAMES // 4)
    for name, net in nets.items():
        twin = co3d.continual(net, gate=co3d.spec(f"co{name}").gate, window=16)
        for fill in ("zeros", "replicate"):
            logits = torch.cat([twin.steps(c, twin.begin(fill, "always"))[0] for c in clips])
            labels = torch.tensor([video.class_id for video in data.videos])
            shares = 100 * (logits.argmax(1) == labels[:, None]).float().mean(0)
            own = [
                row for (model, of, _), row in found.items() if (model, of) == (f"co{name}", fill)
            ]
            assert [row["top1"] for row in own] == shares.tolist()
            assert {row["n_scored"] for row in own} == {N}


def test_missing_and_short_videos_leave_the_denominator(nets, data, tmp_path, inline):
    from co3d.report import results
    from co3d.report.origin import provenance

    videos = (dataclasses.replace(data.videos[0], path=None), *data.videos[1:])
    broken = dataclasses.replace(data, videos=videos)
    rows = evaluate(start_ups({"x3d_mini": nets["x3d_mini"]}), broken, tmp_path)
    assert {row["n_scored"] for row in rows} == {N - 1}
    results.write("transient", rows, tmp_path, provenance(notebook="a test", seed=0))
    assert len(results.read("transient", tmp_path)) == len(rows) == 2 * FRAMES
    some = start_ups({"x3d_mini": nets["x3d_mini"]}, 1000, fills=("zeros",))
    assert evaluate(some, data, tmp_path) == []

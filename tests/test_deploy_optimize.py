"""The optimised net: the same logits at the same frames, by both engines."""

import copy
import threading

import pytest
import torch
from nets import net_of, run

import co3d
from co3d.deploy.optimize import OptimizedStream
from co3d.measure.equivalence import calibrate
from co3d.nn import Conv3d, Linear, Residual, RunningWindow, Sequential, StreamNet

STREAMS = ["cox3d_mini", "coslow_mini", "coi3d_mini", "coslowfast_mini", "cor2plus1d_mini"]
SIZE = 40


def frames(count, batch=1):
    torch.manual_seed(1)
    return torch.randn(count, batch, 3, SIZE, SIZE)


def fast(net, engine="native", batch=1, **options):
    options = {"threads": 1, **options}
    return OptimizedStream(net, torch.zeros(batch, 3, SIZE, SIZE), engine=engine, **options)


def largest_difference(net, twin, clip):
    """Of the logits, relative to the largest; both predict at the same frames."""
    state, other, worst = None, None, 0.0
    for frame in clip:
        expected, state = net.step(frame, state)
        given, other = twin.step(frame, other)
        assert (given is None) == (expected is None)
        if expected is not None:
            difference = (given - expected).abs().max() / expected.abs().max()
            worst = max(worst, difference.item())
    assert expected is not None or net.stride > 1
    return worst


@pytest.mark.parametrize("engine", ["native", "torch"])
@pytest.mark.parametrize("name", STREAMS)
def test_every_step_equals_that_of_the_net(name, engine):
    net = net_of(name)
    twin = fast(net, engine)
    assert twin.engine == engine
    facts = ("receptive_field", "padding", "warmup", "stride", "window")
    assert all(getattr(twin, fact) == getattr(net, fact) for fact in facts)
    clip = frames(net.receptive_field + 2 * net.stride)
    assert largest_difference(net, twin, clip) < 3e-5


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    "name, options",
    [
        *((name, {"dense": True}) for name in ("coi3d_mini", "coslowfast_mini", "cor2plus1d_mini")),
        ("cox3d_mini", {"window": 40}),
    ],
)
def test_options_of_a_net_a_batch_and_threads_change_no_number(name, options, threads):
    net = net_of(name, **options)
    clip = frames(net.warmup + 20, batch=2)
    assert largest_difference(net, fast(net, batch=2, threads=threads), clip) < 3e-5


@pytest.mark.parametrize("name", STREAMS)
def test_bfloat16_gives_nearly_the_same_probabilities_in_half_the_state(name):
    net, _ = co3d.load(name, "synthetic-kinetics")
    clip = frames(net.receptive_field)
    example = clip[0]
    twin = co3d.optimize(net, example, torch.bfloat16, threads=1)
    expected = run(net, torch.stack(list(clip), 2), flush=False)
    given, state = twin.steps(torch.stack(list(clip), 2))
    assert given.dtype == torch.float32 and given.shape == expected.shape
    assert (given.softmax(1) - expected.softmax(1)).abs().max() < 0.1
    if twin.engine == "native":
        full = co3d.nn.state_bytes(fast(net).begin())
        assert co3d.nn.state_bytes(state) < 0.75 * full  # the first frames and the mean stay wide


def test_float64_is_exact_in_torch():
    net = net_of().double()
    clip = frames(net.receptive_field).double()
    twin = co3d.optimize(net, clip[0], torch.float64)
    assert twin.engine == "torch"
    assert largest_difference(net, twin, clip) < 1e-12


@pytest.mark.parametrize("engine", ["native", "torch"])
@pytest.mark.parametrize("name", STREAMS)
def test_a_nan_stays_nan_and_is_forgotten(name, engine):
    net = net_of(name)
    twin, clip = fast(net, engine), frames(3 * net.receptive_field)
    clip[net.receptive_field, 0, 1, 5, 7] = torch.nan
    state, seen = None, []
    for frame in clip:
        logits, state = twin.step(frame, state)
        seen += [] if logits is None else [bool(logits.isnan().any())]
    first, last = seen.index(True), len(seen) - 1 - seen[::-1].index(True)
    assert all(seen[first : last + 1]) and not seen[-1]
    assert (last - first + 1) * net.stride <= net.receptive_field + net.stride


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_a_step_consumes_the_state_and_a_clone_goes_its_own_way(engine):
    net = net_of("coi3d_mini")
    twin, clip = fast(net, engine), torch.stack(list(frames(net.receptive_field + 4)), 2)
    _, state = twin.steps(clip[:, :, :-4])
    fork = co3d.clone(state)
    before = {name: value for name, value in state.items()}
    first, _ = twin.steps(clip[:, :, -4:], state)
    twin.steps(torch.randn_like(clip))  # another stream in between
    second, _ = twin.steps(clip[:, :, -4:], fork)
    assert torch.equal(first, second)
    assert state == {} and before.keys() >= {"age", "layers"}
    with pytest.raises(ValueError, match="given one consumed"):
        twin.step(clip[:, :, 0], state)


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_a_state_is_saved_and_restored(tmp_path, engine):
    net = net_of("coslow_mini")
    twin, clip = fast(net, engine), frames(net.receptive_field + 3)
    state = None
    for frame in clip[:-3]:
        _, state = twin.step(frame, state)
    torch.save(state, tmp_path / "state.pt")
    restored = torch.load(tmp_path / "state.pt", weights_only=True)
    for frame in clip[-3:]:
        expected, state = twin.step(frame, state)
        given, restored = fast(net, engine).step(frame, restored)
        assert torch.equal(given, expected)


@pytest.mark.parametrize("engine", ["native", "torch"])
@pytest.mark.parametrize("name, ages", [("cox3d_mini", (60, 71)), ("coi3d_mini", (61, 75))])
def test_streams_of_other_ages_are_stacked_and_taken_apart(name, ages, engine):
    net = net_of(name)
    single, double = fast(net, engine), fast(net, engine, batch=2)
    clip = frames(90)
    states = []
    for n, age in enumerate(ages):
        state = None
        for frame in clip[n : n + age]:
            _, state = single.step(frame, state)
        states.append(state)
    both = co3d.stack([co3d.clone(state) for state in states])
    for frame in clip[-4:]:
        given, both = double.step(torch.cat([frame, -frame]), both)
        for n, sign in enumerate((1, -1)):
            expected, states[n] = single.step(sign * frame, states[n])
            if expected is not None:
                torch.testing.assert_close(given[n : n + 1], expected, rtol=0, atol=1e-4)
    for n, state in enumerate(co3d.unstack(both)):
        given, _ = single.step(clip[0], state)
        expected, _ = single.step(clip[0], states[n])
        if expected is not None:
            torch.testing.assert_close(given, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_streams_from_inference_mode_go_on_outside_of_it(engine):
    net, frame = net_of("cox3d_mini"), torch.randn(1, 3, SIZE, SIZE)
    one = OptimizedStream(net, frame, threads=1, engine=engine)
    two = OptimizedStream(net, frame.expand(2, -1, -1, -1), threads=1, engine=engine)
    with torch.inference_mode():
        states = [None, None]
        for n, frames in enumerate((60, 63)):  # their slots are others
            for _ in range(frames):
                logits, states[n] = one.step(frame, states[n])
        state = co3d.stack(states)
    for _ in range(2):
        both, state = two.step(frame.expand(2, -1, -1, -1), state)
        torch.testing.assert_close(both, logits.expand(2, -1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
def test_streams_in_several_threads_share_no_buffer(threads):
    net = net_of()
    twin, clip = fast(net, threads=threads), frames(net.warmup + 30)
    signs = (1, -1, 2, -2)

    def logits_of(sign):
        state, outputs = None, []
        for frame in clip:
            logits, state = twin.step(sign * frame, state)
            outputs += [] if logits is None else [logits]
        return torch.cat(outputs)

    expected, given = [logits_of(sign) for sign in signs], {}
    workers = [
        threading.Thread(target=lambda sign=sign: given.update({sign: logits_of(sign)}))
        for sign in signs
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for sign, alone in zip(signs, expected, strict=True):
        assert torch.equal(given[sign], alone)


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_the_original_the_frames_and_earlier_outputs_are_left_alone(engine):
    net = net_of()
    before = copy.deepcopy(net.state_dict())
    twin, clip = fast(net, engine), frames(net.warmup + 3)
    kept, stream, outputs = clip.clone(), co3d.Stream(twin), []
    for frame in clip:
        if (logits := stream(frame)) is not None:
            outputs.append((logits, logits.clone()))
    assert torch.equal(clip, kept)
    assert outputs and all(torch.equal(logits, copied) for logits, copied in outputs)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_a_camera_may_fill_the_same_memory_again(engine):
    torch.manual_seed(0)
    conv = Conv3d(4, 4, (3, 1, 1), padding=(1, 0, 0))
    body = Sequential(Residual(Sequential(conv)), RunningWindow(2))
    net = StreamNet(body, Linear(4, 3)).eval()
    memory = torch.zeros(1, 4, 5, 5).contiguous(memory_format=torch.channels_last)
    twin = OptimizedStream(net, memory, threads=1, engine=engine)
    state, other = net.begin(), twin.begin()
    for frame in torch.randn(6, 1, 4, 5, 5):
        memory.copy_(frame)
        expected, state = net.step(frame, state)
        given, other = twin.step(memory, other)
        assert (given is None) == (expected is None)
        if given is not None:
            torch.testing.assert_close(given, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda net, twin, x: twin.step(x[:, :, 1:]), ValueError, "for which the net was optimi"),
        (lambda net, twin, x: twin.step(x.double()), ValueError, "for which the net was optimised"),
        (lambda net, twin, x: twin.step([0]), TypeError, "expected a frame as a tensor"),
        (lambda net, twin, x: twin.step(x, net.begin()), TypeError, "expected a state from begin"),
        (
            lambda net, twin, x: twin.step(x, fast(net, batch=2).begin()),
            ValueError,
            "expected a state of .*1, 3, 40, 40.*2, 3, 40, 40",
        ),
        (
            lambda net, twin, x: twin.step(x, fast(net, "torch").begin()),
            ValueError,
            "of another engine",
        ),
        (
            lambda net, twin, x: twin.steps(x.unsqueeze(2), end=True),
            ValueError,
            "no padding behind",
        ),
        (
            lambda net, twin, x: twin.begin("replicate"),
            ValueError,
            "expected fill 'zeros' and emit",
        ),
        (lambda net, *_: fast(net, dtype=torch.float16), TypeError, "expected dtype in"),
        (lambda net, *_: fast(net, threads=0), ValueError, "expected 1 or more threads"),
        (lambda net, *_: fast(net, "fast"), ValueError, "expected engine in"),
        (lambda net, *_: fast(net.train()), ValueError, r"use \.eval"),
    ],
)
def test_what_does_not_fit_is_refused(call, error, words):
    net = net_of()
    with pytest.raises(error, match=words):
        call(net, fast(net), frames(1)[0])


def test_what_an_optimised_net_has_not_is_refused():
    net = net_of()
    twin = fast(net)
    for name in ("to", "state_dict", "parameters", "features"):
        with pytest.raises(AttributeError, match=f"has no {name}"):
            getattr(twin, name)
    with pytest.raises(TypeError, match="neither copied nor pickled"):
        copy.deepcopy(twin)
    clip = co3d.optimize(co3d.create("x3d_mini"), torch.zeros(1, 3, 16, SIZE, SIZE))
    with pytest.raises(TypeError, match="stays on cpu"):
        clip.double()


def test_the_setting_chooses_torch(monkeypatch):
    monkeypatch.setenv("CO3D_ENGINE", "torch")
    assert co3d.optimize(net_of(), frames(1)[0]).engine == "torch"


@pytest.mark.parametrize("name", ["cox3d_mini", "coi3d_mini"])
def test_the_compiled_step_equals_the_net(name):
    """As on a GPU, by a backend of the compiler that a CPU has."""
    net = net_of(name)
    twin, clip = fast(net, "torch"), frames(net.warmup + 2 * net.stride)
    twin._backend.compile(backend="aot_eager")
    assert largest_difference(net, twin, clip) < 3e-5


def test_a_clip_net_gives_the_same_logits():
    torch.manual_seed(0)
    net = co3d.create("x3d_mini")
    clip = torch.randn(1, 3, 16, SIZE, SIZE)
    calibrate(net, clip)
    expected = net(clip)
    for dtype, tolerance in ((torch.float32, 3e-5), (torch.bfloat16, 0.1)):
        given = co3d.optimize(net, clip, dtype)(clip)
        assert given.dtype == torch.float32
        assert (given - expected).abs().max() < tolerance * expected.abs().max()
    with pytest.raises(ValueError, match="for which the net was optimised"):
        co3d.optimize(net, clip)(clip[:, :, 1:])

"""All forms of the step: the same logits at the same frames, and states that go their own ways."""

import copy
import os
import threading
from functools import lru_cache

import pytest
import torch
from nets import (
    ENGINES,
    FORMS,
    MINIS,
    SIZE,
    STREAMS,
    SUFFIXES,
    assert_same,
    form_of,
    frames_of,
    logits_of,
    net_of,
)

import co3d
from co3d.deploy import OptimizedStream
from co3d.deploy.engines import Torch
from co3d.deploy.step import Explicit
from co3d.nn import Conv3d, Linear, Residual, RunningWindow, Sequential, StreamNet, state_bytes

pytestmark = pytest.mark.xdist_group("exports")  # each worker would make its own
FRAME = torch.zeros(1, 3, SIZE, SIZE)
AVX2, SSE = "-march=x86-64-v3", "-march=x86-64"
TARGETS = {AVX2: 8, SSE: 4} if os.uname().machine == "x86_64" else {}  # lanes of a vector
EXPORTED = ("cox3d_mini", "coi3d_mini", "coslowfast_mini")
TIMING = ("receptive_field", "padding", "warmup", "stride", "window")


def cases(names, forms):
    """Each name with each form; large nets and most exports are slow."""
    for name in names:
        for form in forms:
            is_quick = name in MINIS and (form not in SUFFIXES or name in EXPORTED)
            yield pytest.param(name, form, marks=() if is_quick else pytest.mark.slow)


@lru_cache(1)
def played(name):
    """A net, two clips, and its logits of each; frames smaller than a net's change no layer."""
    size = SIZE if name in MINIS else 64
    net = net_of(name, size)
    clips = [frames_of(net.receptive_field + 2 * net.stride, size=size)]
    clips.append(-clips[0][: net.warmup + net.stride])
    return net, clips, [logits_of(net, clip)[0] for clip in clips]


@pytest.mark.parametrize(
    "name, form",
    [*cases(STREAMS, (*FORMS, *TARGETS)), ("coi3d_mini", "openvino of ONNX")],
)
def test_every_form_gives_the_logits_of_the_net(name, form, exports, tmp_path):
    """Over warm-up, all phases and a new start."""
    net, clips, expected = played(name)
    folder = exports if name in MINIS else tmp_path
    tolerance = 3e-5 if name in MINIS else 3e-4 if name == "cox3d_l" else 1e-4
    twin = form_of(form, net, clips[0][0], folder, threads=2)
    assert all(getattr(twin, fact) == getattr(net, fact) for fact in TIMING)
    if form in TARGETS:
        assert twin._backend._library.co3d_lanes() == TARGETS[form]
    for clip, logits in zip(clips, expected, strict=True):
        assert_same(logits_of(twin, clip)[0], logits, tolerance)


@pytest.mark.parametrize(
    "options, channels_last",
    [({}, False), ({"dense": True}, True), ({"window": 32}, False)],
    ids=str,
)
@pytest.mark.parametrize("name", MINIS)
def test_the_explicit_step_equals_the_net_in_double_precision(name, options, channels_last):
    net = net_of(name, 32, **options).double()
    clip = frames_of(net.receptive_field + 2 * net.stride, size=32).double()
    twin = co3d.optimize(net, clip[0], torch.float64)
    assert twin.engine == "torch"
    twin._backend = Torch(Explicit(net, clip[0], channels_last), torch.float64, 1)
    assert_same(logits_of(twin, clip)[0], logits_of(net, clip)[0], 1e-12)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    "name, options",
    [(name, {"dense": True}) for name in MINIS if "x3d" not in name and "slow_" not in name]
    + [("cox3d_mini", {"window": 40})],
)
def test_options_of_a_net_a_batch_and_threads_change_no_number(name, options, threads):
    net = net_of(name, **options)
    clip = frames_of(net.warmup + 20, batch=2)
    twin = OptimizedStream(net, clip[0], threads=threads, engine="native")
    assert_same(logits_of(twin, clip)[0], logits_of(net, clip)[0])


@pytest.mark.parametrize("name", ["cox3d_mini", "coi3d_mini"])
def test_the_compiled_step_equals_the_net(name):
    """As on a GPU, by a backend of the compiler that a CPU has."""
    net = net_of(name)
    twin, clip = OptimizedStream(net, FRAME, engine="torch"), frames_of(net.warmup + 4)
    twin._backend.compile(backend="aot_eager")
    assert_same(logits_of(twin, clip)[0], logits_of(net, clip)[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, form, size, tolerance",
    [("cox3d_mini", "eager", 8, 1e-4), ("coslow_mini", "native", SIZE, 3e-5)],
)
@torch.no_grad()
def test_20000_frames_do_not_drift(name, form, size, tolerance, tmp_path):
    """float32 over a long stream against the unpadded net on the last frames alone."""
    net, frames = net_of(name, window=8), frames_of(97, size=size)
    model = net if form == "eager" else form_of(form, net, frames[0], tmp_path)
    state = None
    for number in range(20_000):
        logits, state = model.step(frames[number % 97], state)
    last = [frames[number % 97] for number in range(20_000 - net.receptive_field, 20_000)]
    assert_same([logits], [net(torch.stack(last, 2), pad=False)], tolerance)


@pytest.mark.parametrize("name, form", [*cases(MINIS, FORMS)])
@torch.no_grad()
def test_a_nan_stays_nan_and_is_forgotten(name, form, exports):
    net = net_of(name)
    field, rest = net.receptive_field, -(-2 * net.receptive_field // net.stride)
    twin, clip = form_of(form, net, FRAME, exports), frames_of(net.warmup + 1 + rest * net.stride)
    clip[field, 0, 1, 5, 7] = torch.nan
    outputs = [logits for logits in logits_of(twin, clip)[0] if logits is not None]
    seen = torch.stack(outputs).isnan().flatten(1).any(1)
    assert_same(outputs[-1:], [net(torch.stack(list(clip[-field:]), 2), pad=False)])
    if form == "openvino":  # whose ReLU of NaN is zero
        return
    (marked,) = seen.nonzero(as_tuple=True)
    first, last = marked[0].item(), marked[-1].item()
    assert seen[first : last + 1].all()
    assert (last - first + 1) * net.stride <= field + net.stride


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("form", FORMS)
def test_a_state_is_consumed_and_its_copies_go_their_own_ways(form, mode, exports, tmp_path):
    net = net_of("coi3d_mini")
    twins = [form_of(form, net, FRAME, exports) for _ in range(2)]
    clip = frames_of(net.receptive_field + 8)
    expected, _ = logits_of(net, clip)
    with mode():
        _, state = logits_of(twins[0], clip[:-7])
    torch.save(state, tmp_path / "state.pt")
    restored = torch.load(tmp_path / "state.pt", weights_only=True)
    copies = [co3d.clone(state), copy.deepcopy(state), restored]
    assert {state_bytes(one) for one in copies} == {state_bytes(state)}
    logits, _ = logits_of(twins[0], clip[-7:], state)
    assert_same(logits, expected[-7:])
    assert state == {}
    with pytest.raises(ValueError, match="given one consumed"):
        twins[0].step(clip[0], state)
    logits_of(twins[0], -clip)  # another stream in between
    for twin, copied in zip((twins[0], *twins), copies, strict=True):
        again, _ = logits_of(twin, clip[-7:], copied)
        assert_same(again, logits, 0)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name, ages", [("cox3d_mini", (60, 71)), ("coi3d_mini", (61, 75))])
def test_streams_of_other_ages_are_stacked_and_taken_apart(name, ages, engine, mode):
    net, clip = net_of(name), frames_of(90)
    single = OptimizedStream(net, FRAME, threads=1, engine=engine)
    double = OptimizedStream(net, FRAME.expand(2, -1, -1, -1), threads=1, engine=engine)
    with mode():
        states = [logits_of(single, clip[n : n + age])[1] for n, age in enumerate(ages)]
        both = co3d.stack([co3d.clone(state) for state in states])
    ends = [clip[-4:], -clip[-4:]]
    together, both = logits_of(double, torch.cat(ends, 1), both)
    for n, state in enumerate(co3d.unstack(both)):
        alone, states[n] = logits_of(single, ends[n], states[n])
        assert_same([y if y is None else y[n : n + 1] for y in together], alone, 1e-5)
        futures = [logits_of(single, clip[:2], one)[0] for one in (state, states[n])]
        assert_same(*futures, 1e-5)


@pytest.mark.parametrize("form, threads", [("native", 1), *((form, 2) for form in FORMS)])
def test_streams_in_several_threads_share_no_buffer(form, threads, exports):
    net = net_of()
    twin, clip = form_of(form, net, FRAME, exports, threads), frames_of(net.warmup + 30)
    signs, given = (1, -1, 2, -2), {}
    expected = {sign: logits_of(twin, sign * clip)[0] for sign in signs}

    def work(sign):
        given[sign] = logits_of(twin, sign * clip)[0]

    workers = [threading.Thread(target=work, args=[sign]) for sign in signs]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for sign in signs:
        assert_same(given[sign], expected[sign], 0)


@pytest.mark.parametrize("form", FORMS)
def test_the_original_the_frames_and_earlier_outputs_are_left_alone(form, exports):
    net = net_of()
    before = copy.deepcopy(net.state_dict())
    twin, clip = form_of(form, net, FRAME, exports), frames_of(net.warmup + 3)
    kept, stream, copies = clip.clone(), co3d.Stream(twin), []
    for frame in clip:
        logits = stream(frame)
        copies.append((logits, copy.deepcopy(logits)))
    assert torch.equal(clip, kept)
    outputs, copies = zip(*copies, strict=True)
    assert_same(outputs, copies, 0)
    stream.reset()
    assert_same([stream(frame) for frame in clip], copies, 0)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


@pytest.mark.parametrize("engine", ENGINES)
def test_a_camera_may_fill_the_same_memory_again(engine):
    conv = Conv3d(4, 4, (3, 1, 1), padding=(1, 0, 0))
    net = StreamNet(Sequential(Residual(Sequential(conv)), RunningWindow(2)), Linear(4, 3)).eval()
    memory = torch.zeros(1, 4, 5, 5).contiguous(memory_format=torch.channels_last)
    twin, clip = OptimizedStream(net, memory, threads=1, engine=engine), torch.randn(6, 1, 4, 5, 5)
    given, state = [], None
    for frame in clip:
        logits, state = twin.step(memory.copy_(frame), state)
        given.append(logits)
    assert_same(given, logits_of(net, clip)[0], 1e-5)

"""Steps that are noted and made again give the same bits as steps that are not."""

import pytest
import torch
from test_nn_optimize import fast, net_of

import co3d
from co3d.nn.optimize.recorded import PATIENCE, Recorded

NAMES = ["cox3d_mini", "coslow_mini", "coslowfast_mini", "cor2plus1d_mini"]


def frames_for(net, count, size=32):
    torch.manual_seed(1)
    dtype = next(net.parameters()).dtype
    return torch.randn(1, 3, count, size, size, dtype=dtype).unbind(2)


def plain(twin):
    """The twin, without notes."""
    for module in twin.modules():
        if isinstance(getattr(module, "begun", None), Recorded):
            module.begun = module.begun.push
    return twin


def noted(twin):
    """How many programs its chains have."""
    begun = [getattr(module, "begun", None) for module in twin.modules()]
    return [len(one.known) for one in begun if isinstance(one, Recorded)]


def same(given, expected):
    assert len(given) == len(expected) and any(y is not None for y in given)
    for one, other in zip(given, expected, strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.equal(one, other)


@pytest.mark.parametrize("name", NAMES)
def test_steps_and_flush_are_the_same_to_the_last_bit(name):
    net = net_of(name, torch.float32)
    frames = frames_for(net, net.receptive_field + 30)
    outputs = []
    for twin in (fast(net), plain(fast(net))):
        state, given = twin.begin(), []
        for frame in frames:
            y, state = twin.step(frame, state)
            given.append(y)
        given += twin.flush(state)[0].unbind(2)
        outputs.append(given)
        if not outputs[1:] and name != "coslowfast_mini":
            assert max(noted(twin)) >= 1  # steps did come from notes
    same(*outputs)


def test_a_stream_goes_on_after_another_one_and_after_a_fork():
    net = net_of("cox3d_mini", torch.float32)
    frames = frames_for(net, net.receptive_field + 40)
    outputs = []
    for twin in (fast(net), plain(fast(net))):
        given, state, other = [], twin.begin(), twin.begin("replicate")
        for n, frame in enumerate(frames):
            y, state = twin.step(frame, state)
            given.append(y)
            if 45 <= n < 50:  # two streams in turns
                y, other = twin.step(frame, other)
            if n == 58:
                fork = co3d.clone(state)
        for frame in frames[:12]:
            (y, state), (z, fork) = twin.step(frame, state), twin.step(-frame, fork)
            given += [y, z]
        outputs.append(given)
    same(*outputs)


def test_a_step_that_fails_can_be_taken_again():
    net = net_of("cox3d_mini", torch.float32)
    frames = frames_for(net, net.receptive_field + 12)
    outputs = []
    for twin in (fast(net), plain(fast(net))):
        given, state = [], twin.begin()
        for n, frame in enumerate(frames):
            if n > 20 and isinstance(twin.body.begun, Recorded):
                with pytest.raises(RuntimeError), torch.inference_mode():
                    twin.body.begun(torch.zeros(1, 3), state["layers"])
            y, state = twin.step(frame, state)
            given.append(y)
        outputs.append(given)
    same(*outputs)


def test_what_cannot_be_noted_is_stepped_as_ever():
    """A call that changes a tensor without giving it, and numbers that never come round."""

    def push(x, state):
        state[0]["count"] = (state[0]["count"] + 1) % state[0]["period"]
        state[0]["sum"][0] += x
        return state[0]["sum"] * state[0]["count"]

    for period in (2, 10 * PATIENCE):
        step, held = Recorded(push, 1, []), {"sum": torch.zeros(1), "count": 0, "period": period}
        state = (held,)
        for n in range(1, PATIENCE + 20):
            y = step(torch.ones(()), state)
            assert y.item() == n * (n % period)
        assert not step.known

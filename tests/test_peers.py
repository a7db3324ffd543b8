"""Peers give the logits of our streams at the same frames."""

import pytest
import torch

import co3d
from co3d.measure.equivalence import calibrate
from co3d.measure.peers import LeftOut, Peer


@pytest.fixture(params=["cox3d_mini", "coslow_mini", "coi3d_mini"])
def net(request):
    net = co3d.create(request.param)
    calibrate(net, torch.randn(2, 3, net.window, 48, 48))
    return net


@torch.inference_mode()
@pytest.mark.parametrize("tuned", [False, True])
def test_a_peer_gives_our_logits_at_our_frames_and_has_more_state(net, tuned):
    weights = {name: weight.clone() for name, weight in net.state_dict().items()}
    peer, state, emitted = Peer(net, tuned), None, []
    for frame in torch.randn(net.receptive_field + 2 * net.stride, 1, 3, 48, 48):
        y, state = net.step(frame, state)
        z, _ = peer.step(frame)
        assert (y is None) == (z is None)
        if y is not None:
            emitted.append((y, z))
    assert len(emitted) > net.padding // net.stride
    assert peer.state_bytes() > co3d.nn.state_bytes(state)
    ours, theirs = map(torch.cat, zip(*emitted, strict=True))
    assert ours.std(0).max() > 0.01 * ours.abs().max()  # frames move them
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-5 * ours.abs().max().item())
    for name, weight in net.state_dict().items():
        assert torch.equal(weight, weights[name])
        assert weight.stride() == weights[name].stride()


@torch.inference_mode()
def test_state_bytes_of_a_convolution_by_hand():
    conv = co3d.nn.Sequential(co3d.nn.Conv3d(2, 5, (3, 1, 1)))
    peer = Peer(co3d.nn.StreamNet(conv, co3d.nn.Linear(5 * 4 * 4, 2)).eval())
    peer.step(torch.zeros(1, 2, 4, 4))
    assert peer.state_bytes() == 4 * (2 * 2 * 5 * 4 * 4)  # (kT - 1)^2 maps of float32


@pytest.mark.parametrize(
    ("name", "options", "what"),
    [
        ("cor2plus1d_mini", {}, "convolutions that are strided or dilated in time"),
        ("coslowfast_mini", {}, "TwoPath"),
        ("coi3d_mini", {"dense": True}, "convolutions that are strided or dilated in time"),
    ],
)
def test_networks_that_it_has_no_layers_for_are_refused(name, options, what):
    net = co3d.create(name, **options)
    with pytest.raises(LeftOut, match=f"expected CoX3D, CoSlow or CoI3D .* network with {what}"):
        Peer(net)

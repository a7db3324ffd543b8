"""Folding normalisation into convolutions changes no output."""

import pytest
import torch
from nets import MINIS, SIZE, net_of

from co3d.nn import BatchNorm3d, Conv3d, Dropout
from co3d.nn.fold import fold


@pytest.mark.parametrize("name", [*MINIS, *(name.removeprefix("co") for name in MINIS)])
@torch.no_grad()
def test_a_folded_net_gives_the_same_logits_with_fewer_layers(name):
    net = net_of(name).double()
    folded, frames = fold(net), max(net.spec.frames, getattr(net, "window", 0))
    clip = torch.randn(2, 3, frames, SIZE, SIZE, dtype=torch.float64)
    torch.testing.assert_close(folded(clip), net(clip), rtol=0, atol=1e-10)
    kinds = {type(part) for part in folded.modules()}
    assert type(folded) is type(net) and Conv3d in kinds
    assert not kinds & {BatchNorm3d, Dropout}

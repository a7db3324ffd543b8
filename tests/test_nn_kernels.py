"""The convolutions that are fast on a CPU equal torch's, and no layer leaves their layout."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F

import co3d
from co3d.nn import Continual
from co3d.nn.kernels import conv3d

REGULAR = [n for n in co3d.list_models() if n.endswith("_mini") and not n.startswith("co")]
LAST = torch.channels_last_3d
KERNELS = ((1, 1, 1), (1, 3, 3), (3, 1, 1), (3, 3, 3), (2, 3, 3))
STRIDES = ((1, 1, 1), (1, 2, 2), (2, 1, 1), (2, 2, 2))


@pytest.mark.parametrize("layout", [LAST, torch.contiguous_format])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_outputs_and_gradients_are_those_of_torch(groups, layout):
    torch.manual_seed(0)
    compared = 0
    for kernel, stride, around, dilation in product(KERNELS, STRIDES, (0, 1), (1, 2)):
        clip = torch.randn(2, 4, 6, 7, 5, dtype=torch.float64).to(memory_format=layout)
        weight = torch.randn(4, 4 // groups, *kernel, dtype=torch.float64)
        inputs = [clip, weight.to(memory_format=layout), torch.randn(4, dtype=torch.float64)]
        inputs = [tensor.requires_grad_() for tensor in inputs]
        padding = (dilation * (kernel[0] - 1), around, around)
        settings = stride, padding, (dilation, 1, 1), groups
        ours, torchs = conv3d(*inputs, *settings), F.conv3d(*inputs, *settings)
        torch.testing.assert_close(ours, torchs)
        grad = torch.randn_like(torchs)
        gradients = (torch.autograd.grad(y, inputs, grad) for y in (ours, torchs))
        torch.testing.assert_close(*gradients)
        compared += 1
    assert compared == 80


def test_frozen_weights_or_clips_get_no_gradient():
    clip, weight = torch.randn(1, 4, 5, 6, 6).to(memory_format=LAST), torch.randn(4, 1, 3, 3, 3)
    settings = (1, 1, 1), (1, 1, 1), (1, 1, 1), 4
    conv3d(clip, weight.requires_grad_(), None, *settings).sum().backward()
    assert clip.grad is None and weight.grad.abs().sum() > 0
    weight = weight.detach()
    conv3d(clip.requires_grad_(), weight, None, *settings).sum().backward()
    assert weight.grad is None and clip.grad.abs().sum() > 0


def layouts(net, clip):
    """Of the maps behind every leaf: True for channels last."""
    found = {}
    for name, part in net.named_modules():
        if isinstance(part, Continual) and not list(part.children()):
            part.register_forward_hook(
                lambda _, args, y, name=name: found.update({name: y}) if y.ndim == 5 else None
            )
    net(clip)
    maps = {name: y for name, y in found.items() if y.shape[1] > 1 and y.shape[-1] > 1}
    frames = {name: y[:1, :, 0] for name, y in maps.items()}
    return {name: y.is_contiguous(memory_format=torch.channels_last) for name, y in frames.items()}


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", REGULAR)
def test_every_map_has_the_layout_of_the_weights_whatever_that_of_the_clip(name, train):
    net = co3d.create(name).train(train)
    clip = torch.randn(2, 3, net.spec.frames, 32, 32)
    for given in (clip, clip.to(memory_format=LAST)):
        assert all(layouts(net, given).values())
    net.to(memory_format=torch.contiguous_format)
    for given in (clip, clip.to(memory_format=LAST)):
        found = layouts(net, given)
        assert len(found) > 20 and not any(found.values())


@pytest.mark.parametrize("name", REGULAR)
def test_a_training_step_is_the_same_in_both_layouts(name):
    torch.manual_seed(0)
    net = co3d.create(name).double().train()
    clip = torch.randn(2, 3, net.spec.frames, 32, 32, dtype=torch.float64)
    steps = []
    for layout in (LAST, torch.contiguous_format):
        net.to(memory_format=layout).zero_grad()
        torch.manual_seed(1)  # of dropout
        net(clip).square().sum().backward()
        steps.append([p.grad.clone() for p in net.parameters()])
    for last, contiguous in zip(*steps, strict=True):
        torch.testing.assert_close(last, contiguous, rtol=0, atol=1e-9 * float(last.abs().max()))

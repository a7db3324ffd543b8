"""`torch.nn.functional.conv3d` on CPUs, in the form that is fastest in channels_last_3d.

There a clip (B, C, T, H, W) lies in memory as (B, T, H, W, C). So its frames are a batch of images,
its pixels are rows of channels, and time over pixels is an image too: views, without copies. The
kernels for matrices and images are faster than those for volumes, of which some convert to another
layout and back.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

Triple = tuple[int, int, int]


def conv3d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Triple,
    padding: Triple,
    dilation: Triple,
    groups: int,
) -> Tensor:
    """As `torch.nn.functional.conv3d`, and as fast as it can be in channels_last_3d on a CPU.

    In a graph that is traced, exported or compiled it is the one operator that it stands for.
    """
    if is_traced() or not _is_last_on_cpu(x):
        return F.conv3d(x, weight, bias, stride, padding, dilation, groups)
    (kernel, *size), (step, *strides), (before, *around) = weight.shape[2:], stride, padding
    if kernel == 1 and before == 0:
        x = x[:, :, ::step]
        if size == strides == [1, 1] and around == [0, 0] and groups == 1:
            return F.linear(x.movedim(1, -1), weight.flatten(1), bias).movedim(-1, 1)
        maps = F.conv2d(_images(x), weight[:, :, 0], bias, strides, around, dilation[1:], groups)
        return maps.unflatten(0, (x.shape[0], -1)).transpose(1, 2)
    if size == strides == [1, 1] and around == [0, 0] and groups == 1:
        maps = F.conv2d(
            *(x.flatten(3), weight[..., 0], bias, (step, 1), (before, 0), (dilation[0], 1))
        )
        return maps.unflatten(3, x.shape[3:])
    if groups == x.shape[1] == weight.shape[0] and step == 1 and torch.is_grad_enabled():
        y = _Depthwise.apply(x, weight, stride, padding, dilation)
        return y if bias is None else y + bias.view(-1, 1, 1, 1)
    return _volumes(x, weight, bias, stride, padding, dilation, groups)


def is_traced() -> bool:
    """Whether a graph is being made, in which every layer should be one operator."""
    return torch.jit.is_tracing() or torch.compiler.is_compiling()


def _is_last_on_cpu(x: Tensor) -> bool:
    """Whether the channels of a pixel lie side by side; frames and clips may lie apart."""
    return x.device.type == "cpu" and x.stride(1) == 1 and x.shape[1] > 1


def _volumes(x, weight, bias, stride, padding, dilation, groups) -> Tensor:
    """Without a detour over another layout, which torch takes at one thread for 1x1 pixels."""
    if weight.shape[3:] == (1, 1) and torch.get_num_threads() == 1:
        dilation = (dilation[0], 2, 2)  # of one pixel: changes which kernel is taken, and no number
    return F.conv3d(x, weight, bias, stride, padding, dilation, groups)


def _images(x: Tensor) -> Tensor:
    """The frames of clips (B, C, T, H, W) as a batch (B T, C, H, W)."""
    return x.transpose(1, 2).flatten(0, 1)


class _Depthwise(torch.autograd.Function):
    """A convolution of every channel alone, with gradients slice by slice of the kernel.

    Torch has fast gradients of such convolutions for images, and slow ones for volumes.
    """

    @staticmethod
    def forward(ctx, x, weight, stride, padding, dilation):
        ctx.save_for_backward(x, weight)
        ctx.settings = stride, padding, dilation
        return _volumes(x, weight, None, stride, padding, dilation, weight.shape[0])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        stride, padding, dilation = ctx.settings
        before, span = padding[0], dilation[0] * (weight.shape[2] - 1)
        # Clips one after the other, in time padded alike, so that a slice of the kernel meets
        # image n + offset where the gradient has image n.
        images = _images(F.pad(x, (0, 0, 0, 0, before, before)))
        grads = _images(F.pad(grad, (0, 0, 0, 0, 0, span)))
        last = images.shape[0] - span
        over_images, over_weight = torch.zeros_like(images), []
        for tap in range(weight.shape[2]):
            here = slice(tap * dilation[0], tap * dilation[0] + last)
            of_images, of_weight, _ = torch.ops.aten.convolution_backward(
                *(grads[:last], images[here], weight[:, :, tap], None),
                *(stride[1:], padding[1:], dilation[1:], False, (0, 0), weight.shape[0]),
                (ctx.needs_input_grad[0], ctx.needs_input_grad[1], False),
            )
            if of_images is not None:
                over_images[here] += of_images
            over_weight.append(of_weight)
        over_x = over_images.unflatten(0, (x.shape[0], -1)).transpose(1, 2)
        over_x = over_x[:, :, before : before + x.shape[2]]
        return (
            over_x,
            torch.stack(over_weight, 2) if ctx.needs_input_grad[1] else None,
            *(None,) * 3,
        )

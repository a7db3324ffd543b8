"""What a clip and a step cost, counted by fvcore on the executed graph.

Models are counted as copies without memory on torch's device "meta", so that a full-size network
costs no more than tracing it.
"""

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import torch
from fvcore.nn.jit_analysis import JitModelAnalysis
from fvcore.nn.jit_handles import conv_flop_jit, get_shape, linear_flop_jit
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..nn import ClipNet, Continual, MaxPool3d, Sequential, State
from ..nn.core import iter_tensors, map_tensors
from ..zoo.specs import ResNet, SlowFast

Values = Sequence[Any]  # the inputs x or outputs y of an operator in a traced graph
Handle = Callable[[Values, Values], Counter]


@dataclass(frozen=True)
class Cost:
    """Terms of the paper's FLOPs, results/paper/flops_exact.csv; everything else counts 0.

    Attributes:
        macs: multiply-accumulates of convolutions and linear layers.
        biases: one per addition of a bias.
        norms: two per element of a batch normalisation.
        activations: one per output of a ReLU.
        pools: one per input of a pool or spatial mean; in a step, those of the frame fed.
        pools_held: in a step, inputs of temporal pools that came with the frames since the last
            output. They belong to the steps that fed them, and to the mean over a period.
        identity_pools: inputs of the max-pools of size (1, 1, 1) behind res2 of the published Slow
            and of both SlowFast paths. Ours leave these pools out.
        linear: multiply-accumulates and biases of the linear layers, part of the terms above.
        linear_published: what the published counts of steps have in their place: inputs + 1, as if
            the last axis, which is time and of length 1, were the classes.
        window_sum: inputs of running averages over time.
    """

    macs: int = 0
    biases: int = 0
    norms: int = 0
    activations: int = 0
    pools: int = 0
    pools_held: int = 0
    identity_pools: int = 0
    linear: int = 0
    linear_published: int = 0
    window_sum: int = 0

    @property
    def once(self) -> int:
        """FLOPs with every term counted once, the running average left out."""
        layers = self.macs + self.biases + self.norms + self.activations
        return layers + self.pools + self.identity_pools

    @property
    def counted_twice(self) -> int:
        """What the published counts of steps have two times."""
        return self.norms + self.activations

    @property
    def published(self) -> int:
        """FLOPs of a step as published, with the slips; those of a clip are `once`."""
        return self.once + self.counted_twice - self.linear + self.linear_published


def macs_clip(model: ClipNet, clip: Tensor) -> int:
    """MACs of the convolutions and linear layers for one clip (1, C, T, H, W)."""
    return cost_clip(model, clip).macs


def macs_step(model: Continual, frame: Tensor) -> int:
    """MACs of one step on a frame (1, C, H, W): the largest within a period of the strides."""
    return max(cost.macs for cost in cost_steps(model, frame))


def macs_frame(model: Continual, frame: Tensor) -> float:
    """Mean MACs per frame over a period of the strides."""
    costs = cost_steps(model, frame)
    return sum(cost.macs for cost in costs) / len(costs)


@torch.no_grad()
def cost_clip(model: nn.Module, clip: Tensor) -> Cost:
    """The cost of one clip (1, C, T, H, W)."""
    return _count(_without_memory(model), (clip.to("meta"),), stream=False)


@torch.no_grad()
def cost_steps(model: Continual, frame: Tensor) -> list[Cost]:
    """The cost of each step within a period of the strides, for frames (1, C, H, W).

    The stream has seen a receptive field of frames, so that all layers have begun.
    """
    model, frame = _without_memory(model), frame.to("meta")
    state, costs = steady_state(model, frame), []
    for _ in range(model.timing.stride):
        costs.append(_count(_Step(model, state), (frame, *iter_tensors(state)), stream=True))
        _, state = model.step(frame, state)
    return costs


def steady_state(model: Continual, frame: Tensor) -> State:
    """The state after a receptive field of copies of a frame (B, C, H, W)."""
    return model.steps(frame.unsqueeze(2).repeat_interleave(model.receptive_field, 2))[1]


class _Step(nn.Module):
    """A step as a function of tensors alone, which is what a trace can take."""

    def __init__(self, model: Continual, state: State) -> None:
        super().__init__()
        self.model, self.form = model, state

    def forward(self, frame: Tensor, *held: Tensor) -> tuple[Tensor, ...]:
        tensors = iter(held)
        y, state = self.model.step(frame, map_tensors(lambda _: next(tensors), self.form))
        return (*([] if y is None else [y]), *iter_tensors(state))


def _without_memory(model: nn.Module) -> nn.Module:
    """A copy without memory, with the identity pools of the published code put in."""
    twin = copy.deepcopy(model).to("meta")
    net = getattr(getattr(model, "spec", None), "architecture", None)
    stages = [(twin.body, net)] if isinstance(net, ResNet) else []
    if isinstance(net, SlowFast):
        stages = [(twin.body.paths.slow, net.slow), (twin.body.paths.fast, net.fast)]
    for path, resnet in stages:
        if resnet.time_pool == 1:  # else there is a real pool, in ours too
            path.res3 = Sequential(MaxPool3d(1), path.res3)
    return twin


def _count(module: nn.Module, inputs: tuple[Tensor, ...], stream: bool) -> Cost:
    analysis = JitModelAnalysis(module, inputs).set_op_handle(**_handles(stream))
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analysis.tracer_warnings("none")
    with _TraceableOnMeta():
        return Cost(**analysis.by_operator())


class _TraceableOnMeta(TorchFunctionMode):
    """Calls convolutions by their inner name: else they leave no node in a graph on "meta"."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        convolutions = torch.conv1d, torch.conv2d, torch.conv3d
        function = _convolution if function in convolutions else function
        return function(*args, **(kwargs or {}))


def _convolution(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1) -> Tensor:
    """torch.conv3d and its like by the name that all of them have in a graph."""
    axes = weight.ndim - 2
    sizes = [(v,) * axes if isinstance(v, int) else tuple(v) for v in (stride, padding, dilation)]
    flags = (False,) * 4  # benchmark, deterministic, cuDNN, TF32
    return torch._convolution(x, weight, bias, *sizes, False, (0,) * axes, groups, *flags)


def _handles(stream: bool) -> dict[str, Handle]:
    """The operators that count; every other one costs nothing."""
    pool = partial(_pool, stream)
    return {
        "aten::_convolution": _conv,
        "aten::linear": _linear,
        "aten::add": _add,
        "aten::batch_norm": lambda x, y: Counter(norms=2 * _size(x[0])),
        "aten::relu": lambda x, y: Counter(activations=_size(y[0])),
        "aten::relu_": lambda x, y: Counter(activations=_size(y[0])),
        "aten::max_pool3d": pool,
        "aten::avg_pool3d": pool,
        "aten::adaptive_avg_pool3d": lambda x, y: pool(x[:1], y),
        "aten::mean": lambda x, y: _window_sum(x, y) or pool(x[:1], y),
        "aten::sum": _window_sum,
    }


def _size(value: Any) -> int:
    return prod(get_shape(value))


def _conv(x: Values, y: Values) -> Counter:
    return Counter(macs=conv_flop_jit(x, y)["conv"], biases=_size(y[0]) if get_shape(x[2]) else 0)


def _linear(x: Values, y: Values) -> Counter:
    macs, biases = linear_flop_jit(x, y), _size(y[0]) if get_shape(x[2]) else 0
    published = _size(x[0]) + (1 if biases else 0)
    return Counter(macs=macs, biases=biases, linear=macs + biases, linear_published=published)


def _add(x: Values, y: Values) -> Counter:
    """A bias, if the second operand is the smaller one; sums of maps have equal sizes."""
    is_bias = get_shape(x[1]) and _size(x[1]) < _size(x[0])
    return Counter(biases=_size(y[0]) if is_bias else 0)


def _pool(stream: bool, x: Values, y: Values) -> Counter:
    """Inputs of a pool: image, [kernel, [stride, ...]]."""
    size, frames = _size(x[0]), get_shape(x[0])[2]
    kernel, stride = (_numbers(value) for value in x[1:3]) if len(x) > 1 else ([], [])
    if set(kernel) == {1}:
        return Counter(identity_pools=size)
    if not stream:
        return Counter(pools=size)
    new = min(frames, (stride or kernel or [1])[0])
    return Counter(pools=size // frames, pools_held=size // frames * (new - 1))


def _window_sum(x: Values, y: Values) -> Counter:
    """A running average is taken over windows (B, C, T, H, W, window)."""
    return Counter(window_sum=_size(x[0])) if len(get_shape(x[0])) == 6 else Counter()


def _numbers(value: Any) -> list[int]:
    return [number.toIValue() for number in value.node().inputs()]

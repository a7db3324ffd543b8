"""What is timed: networks in all their forms, warm, with what is known of them besides time.

Weights are random: neither time nor memory depends on them.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..nn import StreamNet
from ..zoo import Spec, create
from . import rungs
from .complexity import cost_clip, cost_steps
from .memory import Footprint, footprint, held_before


@dataclass(frozen=True)
class Subject:
    """What is timed: `period` calls of `work` make one prediction, which the last of them gives.

    A clip net has a period of 1, a continual net that of its temporal strides.

    Attributes:
        state_mb: of one stream; None without a state.
        batch: streams or clips computed at once.
        macs: multiply-accumulates of one prediction by the formula, whatever is executed.
        again: makes the same with another batch.
    """

    model: str
    mode: str
    window: int | None
    period: int
    work: Callable[[], Tensor | None]
    state_mb: float | None = None
    implementation: str = rungs.EAGER
    precision: str = "float32"
    batch: int = 1
    macs: int | None = None
    footprint: Footprint = Footprint()
    again: Callable[[int], "Subject"] | None = None

    def predict(self) -> None:
        """All work of one prediction."""
        for _ in range(self.period):
            self.work()


class Steps:
    """Steps of a stream past its warm-up; the last of every period gives a prediction.

    Args:
        model: has `step`.
        frame: that is fed every time.
        warmup: steps without a prediction (default: the model's).
    """

    def __init__(self, model: Any, frame: Tensor, warmup: int | None = None) -> None:
        self.model, self.frame, self.state = model, frame, None
        for _ in range(model.warmup if warmup is None else warmup):
            self()
        while self() is None:
            pass

    def __call__(self) -> Tensor | None:
        y, self.state = self.model.step(self.frame, self.state)
        return y


class LeftOut(NamedTuple):
    """A form of a model that is not to be had here."""

    model: str
    implementation: str
    precision: str
    reason: str


def subjects(
    record: Spec,
    window: int | None,
    device: str,
    implementations: Iterable[str] = (rungs.EAGER,),
    precisions: Iterable[str] = ("float32",),
) -> Iterator[Subject | LeftOut]:
    """A model in each form and precision that is to be had, and why others are not.

    Raises:
        ValueError: for a window that does not fit the model.
    """
    before = held_before(device)
    try:
        net = create(record.name, window if record.continual else None).to(device)
    except ValueError as error:
        raise ValueError(f"{record.name}: {error}") from None
    macs = _macs(net, record)
    for precision, implementation in itertools.product(precisions, implementations):
        if rungs.RUNGS[implementation].mode not in ("", "stream" if record.continual else "clip"):
            continue
        form = _Form(net, record, device, implementation, precision, macs)
        try:
            yield form.subject(1, before)
        except rungs.LeftOut as error:
            yield LeftOut(record.name, implementation, precision, str(error))


@dataclass(frozen=True)
class _Form:
    """A network in one form and precision, of which subjects of any batch can be made."""

    net: nn.Module
    record: Spec
    device: str
    implementation: str
    precision: str
    macs: int

    def subject(self, batch: int, before: int | None = None) -> Subject:
        before = held_before(self.device) if before is None else before
        record, size, net = self.record, self.record.image_size, self.net
        frames = () if record.continual else (record.frames,)
        example = torch.randn(batch, 3, *frames, size, size, device=self.device)
        made, fed = rungs.make(self.implementation, net, example, self.precision)
        common = {"implementation": self.implementation, "precision": self.precision}
        common |= {"batch": batch, "macs": self.macs, "again": self.subject}
        if isinstance(net, StreamNet):
            work = Steps(made, fed, net.warmup)
            held = rungs.held_bytes(made, work.state) / batch / 1e6
            one = Subject(record.name, "stream", net.window, net.stride, work, held, **common)
        else:
            one = Subject(record.name, "clip", None, 1, lambda: made(fed), **common)
        if not rungs.RUNGS[self.implementation].seen:
            return one
        seen = footprint(one.predict, self.device, before, stream=record.continual)
        return replace(one, footprint=seen)


def _macs(net: nn.Module, record: Spec) -> int:
    """Multiply-accumulates of one prediction: of a clip, or of all steps of a period."""
    size = record.image_size
    if isinstance(net, StreamNet):
        return sum(cost.macs for cost in cost_steps(net, torch.empty(1, 3, size, size)))
    return cost_clip(net, torch.empty(1, 3, record.frames, size, size)).macs

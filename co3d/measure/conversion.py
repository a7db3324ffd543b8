"""What `co3d.continual` makes of a network, layer by layer, and whether it equals the original."""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..nn import Continual, Identity, RunningWindow, Timing, state_bytes
from ..nn.convert import LAYERS, START, Conversion, named_at
from .complexity import macs_frame, macs_step, steady_state
from .equivalence import differences, streamed


class Outcome(NamedTuple):
    """What becomes of one layer: the class of its twin, or the reason why it has none."""

    path: str
    kind: str
    becomes: str | None
    reason: str | None


@dataclass(frozen=True)
class Report:
    """The outcome of a conversion; `str(report)` is a readable text.

    Attributes:
        layers: an outcome per layer, in order: path, kind, what it becomes, or the reason why not.
        figures: by name, empty if a layer does not convert: receptive_field, padding, warmup and
            stride in frames, state_bytes of one stream, macs_step (the largest within a period),
            macs_frame (mean over a period), and, on random input, the largest difference divided
            by the largest output between the stream and its own clip call (stream_error), and,
            unless another window than the clip's was given, the original module (module_error,
            large where a gate was replaced).
        twin: the continual network, sharing its parameters, None if a layer does not convert.
    """

    layers: tuple[Outcome, ...]
    figures: dict[str, float] = field(default_factory=dict)
    twin: Continual | None = None

    @property
    def refused(self) -> tuple[Outcome, ...]:
        """The layers that do not convert."""
        return tuple(layer for layer in self.layers if layer.reason)

    def __str__(self) -> str:
        width = max((len(layer.path) for layer in self.layers), default=0)
        lines = []
        for layer in self.layers:
            end = f"NOT CONVERTED: {layer.reason}" if layer.reason else f"-> {layer.becomes}"
            lines.append(f"{layer.path:<{width}}  {layer.kind:<18} {end}")
        count = len(self.layers)
        lines += ["", f"{count - len(self.refused)} of {count} layers convert"]
        for name, value in self.figures.items():
            lines.append(f"{name:<16} {value:{',.0f' if value >= 1 or value == 0 else '.1e'}}")
        return "\n".join(lines)


def report(
    module: nn.Module, clip: Tensor, *, gate: str | None = None, window: int | None = None
) -> Report:
    """Which layers of a network convert to a stream, at what cost, and how exactly.

    Args:
        module: in evaluation mode.
        clip: an input (B, C, T, H, W); only its shape, dtype and device are used.
        gate, window: as in `co3d.continual`; by default a window is as long as the global pool
            over this clip that it replaces.

    Raises:
        TypeError: for something that is no module or no clip.
        ValueError: for a network that converts but is in training mode, and for a clip that is too
            short for it.
    """
    if not isinstance(module, nn.Module) or not isinstance(clip, Tensor) or clip.ndim != 5:
        raise TypeError(
            "expected a torch.nn.Module and a clip (B, C, T, H, W), given "
            f"{type(module).__name__} and {tuple(getattr(clip, 'shape', ()))}"
        )
    survey = _Survey(gate, window, clip.shape[2])
    twin, _ = survey(module)
    outcome = Report(tuple(survey.outcomes.values()))
    if outcome.refused:
        return outcome
    windows = any(isinstance(part, RunningWindow) for part in twin.modules())
    figures = _figures(module, twin, clip, compare=window is None or not windows)
    return Report(outcome.layers, figures, twin)


class _Survey(Conversion):
    """A conversion that goes on behind refusals, with an Identity for the twin.

    Attributes:
        outcomes: of layers and of refused trees, by their paths.
    """

    def __init__(self, gate: str | None, window: int | None, frames: int) -> None:
        super().__init__(gate, window, frames=frames)
        self.outcomes: dict[str, Outcome] = {}

    def __call__(
        self, module: nn.Module, path: str = "", before: Timing = START
    ) -> tuple[nn.Module, Timing]:
        kind, where, known = type(module).__name__, path or "the root", len(self.outcomes)
        try:
            twin, after = super().__call__(module, path, before)
            if type(module) in LAYERS:
                self.outcomes[path] = Outcome(where, kind, type(twin).__name__, None)
        except (TypeError, ValueError) as error:
            twin, after = Identity(), before
            parts = [*self.outcomes.values()][known:]
            if not any(part.reason for part in parts):  # else that is the reason
                reason = str(error).rpartition(f"{named_at(module, path)}: ")[2]
                self.outcomes[path] = Outcome(where, kind, None, reason)
                for name, part in module.named_children() if type(module) not in LAYERS else ():
                    self(part, f"{path}.{name}".lstrip("."), before)
        return twin, after


@torch.no_grad()
def _figures(module: nn.Module, twin: Continual, clip: Tensor, compare: bool) -> dict[str, float]:
    timing, frame = twin.timing, clip[:1, :, 0]
    x = _noise(clip, max(clip.shape[2], timing.receptive_field))
    figures = {
        "receptive_field": timing.receptive_field,
        "padding": timing.padding,
        "warmup": timing.delay,
        "stride": timing.stride,
        "state_bytes": state_bytes(steady_state(twin, frame)),
        "macs_step": macs_step(twin, frame),
        "macs_frame": macs_frame(twin, frame),
        "stream_error": _error(torch.cat(streamed(twin, x, 1), 2), twin(x)),
    }
    if compare:
        x = _noise(clip, clip.shape[2])
        figures["module_error"] = _error(twin.steps(x, end=True)[0], module(x))
    return figures


def _noise(clip: Tensor, frames: int) -> Tensor:
    """A clip of another length, of the same values for every call."""
    shape = (*clip.shape[:2], frames, *clip.shape[3:])
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(clip)


def _error(a: Tensor, b: Tensor) -> float:
    """Of all columns of a stream, or of the last one where a net gives a single vector."""
    return differences(a[:, :, -1] if b.ndim == 2 else a, b)[1]

"""Ways to get one prediction from a video: a network and a plan of what it is fed."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache

import av
import numpy as np
import torch
from torch import Tensor

from ..deploy.native import NoCompiler, library
from ..nn import ClipNet, StreamNet, continual, fold
from ..zoo import create, spec
from ..zoo.checkpoints import shipped
from ..zoo.specs import SPECS
from . import protocols
from .complexity import macs_clip, macs_frame
from .plans import Plan

CHUNK = 32  # frames of a stream that are computed at once
FORMAT = 2  # of predictions: raised where a change of the code changes what is predicted


@dataclass(frozen=True, eq=False)
class Reading:
    """A network, and the plan of one prediction per video.

    Attributes:
        model: a clip net, or a stream net with its window.
        trunk: of a stream net, the same with the smallest window, for all windows to share.
    """

    model: ClipNet
    plan: Plan
    trunk: StreamNet | None = None

    @property
    def keys(self) -> dict:
        """What tells this reading from others in results/accuracy.csv."""
        weights, plan = self.model.weights, self.plan
        norm = ("/".join(map(str, values)) for values in (plan.transform.mean, plan.transform.std))
        return {
            "model": self.model.spec.name,
            "weights": f"{weights.source} sha256:{weights.sha256[:12]}",
            "weights_dialect": weights.dialect,
            "weights_data": weights.training_data,
            "weights_licence": weights.licence,
            "protocol": plan.protocol,
            "mode": plan.mode,
            "window": self.model.window if plan.mode == "stream" else None,
            "frames": plan.within or plan.frames,
            "views": plan.views,
            "position": None if plan.mode == "stream" else plan.position,
            "fps": plan.fps,
            "fill": plan.fill,
            "crops": plan.crops,
            "channel_order": plan.transform.channel_order,
            "norm": " ".join(norm),
        }

    @property
    def header(self) -> dict:
        """All that decides the predictions beside the data, as JSON knows it."""
        weight, weights = next(self.model.parameters()), self.model.weights
        return {
            "format": FORMAT,
            "model": self.model.spec.name,
            "window": self.keys["window"],
            "weights": {"source": weights.source, "sha256": weights.sha256},
            "plan": asdict(self.plan),
            "compute": {
                "device": weight.device.type,
                "engine": self.engine,
                "dtype": str(weight.dtype).removeprefix("torch."),
                "threads": torch.get_num_threads(),
                "chunk": CHUNK,
                "torch": torch.__version__,
                "av": av.__version__,
            },
        }

    @property
    def classes(self) -> int:
        """That the network tells apart."""
        return self.model.classifier.out_features

    @property
    def engine(self) -> str:
        """What computes: "native" steps of a stream where that engine runs, else "eager" ones."""
        weight, plan = next(self.model.parameters()), self.plan
        steps = self.trunk is not None and (plan.fill, plan.emit) == ("zeros", "valid")
        fits = weight.device.type == "cpu" and weight.dtype == torch.float32
        return "native" if steps and fits and native_runs() else "eager"

    def outputs(self, frames: int) -> range:
        """At which of so many frames, counted from 1, a stream has an output."""
        first, stride = self.model.warmup + 1, self.model.stride
        if self.plan.emit == "always":
            first = (first - 1) % stride + 1
        return range(first, frames + 1, stride)

    @property
    def macs(self) -> float:
        """Multiply-accumulates for one prediction."""
        plan, frames = self.plan, None if self.trunk else self.plan.frames
        one = _macs(self.model.spec.name, self.classes, plan.transform.image_size, frames)
        return plan.views * plan.crops * one

    def batch(self, clip: np.ndarray) -> Tensor:
        """Of one clip, where the model is, in the layout in which a CPU is fastest."""
        weight = next(self.model.parameters())
        batch = torch.from_numpy(clip)[None].to(weight.device, weight.dtype)
        return batch.to(memory_format=torch.channels_last_3d)


def readings(
    models: Iterable[tuple[str, ClipNet]],
    dataset: str,
    chosen: Sequence[str],
    windows: Sequence[int | None] = (None,),
    *,
    controls: bool = False,
    fill: str | None = None,
    fps: float | None = None,
    crops: int | None = None,
    channel_order: str | None = None,
    **of_clips: float | None,
) -> list[Reading]:
    """The readings of models under protocols, those left out that do not fit.

    Args:
        models: a name of the zoo each, with the clip net that holds the weights; a continual name
            is run with these weights as a stream.
        dataset: its name, by which protocols may differ.
        chosen: protocols.
        windows: of streams, in frames; None is the native one.
        controls: whether to add, for each stream that sees at least a clip, the clip net on clips
            over the same frames.
        fill: of streams. This and the others are as of `protocols.plan`.
        of_clips: views, position and frames.

    Raises:
        ValueError: if nothing is left, or for what no protocol or model has.
    """
    both = {"fps": fps, "crops": crops, "channel_order": channel_order}
    by_key, misfits = {}, {}

    def add(net: ClipNet, plan: Plan, trunk: StreamNet | None = None) -> None:
        key = net.spec.name, net.weights.sha256, net.window if trunk else None, plan
        by_key.setdefault(key, Reading(net, plan, trunk))

    for name, regular in models:
        trunk = twin(name, regular) if spec(name).continual else None
        for protocol in chosen:
            if sentence := protocols.misfit(spec(name), dataset, protocol):
                if protocol not in protocols.MODES:
                    raise ValueError(sentence)
                misfits[sentence] = None
            elif trunk is None:
                add(regular, protocols.plan(regular, dataset, protocol, **of_clips, **both))
            else:
                for window in windows:
                    net = twin(name, regular, window or spec(name).window)
                    plan = protocols.plan(net, dataset, protocol, fill=fill, **both)
                    add(net, plan, trunk)
                    if controls and plan.frames >= regular.spec.frames:
                        add(regular, protocols.control(regular, plan))
    if not by_key:
        raise ValueError("; ".join(misfits) or "expected a model, given none")
    modes = {reading.plan.mode for reading in by_key.values()}
    for name, value in {**of_clips, "fill": fill}.items():
        mode = "stream" if name == "fill" else "clip"
        if value is not None and mode not in modes:
            raise ValueError(f"expected no {name} where no {mode} is read")
    return list(by_key.values())


def twin(name: str, regular: ClipNet, window: int | None = None) -> StreamNet:
    """The continual net of that name with the parameters of a clip net; None: smallest window."""
    record = spec(name)
    if window is None:
        window = continual(regular, gate=record.gate, window=record.window).stride
    net = continual(regular, gate=record.gate, window=window)
    net.spec, net.weights = record, regular.weights
    return net


def loaded(
    names: str, weights: str, device: str = "cpu", classes: int | None = None
) -> list[tuple[str, ClipNet]]:
    """Names of the zoo, each with the clip net that holds its weights, loaded once per twin.

    Normalisation is folded into convolutions: the same predictions up to rounding, in less time.

    Args:
        names: separated by commas; "all" for those with weights of that name, twin by twin.
        weights: training data of shipped or published weights, or a file.
        classes: that a file has; None is the models' own number.

    Raises:
        ValueError: as `co3d.load`.
    """
    from .. import load  # which composes zoo and data

    chosen = [name.strip() for name in names.split(",") if name.strip()]
    if names == "all":
        regular = [name for name, record in SPECS.items() if not record.continual]
        known = [n for n in regular if weights in shipped(n) or spec(n).checkpoint(weights)]
        chosen = [name for pair in known for name in (pair, f"co{pair}")]
        if not chosen:
            raise ValueError(f"no weights of {weights} are known: name a model and its file")
    nets = {}
    for name in dict.fromkeys(spec(name).weights for name in chosen):
        net = load(name, weights, num_classes=classes)[0]
        nets[name] = fold(net).to(device)
        nets[name].spec, nets[name].weights = net.spec, net.weights
    return [(name, nets[spec(name).weights]) for name in chosen]


@cache
def _macs(name: str, classes: int, size: int, frames: int | None) -> float:
    """Of one clip, or of one prediction of a stream, whatever its window."""
    net = create(name, num_classes=classes)
    if isinstance(net, StreamNet):
        return macs_frame(net, torch.zeros(1, 3, size, size)) * net.stride
    return macs_clip(net, torch.zeros(1, 3, frames, size, size))


@cache
def native_runs() -> bool:
    """Whether the native engine runs here: it can be compiled, and CO3D_ENGINE allows it."""
    if os.environ.get("CO3D_ENGINE") not in (None, "", "native"):
        return False
    try:
        library.load()
    except (NoCompiler, PermissionError):
        return False
    return True

"""Ways to get one prediction from a video: a network and a plan of what it is fed.

Readings of one video share their work: equal clips are computed once, and streams of one network
that begin with the same frames share one pass over them, whatever their windows.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from weakref import WeakKeyDictionary

import av
import numpy as np
import torch
from torch import Tensor

from ..deploy import OptimizedStream
from ..deploy.native import NoCompiler, library
from ..nn import ClipNet, StreamNet, continual, fold
from ..zoo import create, spec
from ..zoo.checkpoints import scores, shipped
from ..zoo.specs import SPECS
from . import protocols
from .complexity import macs_clip, macs_frame
from .decoding import Decoded, Part
from .plans import Plan
from .protocols import PROTOCOLS
from .store import numbers
from .windows import CHUNK, steps_of_windows, trunk_of

FORMAT = 1  # of a record
OPTIMISED: WeakKeyDictionary[StreamNet, dict] = WeakKeyDictionary()  # forms by threads and size
CODE = (
    *("nn/*.py", "deploy/*.py", "deploy/native/*.py", "deploy/native/*.cpp"),
    *("zoo/build.py", "zoo/checkpoints.py", "zoo/files.py", "zoo/dialects.py"),
    *("zoo/specs.py", "data/jpegs.py", "data/sampling.py", "data/transforms.py", "data/video.py"),
    *("measure/decoding.py", "measure/feeding.py", "measure/plans.py", "measure/readings.py"),
    "measure/transient.py",
)


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
    def classes(self) -> int:
        """That the network tells apart."""
        return self.model.classifier.out_features

    @property
    def engine(self) -> str:
        """What computes: "native" steps of a stream where that engine runs, else "eager" ones."""
        weight = next(self.model.parameters())
        steps = self.trunk is not None and self.plan.fill == "zeros"
        fits = weight.device.type == "cpu" and weight.dtype == torch.float32
        return "native" if steps and fits and native_runs() else "eager"

    @property
    def macs(self) -> float:
        """Multiply-accumulates for one prediction."""
        plan = self.plan
        size, frames = plan.transform.image_size, None if self.trunk else plan.frames
        one = _macs(self.model.spec.name, self.classes, size, frames)
        return plan.views * plan.crops * one

    def batch(self, clip: np.ndarray) -> Tensor:
        """Of one clip, where the model is, in the layout in which a CPU is fastest."""
        weight = next(self.model.parameters())
        batch = torch.from_numpy(clip)[None].to(weight.device, weight.dtype)
        return batch.to(memory_format=torch.channels_last_3d)

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
            "code": code_hash(),
        }


def readings(
    models: Iterable[tuple[str, ClipNet]],
    dataset: str,
    chosen: Sequence[str],
    windows: Sequence[int | None] = (None,),
    *,
    controls: bool = False,
    **options,
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
        options: as of `protocols.plan`.

    Raises:
        ValueError: if nothing is left, or for what no protocol or model has.
    """
    of_clips = {name: options.pop(name, None) for name in ("views", "position", "frames")}
    of_streams = {"fill": options.pop("fill", None)}
    found, misfits = {}, []
    for name, regular in models:
        fitting = []
        for protocol in chosen:
            sentence = protocols.misfit(spec(name), dataset, protocol)
            if protocol not in PROTOCOLS:
                raise ValueError(sentence)
            (misfits if sentence else fitting).append(sentence or protocol)
        trunk = twin(name, regular) if spec(name).continual else None
        for protocol in fitting:
            if trunk is None:
                plan = protocols.plan(regular, dataset, protocol, **of_clips, **options)
                found[name, id(regular), plan] = Reading(regular, plan)
            for window in windows if trunk else ():
                net = twin(name, regular, window or spec(name).window)
                plan = protocols.plan(net, dataset, protocol, **of_streams, **options)
                found[name, id(regular), net.window, plan] = Reading(net, plan, trunk)
                if controls and plan.frames >= regular.spec.frames:
                    control = protocols.control(regular, plan)
                    found[regular.spec.name, id(regular), control] = Reading(regular, control)
    if not found:
        raise ValueError("; ".join(dict.fromkeys(misfits)) or "expected a model, given none")
    modes = {reading.plan.mode for reading in found.values()}
    for mode, given in {"clip": of_clips, "stream": of_streams}.items():
        names = [name for name, value in given.items() if value is not None]
        if names and mode not in modes:
            raise ValueError(f"expected no {', '.join(names)} where no {mode} is read")
    return list(found.values())


def twin(name: str, regular: ClipNet, window: int | None = None) -> StreamNet:
    """The continual net of that name with the parameters of a clip net; None: smallest window."""
    record = spec(name)
    if window is None:
        window = continual(regular, gate=record.gate, window=record.window).stride
    net = continual(regular, gate=record.gate, window=window)
    net.spec, net.weights = record, regular.weights
    return net


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


@cache
def code_hash() -> str:
    """The start of the sha256 of the sources that predictions depend on."""
    root, digest = Path(__file__).parent.parent, hashlib.sha256()
    for pattern in CODE:
        for path in sorted(root.glob(pattern)):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


@torch.inference_mode()
def predict(readings: Sequence[Reading], video: Decoded) -> list[dict]:
    """A record per reading of one video: status, and the scores where it is "ok".

    Scores are logits where there is one prediction, else the mean of probabilities.
    """
    statuses = [video.statuses[reading.plan] for reading in readings]
    fine = [r for r, (status, _) in zip(readings, statuses, strict=True) if status == "ok"]
    streams = _streams([reading for reading in fine if reading.trunk], video)
    clips: dict[tuple, Tensor] = {}
    records = []
    for reading, (status, note) in zip(readings, statuses, strict=True):
        if status != "ok":
            records.append({"status": status, **({"note": note} if note else {})})
        elif reading.trunk:
            records.append(_record(reading, streams[id(reading)]))
        else:
            records.append(_record(reading, _views(reading, video, clips)))
    return records


def _views(reading: Reading, video: Decoded, done: dict[tuple, Tensor]) -> Tensor:
    """Logits (views * crops, classes) of a clip net; `done` are clips that were computed before."""
    logits = []
    for part in video.parts(reading.plan):
        key = id(reading.model), part
        if key not in done:
            done[key] = reading.model(reading.batch(video.clip(part)))
        logits.append(done[key])
    return torch.cat(logits)


def _streams(readings: Sequence[Reading], video: Decoded) -> dict[int, Tensor]:
    """Logits (predictions, classes) of each reading, by id.

    The longest stream of a network also serves those that are fed the first of its frames.
    """
    waiting = sorted(readings, key=lambda reading: -reading.plan.frames)
    logits = {}
    while waiting:
        first = waiting[0]
        (whole,) = video.parts(first.plan)

        def shares(reading: Reading, first: Reading = first, whole: Part = whole) -> bool:
            (part,) = video.parts(reading.plan)
            same = reading.trunk is first.trunk and reading.plan.fill == first.plan.fill
            return same and part.begins(whole)

        group = [reading for reading in waiting if shares(reading)]
        waiting = [reading for reading in waiting if reading not in group]
        windows = {reading.model.window for reading in group}
        clip = first.batch(video.clip(whole))
        trunk = _optimised(first.trunk, clip) if first.engine == "native" else None
        outputs = steps_of_windows(first.trunk, windows, clip, first.plan.fill, trunk=trunk)
        for reading in group:
            net, (part,) = reading.model, video.parts(reading.plan)
            count = (len(part.indices) - net.warmup - 1) // net.stride + 1
            columns = outputs[net.window][0, :, :count].T
            logits[id(reading)] = columns[-reading.plan.predictions :]
    return logits


def _optimised(net: StreamNet, clip: Tensor) -> OptimizedStream:
    """The layers before the running average, optimised once per process for such frames."""
    forms = OPTIMISED.setdefault(net, {})
    threads, frame = torch.get_num_threads(), clip[:, :, 0]
    if (threads, frame.shape) not in forms:
        fast = OptimizedStream(trunk_of(net), frame, threads=threads, engine="native")
        forms[threads, frame.shape] = fast
    return forms[threads, frame.shape]


def _record(reading: Reading, logits: Tensor) -> dict:
    if not logits.isfinite().all():
        return {"status": "nan"}
    values = logits[0]
    if len(logits) > 1:
        values = scores(reading.model, logits).mean(0)
    return {"status": "ok", "scores": numbers(values.cpu().numpy())}


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
        chosen = [name for name in SPECS if not spec(name).continual and _has(name, weights)]
        chosen = [one for name in chosen for one in (name, f"co{name}")]
        if not chosen:
            raise ValueError(f"no weights of {weights} are known: name a model and its file")
    nets = {}
    for twin_name in dict.fromkeys(spec(name).weights for name in chosen):
        net = load(twin_name, weights, num_classes=classes)[0]
        nets[twin_name] = folded = fold(net).to(device)
        folded.spec, folded.weights = net.spec, net.weights
    return [(name, nets[spec(name).weights]) for name in chosen]


def _has(name: str, weights: str) -> bool:
    return weights in shipped(name) or spec(name).checkpoint(weights) is not None

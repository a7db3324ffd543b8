"""Protocols as data: which frames of a video a model sees, how, and what it then predicts.

`paper` is reconstructed from the released scripts, `native` is what the authors of the weights
did, `first-valid` and `steady` read streams at their first output and once they have filled.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any

from .. import transform_for
from ..data.transforms import Transform
from ..nn import ClipNet, StreamNet
from ..nn.core import FILLS
from ..zoo import Spec
from .plans import RAW_FPS, Plan

MAX_FPS = 1000.0
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@dataclass(frozen=True)
class Protocol:
    """What a protocol is of, where it begins (as `Plan.position`), what a stream is read at."""

    modes: tuple[str, ...]
    position: float
    reads: str = ""  # of streams: "first" output, or the first "filled" with real frames


PROTOCOLS = {
    "paper": Protocol(("clip", "stream"), 0.5, "first"),
    "native": Protocol(("clip",), 0.5),
    "first-valid": Protocol(("stream",), 0.0, "first"),
    "steady": Protocol(("stream",), 0.0, "filled"),
}


@dataclass(frozen=True)
class Kind:
    """What differs between kinds of data sets.

    Attributes:
        raw_fps: that the frame intervals of models count in.
        stream_fps: rate of `first-valid` and `steady`; None: the model's native one.
        predictions: how many of its last predictions a steady stream averages; more than 1 are
            those at the end of the whole video.
    """

    raw_fps: float = RAW_FPS
    stream_fps: float | None = 15.0
    predictions: int = 1


CHARADES = Kind(raw_fps=24.0, stream_fps=None, predictions=10)
KINDS = {"charades": CHARADES, "synthetic-charades": CHARADES}  # all others are as Kinetics-400


@dataclass(frozen=True)
class Native:
    """How the authors of weights tested them.

    Attributes:
        sizes: side of the square, in pixels, by number of crops; without one the model's own.
        spread: whether the last of several views "ends" with the video, or "starts" its share of
            it, as view k of K does at k / K of the free span.
    """

    views: int = 10
    crops: int = 3
    sizes: dict[int, int] = field(default_factory=dict)
    resize: tuple[int, int] | None = None
    spread: str = "starts"


_RESNET = Native(sizes={1: 256, 3: 256})
NATIVE = {
    "x3d_xs": Native(sizes={1: 160, 3: 182}),
    "x3d_s": Native(sizes={1: 160, 3: 182}),
    "x3d_m": Native(sizes={1: 224, 3: 256}),
    "x3d_l": Native(sizes={1: 312, 3: 356}),
    "slow_8x8_r50": _RESNET,
    "i3d_8x8_r50": _RESNET,
    "slowfast_4x16_r50": _RESNET,
    "slowfast_8x8_r50": _RESNET,
    "r2plus1d_18": Native(views=5, crops=1, resize=(128, 171), spread="ends"),
}
PLAIN = Native(views=1, crops=1)  # of minis, and of the other protocols

ABSENT = {"clip": ("fill",), "stream": ("views", "frames")}  # options that a mode does not have
OPTIONS = {
    "fps": (lambda fps: 0 < fps <= MAX_FPS, f"fps above 0 and up to {MAX_FPS:g}"),
    "fill": (FILLS.__contains__, f"fill in {FILLS}"),
    "crops": ((1, 3).__contains__, "1 or 3 crops"),
    "views": (lambda views: views >= 1, "views of 1 or more"),
    "position": (lambda position: 0 <= position <= 1, "a position between 0 and 1"),
    "frames": (lambda frames: frames >= 1, "frames of 1 or more"),
}


@dataclass(frozen=True)
class Paper:
    """What the released scripts do with a model that neither its spec nor its timing says.

    Attributes:
        interval: of frames, other than the spec's.
        norm: mean and std, other than the spec's.
        fill: at the start of its stream.
        fed: frames by window, other than up to the first output.
    """

    interval: int | None = None
    norm: dict[str, tuple[float, ...]] = field(default_factory=dict)
    fill: str = "zeros"
    fed: dict[int, int] = field(default_factory=dict)


PAPER = {
    "i3d_8x8_r50": Paper(norm=IMAGENET),
    "r2plus1d_18": Paper(interval=1, norm=IMAGENET),
    "cor2plus1d_18": Paper(interval=1, norm=IMAGENET),
    "cox3d_m": Paper(fill="replicate"),
    "cox3d_l": Paper(fill="replicate", fed={64: 124}),
}


def usual(dataset: str) -> tuple[str, ...]:
    """The protocols that say most about a data set, if none is chosen."""
    if dataset.startswith("synthetic"):
        return ("native", "steady")
    return ("paper", "first-valid", "steady")


def plan(
    model: ClipNet,
    dataset: str,
    protocol: str,
    *,
    fps: float | None = None,
    fill: str | None = None,
    crops: int | None = None,
    views: int | None = None,
    position: float | None = None,
    channel_order: str | None = None,
    frames: int | None = None,
) -> Plan:
    """The plan of a model on a data set; None stands for what the protocol says.

    Args:
        model: a model of the zoo. Its window, if it is a StreamNet, and the channel order of its
            weights decide as well.
        dataset: "charades" and "synthetic-charades" have rules of their own, all others are read
            as Kinetics-400.
        protocol: a key of PROTOCOLS.
        fps: rate of sampling by time, so not of protocol paper.
        fill: of a stream.
        crops: 1 or 3.
        views: of a clip net.
        position: as in Plan, of one view or a stream.
        channel_order: "rgb" or "bgr".
        frames: of a clip.

    Raises:
        ValueError: for what the protocol or the model does not have.
    """
    record, kind = model.spec, KINDS.get(dataset, Kind())
    if sentence := misfit(record, dataset, protocol):
        raise ValueError(sentence)
    stream, mini = isinstance(model, StreamNet), _is_mini(record)
    mode = "stream" if stream else "clip"
    _check(protocol, mode, fps=fps, fill=fill, crops=crops, views=views, position=position,
           frames=frames)  # fmt: skip
    paper = PAPER.get(record.name, Paper()) if protocol == "paper" else None
    native = NATIVE[record.weights] if protocol == "native" and not mini else PLAIN
    views, crops = views or native.views, crops or native.crops
    raw_fps = RAW_FPS if mini else kind.raw_fps
    usual_fps = kind.stream_fps if stream and not mini else None
    interval = paper and (paper.interval or record.frame_interval) * RAW_FPS / raw_fps
    start = PROTOCOLS[protocol].position if position is None else position
    made = Plan(
        protocol=protocol,
        mode=mode,
        frames=frames or record.frames,
        fps=None if paper else float(fps or usual_fps or raw_fps / record.frame_interval),
        interval=interval,
        views=views,
        crops=crops,
        position=start if views == 1 else None,
        fill=None,
        transform=_transform(model, native, crops, paper, channel_order),
        spread=native.spread,
    )
    if stream:
        made = replace(made, **_fed(model, kind, paper, PROTOCOLS[protocol].reads, fill))
    if position is not None and (views > 1 or made.whole):
        of = f"{views} views" if views > 1 else "a stream of whole videos"
        raise ValueError(f"expected no position of {of}, given {position}")
    return made


def _fed(
    model: StreamNet, kind: Kind, paper: Paper | None, reads: str, fill: str | None
) -> dict[str, Any]:
    """What the plan of a stream has that a clip's has not."""
    frames, predictions = model.warmup + 1, 1
    if paper:
        return {"frames": paper.fed.get(model.window, frames), "fill": fill or paper.fill}
    if reads == "filled":
        predictions = kind.predictions
        outputs = math.ceil(max(0, model.receptive_field - frames) / model.stride)
        frames += (outputs + predictions - 1) * model.stride
    whole = predictions > 1
    return {"frames": frames, "fill": fill or "zeros", "predictions": predictions, "whole": whole}


def _transform(
    model: ClipNet, native: Native, crops: int, paper: Paper | None, channel_order: str | None
) -> Transform:
    weights = getattr(model, "weights", None)
    base = transform_for(model.spec.name, weights.training_data if weights else "")
    return replace(
        base,
        image_size=native.sizes.get(crops, base.image_size),
        resize=native.resize,
        channel_order=channel_order or base.channel_order,
        **(paper.norm if paper else {}),
    )


def control(net: ClipNet, stream: Plan) -> Plan:
    """The fair control of a stream: its clip net on as many clips as cover what the stream saw.

    They are evenly spaced and get the same input; their probabilities are averaged. Of a whole
    video they cover the frames that the averaged predictions saw, which are the last ones.

    Raises:
        ValueError: for a plan of another mode, or a stream that saw less than one clip.
    """
    if stream.mode != "stream":
        raise ValueError(f'expected the plan of a stream, given one of mode "{stream.mode}"')
    length, seen = net.spec.frames, stream.frames
    if seen < length:
        raise ValueError(f"expected a stream of at least the clip's {length} frames, given {seen}")
    return replace(
        stream,
        mode="clips",
        frames=length,
        views=math.ceil(seen / length),
        within=seen,
        position=1.0 if stream.whole else stream.position,
        whole=False,
        fill=None,
        predictions=1,
    )


def misfit(record: Spec, dataset: str, protocol: str) -> str:
    """Why a protocol is none for this model on such data, in a sentence; "" if it is one."""
    kind, mode = KINDS.get(dataset, Kind()), "stream" if record.continual else "clip"
    if protocol not in PROTOCOLS:
        return f"expected a protocol in {', '.join(PROTOCOLS)}, given {protocol!r}"
    if mode not in PROTOCOLS[protocol].modes:
        fitting = [name for name, rules in PROTOCOLS.items() if mode in rules.modes]
        return (
            f"expected protocol {' or '.join(fitting)} for the {mode} net {record.name}, "
            f"given {protocol}"
        )
    if protocol != "paper" or kind is not CHARADES:
        return ""
    if mode == "stream":
        return (
            "expected protocol first-valid or steady for a stream on Charades, given paper: the "
            "released script feeds one frame per video there, which may give no prediction"
        )
    if not _is_mini(record) and record.name != "slow_8x8_r50":
        return (
            "expected another protocol: on Charades the paper's is that of slow_8x8_r50 only, "
            f"given paper for {record.name}"
        )
    return ""


def _check(protocol: str, mode: str, **options: float | str | None) -> None:
    """ValueError for options that the protocol or mode does not have, or that make no sense."""
    for name, value in options.items():
        if value is None:
            continue
        if name in ABSENT[mode]:
            raise ValueError(f"expected no {name} for a {mode}, given {value!r}")
        if name == "fps" and protocol == "paper":
            raise ValueError(f"expected no fps for protocol paper, which counts frames: {value}")
        fits, sentence = OPTIONS[name]
        if not fits(value):
            raise ValueError(f"expected {sentence}, given {value!r}")


def _is_mini(record: Spec) -> bool:
    return record.weights.endswith("_mini")

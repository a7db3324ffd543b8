"""Protocols as data: which frames of a video a model sees, how, and what it then predicts.

`paper` is reconstructed from the released scripts, `native` is what the authors of the weights
did, `first-valid` and `steady` read streams at their first output and once they have filled.
"""

import math
from dataclasses import dataclass, field, replace

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
    mode = "stream" if isinstance(model, StreamNet) else "clip"
    if sentence := misfit(record, dataset, protocol):
        raise ValueError(sentence)
    _check_numbers(protocol, fps, crops, position)
    _check_mode(mode, fill, views, frames)
    paper = protocol == "paper"
    plain = protocol != "native" or _is_mini(record)
    native = PLAIN if plain else NATIVE[record.weights]
    views, crops = views or native.views, crops or native.crops
    if views > 1 and position is not None:
        raise ValueError(f"expected no position of {views} views, given {position}")
    start = PROTOCOLS[protocol].position if position is None else position
    made = Plan(
        protocol=protocol,
        mode=mode,
        frames=frames or record.frames,
        fps=None if paper else float(fps or _fps(record, kind, mode)),
        interval=_interval(record, kind) if paper else None,
        views=views,
        crops=crops,
        position=start if views == 1 else None,
        fill=None,
        transform=_transform(model, native, crops, paper, channel_order),
        spread=native.spread,
    )
    if mode == "clip":
        return made
    made = replace(made, **_stream(model, kind, protocol, fill))
    if made.whole and position is not None:
        raise ValueError(f"expected no position of a stream of whole videos, given {position}")
    return made


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


def _check_numbers(
    protocol: str, fps: float | None, crops: int | None, position: float | None
) -> None:
    """ValueError for numbers that the protocol does not take, or that make no sense."""
    if protocol == "paper" and fps is not None:
        raise ValueError(f"expected no fps for protocol paper, which counts frames, given {fps}")
    if fps is not None and not 0 < fps <= MAX_FPS:
        raise ValueError(f"expected fps above 0 and up to {MAX_FPS:g}, given {fps}")
    if crops not in (None, 1, 3):
        raise ValueError(f"expected 1 or 3 crops, given {crops}")
    if position is not None and not 0 <= position <= 1:
        raise ValueError(f"expected a position between 0 and 1, given {position}")


def _check_mode(mode: str, fill: str | None, views: int | None, frames: int | None) -> None:
    """ValueError for options that the mode does not have, or that make no sense."""
    given = {"fill": fill} if mode == "clip" else {"views": views, "frames": frames}
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"expected no {name} for a {mode}, given {value!r}")
    if fill not in (None, *FILLS):
        raise ValueError(f"expected fill in {FILLS}, given {fill!r}")
    for name, value in {"views": views, "frames": frames}.items():
        if value is not None and value < 1:
            raise ValueError(f"expected {name} of 1 or more, given {value}")


def _is_mini(record: Spec) -> bool:
    return record.weights.endswith("_mini")


def _raw_fps(record: Spec, kind: Kind) -> float:
    return RAW_FPS if _is_mini(record) else kind.raw_fps


def _fps(record: Spec, kind: Kind, mode: str) -> float:
    """Rate of sampling by time: a clip net's native one, the protocols' for streams."""
    if mode == "stream" and kind.stream_fps and not _is_mini(record):
        return kind.stream_fps
    return _raw_fps(record, kind) / record.frame_interval


def _interval(record: Spec, kind: Kind) -> float:
    """Raw frames at 30 fps from one fed frame to the next, as the released scripts have it."""
    interval = PAPER.get(record.name, Paper()).interval or record.frame_interval
    return interval * RAW_FPS / _raw_fps(record, kind)


def _transform(
    model: ClipNet, native: Native, crops: int, paper: bool, channel_order: str | None
) -> Transform:
    record, weights = model.spec, getattr(model, "weights", None)
    base = transform_for(record.name, weights.training_data if weights else "")
    norm = PAPER.get(record.name, Paper()).norm if paper else {}
    return replace(
        base,
        image_size=native.sizes.get(crops, base.image_size),
        resize=native.resize,
        channel_order=channel_order or base.channel_order,
        **norm,
    )


def _stream(model: StreamNet, kind: Kind, protocol: str, fill: str | None) -> dict:
    """What the plan of a stream has that a clip's has not."""
    rules, exception = PROTOCOLS[protocol], PAPER.get(model.spec.name, Paper())
    first, stride, predictions = model.warmup + 1, model.stride, 1
    if protocol == "paper":
        return {
            "frames": exception.fed.get(model.window, first),
            "fill": fill or exception.fill,
        }
    frames = first
    if rules.reads == "filled":
        predictions = kind.predictions
        outputs = -(-max(0, model.receptive_field - first) // stride) + predictions - 1
        frames += outputs * stride
    return {
        "frames": frames,
        "fill": fill or "zeros",
        "predictions": predictions,
        "whole": predictions > 1,
    }

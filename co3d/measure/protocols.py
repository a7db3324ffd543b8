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

MODES = {  # by protocol
    "paper": ("clip", "stream"),
    "native": ("clip",),
    "first-valid": ("stream",),
    "steady": ("stream",),
}
STREAM_FPS = 15.0  # of first-valid and steady on Kinetics-400; others and minis: the native rate
CHARADES = ("charades", "synthetic-charades")  # all others are read as Kinetics-400
CHARADES_FPS = 24.0  # raw frames per second, which frame intervals count in
CHARADES_PREDICTIONS = 10  # the last ones of the whole video, which a steady stream averages
MAX_FPS = 1000.0
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


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

ABSENT = {"clip": ("fill",), "stream": ("views", "frames")}  # options that a mode does not have
OPTIONS = {
    "fps": (lambda fps: 0 < fps <= MAX_FPS, f"fps above 0 and up to {MAX_FPS:g}"),
    "fill": (FILLS.__contains__, f"fill in {FILLS}"),
    "crops": ((1, 3).__contains__, "1 or 3 crops"),
    "views": (lambda views: views >= 1, "views of 1 or more"),
    "position": (lambda position: 0 <= position <= 1, "a position between 0 and 1"),
    "frames": (lambda frames: frames >= 1, "frames of 1 or more"),
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
    """The plan of a model on a data set; options are as in `Plan`, None is the protocol's own.

    Args:
        model: of the zoo; the window of a StreamNet and the channel order of its weights decide
            as well.
        dataset: its name, by which those of CHARADES have rules of their own.

    Raises:
        ValueError: for what the protocol or the model does not have.
    """
    record, stream, mini = model.spec, isinstance(model, StreamNet), _is_mini(model.spec)
    if sentence := misfit(record, dataset, protocol):
        raise ValueError(sentence)
    _check(protocol, "stream" if stream else "clip", fps=fps, fill=fill, crops=crops, views=views,
           position=position, frames=frames)  # fmt: skip
    paper = PAPER.get(record.name, Paper()) if protocol == "paper" else None
    native = NATIVE[record.weights] if protocol == "native" and not mini else PLAIN
    charades, predictions = dataset in CHARADES, 1
    raw_fps = CHARADES_FPS if charades and not mini else RAW_FPS
    usual_fps = None if charades or mini or not stream else STREAM_FPS
    views, crops, frames = views or native.views, crops or native.crops, frames or record.frames
    if stream:
        frames, fill = model.warmup + 1, fill or (paper.fill if paper else "zeros")
    if stream and paper:
        frames = paper.fed.get(model.window, frames)
    if protocol == "steady":
        predictions = CHARADES_PREDICTIONS if charades else 1
        outputs = math.ceil(max(0, model.receptive_field - frames) / model.stride)
        frames += (outputs + predictions - 1) * model.stride
    whole = predictions > 1
    if position is not None and (views > 1 or whole):
        of = f"{views} views" if views > 1 else "a stream of whole videos"
        raise ValueError(f"expected no position of {of}, given {position}")
    if position is None and views == 1:
        position = 0.5 if "clip" in MODES[protocol] else 0.0
    return Plan(
        protocol=protocol,
        mode="stream" if stream else "clip",
        frames=frames,
        fps=None if paper else float(fps or usual_fps or raw_fps / record.frame_interval),
        interval=paper and (paper.interval or record.frame_interval) * RAW_FPS / raw_fps,
        views=views,
        crops=crops,
        position=position,
        fill=fill,
        transform=_transform(model, native, crops, paper, channel_order),
        predictions=predictions,
        spread=native.spread,
        whole=whole,
    )


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
        ValueError: for a stream that saw less than one clip.
    """
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
    mode = "stream" if record.continual else "clip"
    if protocol not in MODES:
        return f"expected a protocol in {', '.join(MODES)}, given {protocol!r}"
    if mode not in MODES[protocol]:
        fitting = " or ".join(name for name, modes in MODES.items() if mode in modes)
        return f"expected protocol {fitting} for the {mode} net {record.name}, given {protocol}"
    if protocol != "paper" or dataset not in CHARADES:
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

"""Accuracy of clip nets and streams over the videos of a data set.

Each video is decoded once and sampled by time at the native rate of the models. A video that cannot
be scored has a status that says why; it is left out of the denominator and never replaced.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..data.kinetics import Dataset, Video
from ..data.sampling import resample
from ..data.transforms import Transform
from ..data.video import Reader
from ..nn import ClipNet, StreamNet
from ..progress import bar
from ..zoo import checkpoints
from .complexity import macs_clip, macs_frame
from .metrics import top_k, wilson


@dataclass
class Reading:
    """One way to get one prediction from a video (1, 3, N, S, S), and the predictions so far.

    Attributes:
        frames: that it looks at; shorter videos are "too_short".
        predict: from the video to scores (classes,).
        keys: what tells this reading from others in results/accuracy.csv.
    """

    frames: int
    predict: Callable[[Tensor], Tensor]
    keys: dict
    macs: float
    scores: list[Tensor] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    statuses: Counter = field(default_factory=Counter)

    def score(self, video: Tensor, label: int) -> None:
        status = "ok"
        if video.shape[2] < self.frames:
            status = "too_short"
        else:
            scores = self.predict(video)
            if scores.isfinite().all():
                self.scores.append(scores)
                self.labels.append(label)
            else:
                status = "nan"
        self.statuses[status] += 1


def readings(regular: ClipNet, streams: Sequence[StreamNet]) -> list[Reading]:
    """A clip net, its continual twins, and for each of these the control over the same frames."""
    controls = [control_reading(regular, net.receptive_field) for net in streams]
    return [clip_reading(regular), *map(stream_reading, streams), *controls]


def clip_reading(model: ClipNet) -> Reading:
    """The logits of one clip from the middle of the video (protocol `native`, one view)."""
    frames = model.spec.frames

    def predict(video: Tensor) -> Tensor:
        start = (video.shape[2] - frames) // 2
        return model(video[:, :, start : start + frames])[0]

    keys = _keys(model, "native", "clip", frames=frames)
    return Reading(frames, predict, keys, _clip_macs(model))


def stream_reading(model: StreamNet) -> Reading:
    """The logits at frame RF of a stream (protocol `steady`): all that it saw was real."""
    frames = model.receptive_field

    def predict(video: Tensor) -> Tensor:
        return model.steps(video[:, :, :frames])[0][0, :, -1]

    size = model.spec.image_size
    macs = macs_frame(model, torch.zeros(1, 3, size, size)) * model.stride
    keys = _keys(model, "steady", "stream", window=model.window, frames=frames, fill="zeros")
    return Reading(frames, predict, keys, macs)


def control_reading(model: ClipNet, frames: int) -> Reading:
    """The fair control of a stream that saw `frames` frames: clips over the same frames.

    As many clips as cover them, evenly spaced, their scores averaged.
    """
    length = model.spec.frames
    starts = np.linspace(0, frames - length, math.ceil(frames / length)).round().astype(int)

    def predict(video: Tensor) -> Tensor:
        clips = [model(video[:, :, start : start + length]) for start in starts]
        return checkpoints.scores(model, torch.cat(clips)).mean(0)

    keys = _keys(model, "steady", "clips", frames=frames, views=len(starts))
    return Reading(frames, predict, keys, len(starts) * _clip_macs(model))


def _clip_macs(model: ClipNet) -> int:
    record = model.spec
    return macs_clip(model, torch.zeros(1, 3, record.frames, record.image_size, record.image_size))


def _keys(model: ClipNet, protocol: str, mode: str, **more) -> dict:
    record = model.spec
    return {
        "model": record.name,
        "weights": f"{model.weights.source} sha256:{model.weights.sha256[:12]}",
        "weights_dialect": model.weights.dialect,
        "weights_data": model.weights.training_data,
        "weights_licence": model.weights.licence,
        "protocol": protocol,
        "mode": mode,
        "window": None,
        "views": 1,
        "fps": record.native_fps,
        "fill": None,
        "crops": 1,
        "channel_order": record.channel_order,
        "norm": f"{'/'.join(map(str, record.mean))} {'/'.join(map(str, record.std))}",
        **more,
    }


@torch.inference_mode()
def evaluate(
    readings: Sequence[Reading],
    data: Dataset,
    transform: Transform,
    fps: float,
    *,
    limit: int = 0,
    progress: bool = True,
) -> list[dict]:
    """Scores every reading on every video; one video per forward pass.

    Args:
        readings: of models that share transform and rate.
        data: planned videos, missing ones included.
        transform: input transform of the models.
        fps: rate that videos are sampled at, by time.
        limit: the first so many videos only; 0 is all.
        progress: whether to show a bar.

    Returns:
        A row of results/accuracy.csv per reading.

    Raises:
        ValueError: for videos without a label, a negative limit, or an fps that is not above 0.
    """
    if not fps > 0:  # here: below it would look like a fault of every video
        raise ValueError(f"expected fps above 0, given {fps}")
    videos = data.videos[: limit or None]
    if limit < 0 or any(video.class_id is None for video in videos):
        raise ValueError(f"expected labelled videos and a limit of 0 or more, given {limit}")
    for video in bar(videos, data.name, shown=progress):
        # Not ahead in a thread: it takes turns with the threads of the convolutions, which wait
        # for one another, and two cores then get half as much done.
        clip, status = _decode(video, transform, fps)
        for reading in readings:
            if clip is None:
                reading.statuses[status] += 1
            else:
                reading.score(clip, video.class_id)
    found = sum(video.path is not None for video in videos)
    plan = {"dataset": data.name, "split": data.split, "limit": limit}
    plan |= {"n_expected": len(videos), "n_found": found}
    return [{**reading.keys, **plan, **_result(reading)} for reading in readings]


def _result(reading: Reading) -> dict:
    n = len(reading.scores)
    result = {"n_scored": n, "macs_per_prediction": reading.macs}
    result |= dict.fromkeys(("top1", "top5", "ci_low", "ci_high", "map_official", "map_common"))
    if n:
        scores = torch.stack(reading.scores)
        right = top_k(scores, reading.labels, 1)
        low, high = wilson(right, n)
        result |= {"top1": 100 * right / n, "ci_low": low, "ci_high": high}
        result["top5"] = 100 * top_k(scores, reading.labels, 5) / n
    return result


def _decode(video: Video, transform: Transform, fps: float) -> tuple[Tensor | None, str]:
    if video.path is None:
        return None, "missing"
    try:
        with Reader(video.path) as reader:
            # Frame by frame: sizes may change in a file, and large frames are held one at a time.
            frames = [transform.frame(image) for _, image in resample(reader, fps)]
    except (ValueError, OSError):  # VideoError is a ValueError
        return None, "decode_error"
    if reader.status != "ok":
        return None, reader.status
    # Channels last is the layout in which a CPU is fastest on depthwise convolutions.
    return torch.stack(frames, 1)[None].to(memory_format=torch.channels_last_3d), "ok"

"""A continual net on one video, frame by frame, as it would run on a camera."""

import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from itertools import groupby, takewhile, tee
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from .. import paths
from ..data import charades, sets, synthetic_charades
from ..data.kinetics import KINETICS400_LABELS
from ..data.sampling import resample
from ..data.synthetic import SYNTHETIC_KINETICS_LABELS
from ..data.transforms import Transform
from ..data.video import Reader
from ..nn import ClipNet, StreamNet
from ..zoo.checkpoints import scores
from .outputs import TOP, Features, Output, Step, Table

KEPT = 10_000  # frames of which the summary takes the latency
LONGEST = 480  # pixels of the longer side of a picture that is kept to be shown
LABELS = {
    "kinetics400": KINETICS400_LABELS,
    "synthetic-kinetics": SYNTHETIC_KINETICS_LABELS,
    "synthetic-charades": synthetic_charades.LABELS,
}


def class_names(model: StreamNet) -> Sequence[str]:
    """The classes of a model by name, as its weights or their data set tell them, else by code.

    Weights that do not say what they were trained on are of Kinetics-400 if they have 400 classes.
    The names of Charades come with the data set alone.

    Raises:
        ValueError: if the file with the names of Charades cannot be used.
    """
    classes = model.classifier.out_features
    data = model.weights.training_data or ("kinetics400" if classes == 400 else "")
    names = model.weights.labels or LABELS.get(data, ())
    if data == "charades" and not names:
        with suppress(FileNotFoundError):
            names = charades.class_names(sets.set_root("charades"))
    return names if len(names) == classes else tuple(f"c{n:03d}" for n in range(classes))


def caveat(model: StreamNet, video: str | Path) -> str:
    """What to know of answers on a video unlike those that the model was trained on, else ""."""
    made_here = paths.cache_path() in Path(video).absolute().parents
    if made_here or not model.weights.training_data.startswith("synthetic-"):
        return ""
    classes = model.classifier.out_features
    return (
        f"{model.spec.name} knows only {classes} synthetic motions: here its answers mean nothing"
    )


def run(
    model: StreamNet,
    transform: Transform,
    labels: Sequence[str],
    frames: Iterable[tuple[float, np.ndarray]],
    limit_s: float | None = None,
    features: bool = False,
    pictures: bool = False,
) -> Iterator[Step]:
    """Feeds pictures (time in seconds, uint8 (H,W,3)) one at a time, up to `limit_s` of video.

    Args:
        features: whether the steps hold the vectors before the classifier.
        pictures: whether the steps hold the pictures, made smaller to LONGEST.
    """
    state, device = None, next(model.parameters()).device
    if limit_s is not None:
        frames = takewhile(lambda frame: frame[0] < limit_s, frames)
    for number, (time_s, picture) in enumerate(frames, 1):
        started = time.perf_counter()
        frame = transform.frame(picture)[None].to(device)
        vector, state = model.step(frame, state, features=True)
        top = () if vector is None else _top(_scores(model, vector), labels)
        latency_ms = 1000 * (time.perf_counter() - started)
        held = vector[0].cpu().numpy() if features and vector is not None else None
        shown = _smaller(picture) if pictures else None
        yield Step(number, time_s, top, latency_ms, held, shown)


def run_clips(
    net: ClipNet,
    transform: Transform,
    labels: Sequence[str],
    frames: Iterable[tuple[float, np.ndarray]],
    every: int = 1,
) -> Iterator[Step]:
    """What `run` gives, of a clip net: it predicts from as many frames on as its clip has.

    Args:
        every: frames from one prediction to the next; each computes the last whole clip.
    """
    device, length = next(net.parameters()).device, net.spec.frames
    held = deque(maxlen=length)
    for number, (time_s, picture) in enumerate(frames, 1):
        started, top = time.perf_counter(), ()
        held.append(transform.frame(picture))
        if number >= length and (number - length) % every == 0:
            clip = torch.stack(tuple(held), 1)[None].to(device)
            with torch.no_grad():
                vector = net.features(clip)
            top = _top(_scores(net, vector), labels)
        yield Step(number, time_s, top, 1000 * (time.perf_counter() - started))


def side_by_side(
    reader: Reader,
    model: StreamNet,
    clip_net: ClipNet,
    transform: Transform,
    labels: Sequence[str],
    *,
    every: int = 1,
    limit_s: float | None = None,
) -> list[tuple[Step, Step]]:
    """The steps of a stream, with their pictures, and of its clip net on the same frames.

    An open video is fed at the model's native rate, up to `limit_s` of it; `every` as `run_clips`.

    Raises:
        ValueError: if the video ends before the first prediction; VideoError if nothing decodes.
    """
    if every < 1:
        raise ValueError(f"expected a clip at every 1 or more frames, given every {every}")
    fps = model.spec.native_fps
    own, others = tee(resample(reader, fps))
    by_frame = run(model, transform, labels, own, limit_s, False, True)
    pairs = list(zip(by_frame, run_clips(clip_net, transform, labels, others, every), strict=False))
    if not any(step.top for step, _ in pairs):
        raise _too_short(reader, model, fps, len(pairs))
    return pairs


@torch.no_grad()
def _scores(model: ClipNet, vector: Tensor) -> list[float]:
    return scores(model, model.classifier(vector))[0].tolist()


def _top(values: list[float], labels: Sequence[str]) -> tuple[tuple[str, float], ...]:
    best = sorted(zip(labels, values, strict=True), key=lambda pair: -pair[1])
    return tuple(best[:TOP])


def _smaller(picture: np.ndarray) -> np.ndarray:
    image = Image.fromarray(picture)
    image.thumbnail((LONGEST, LONGEST))
    return np.asarray(image)


def _too_short(reader: Reader, model: StreamNet, fps: float, fed: int) -> ValueError:
    name, first = model.spec.name, model.warmup + 1
    return ValueError(
        f"{reader.source}: ends after {fed} frames at {fps:g} per second, but the first "
        f"prediction of {name} comes with frame {first} ({first / fps:.1f} s). "
        f"{reader.note}".rstrip()
    )


def watch(
    reader: Reader,
    model: StreamNet,
    transform: Transform,
    labels: Sequence[str],
    *,
    fps: float,
    limit_s: float | None = None,
    table: Path | None = None,
    features: Path | None = None,
    more: Sequence[Output] = (),
) -> None:
    """Runs `model` over an open video fed at `fps` and prints the likeliest classes per second.

    Args:
        table, features: files to write, as `Table` and `Features`; the latter holds all vectors
            in memory until the end.
        more: what else takes the steps, then with their pictures.

    Raises:
        ValueError: if the video ends before the first prediction, or a file cannot be written;
            VideoError if nothing decodes.
    """
    name, span, first = model.spec.name, model.receptive_field, model.warmup + 1
    print(f"{name}: warm-up {model.warmup} frames ({model.warmup / fps:.1f} s) before the first "
          f"prediction, {span} ({span / fps:.1f} s) until all that it sees is video")  # fmt: skip
    # A camera has no end, so what is kept has one.
    steps, started, interrupted = deque(maxlen=KEPT), time.perf_counter(), False
    outputs = [Table(table), Features(features, model, fps), *more]
    with ExitStack() as opened:
        for output in outputs:
            opened.enter_context(output)
        kept = (features is not None, bool(more))
        frames = run(model, transform, labels, resample(reader, fps), limit_s, *kept)
        bar = tqdm(frames, unit=" frames", disable=not sys.stderr.isatty(), leave=False)
        try:
            for second, group in groupby(bar, key=lambda step: int(step.time_s)):
                for step in group:
                    steps.append(replace(step, picture=None))
                    for output in outputs:
                        output.add(step)
                bar.write(_line(second, step, first, span), file=sys.stdout)
        except KeyboardInterrupt:  # the usual end of a camera: what was seen is kept
            interrupted = True
        bar.close()
        if not any(step.top for step in steps) and not interrupted:
            raise _too_short(reader, model, fps, len(steps))
    _summarise(steps, time.perf_counter() - started, reader, fps)
    if interrupted:
        raise KeyboardInterrupt


def _line(second: int, step: Step, first: int, span: int) -> str:
    """The last prediction within a second of video."""
    if not step.top:
        return f"{second:5d} s  warming up: frame {step.number} of {first}"
    shown = "  ".join(f"{label} {100 * p:.0f} %" for label, p in step.top)
    return f"{second:5d} s  {shown}" + ("  (start-up)" if step.number < span else "")


def _summarise(steps: Sequence[Step], seconds: float, reader: Reader, fps: float) -> None:
    if not steps:
        return
    times = [step.latency_ms for step in steps if step.top] or [s.latency_ms for s in steps]
    median, p95 = np.percentile(times, [50, 95])
    total = steps[-1].number
    rate = total / seconds
    print(f"{total} frames in {seconds:.1f} s: {rate:.0f} frames per second "
          f"({rate / fps:.1f} x real time)")  # fmt: skip
    print(f"latency from picture to prediction: median {median:.1f} ms, p95 {p95:.1f} ms")
    if reader.note:
        print(f"{reader.source}: {reader.note}", file=sys.stderr)

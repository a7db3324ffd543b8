"""A continual net on one video, frame by frame, as it would run on a camera."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .. import paths
from ..data.kinetics import KINETICS400_LABELS
from ..data.sampling import Newest, resample
from ..data.synthetic import SYNTHETIC_KINETICS_LABELS
from ..data.synthetic_charades import LABELS as SYNTHETIC_CHARADES_LABELS
from ..data.transforms import Transform
from ..data.video import Reader
from ..deploy import OptimizedStream, Runner
from ..deploy.native import NoCompiler
from ..nn import ClipNet, StreamNet
from ..nn.core import State
from ..zoo.checkpoints import scores

TOP = 5
KEPT = 10_000  # frames of which the medians are taken
LONGEST = 480  # pixels of the longer side of a picture that is kept to be shown
LABELS = {
    "kinetics400": KINETICS400_LABELS,
    "synthetic-kinetics": SYNTHETIC_KINETICS_LABELS,
    "synthetic-charades": SYNTHETIC_CHARADES_LABELS,
}
Net = StreamNet | OptimizedStream  # of which a Runner is one


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of all classes, each between 0 and 1.

    Attributes:
        values: (classes,), on the CPU.
        labels: names of the classes.
    """

    values: Tensor
    labels: Sequence[str]

    def top(self, count: int = TOP) -> list[tuple[str, float]]:
        """The likeliest classes with their scores, likeliest first."""
        values, classes = self.values.sort(descending=True, stable=True)
        best = zip(classes[:count].tolist(), values[:count].tolist(), strict=True)
        return [(self.labels[number], value) for number, value in best]


@dataclass(frozen=True, eq=False)
class Step:
    """What became of a frame.

    Attributes:
        number: of the frame as fed, from 1.
        time_s: of the video.
        scores: None while the network has no output.
        decode_ms: from the source to the input of the network.
        step_ms: from there to the scores.
        frame: the input of the network, (3, S, S); this and the following where they are kept.
        picture: uint8 (H, W, 3).
        features: the vector before the classifier (D,).
    """

    number: int
    time_s: float
    scores: Scores | None
    decode_ms: float
    step_ms: float
    frame: Tensor | None = None
    picture: np.ndarray | None = None
    features: np.ndarray | None = None


class Watch:
    """What a continual net sees in a video, frame by frame: `co3d.watch`. It is iterated once.

    `for t, scores in co3d.watch("video.mp4", model): ...` gives the seconds of video and `Scores`
    with every prediction; `steps` gives what becomes of every frame. A file is seen whole at the
    rate of the net. A camera does not wait: a slower net gets the newest frame.

    Args:
        source: a video file, a camera (its number, "webcam:1", "/dev/video1") or a stream's
            address. It is opened at once, and closed at the end of the iteration.
        model: a continual net, one that `co3d.optimize` made, or a `Runner` of an exported file.
        transform: from pictures to frames (default: that of the model).
        engine: of an eager net: "native" or "torch", as `OptimizedStream`, or "eager", the net
            itself (default: the fastest of them here).
        threads: of the engine; "torch" and "eager" set torch's number of threads for good.
        fps: frames per second of video (default: the rate that the model was trained at).
        seconds: of the video to watch at most.

    Attributes:
        name: of the model.
        engine: what runs a step.
        reader: the open video.
        fps: frames per second that the model is fed.
        frames: how many it was fed.
        caveats: why predictions may be worse than usual, a sentence each.

    Raises:
        ValueError: for a model that needs whole clips, or an engine, rate or transform that it
            cannot have; while iterating, for a video that ends before the first prediction.
        VideoError: for a source that cannot be opened or, while iterating, decoded.
    """

    def __init__(
        self,
        source: str | Path | int,
        model: Net,
        transform: Transform | None = None,
        *,
        engine: str | None = None,
        threads: int | None = None,
        fps: float | None = None,
        seconds: float | None = None,
    ) -> None:
        facts = _facts(model)
        self.name, self.seconds, self.frames = facts.name, seconds, 0
        self.fps = facts.fps if fps is None else fps
        self.transform = transform or facts.transform
        if self.fps is None or self.transform is None:
            raise ValueError(f"expected fps and a transform with {self.name}, which has none")
        self._opened = ExitStack()
        self.reader = self._opened.enter_context(Reader(source))
        frames = self.reader.decode()
        self._newest = Newest(frames, self.fps) if self.reader.live else None
        self._frames = self._newest or resample(frames, self.fps)
        size = self.transform.image_size
        self.model, self.engine, self._device = _prepared(model, size, engine, threads)
        self.caveats = _caveats(facts, self.fps, self.reader.source)
        self._labels: Sequence[str] = ()
        self._times: deque[tuple[float, float]] = deque(maxlen=KEPT)

    def __iter__(self) -> Iterator[tuple[float, Scores]]:
        return ((step.time_s, step.scores) for step in self.steps() if step.scores)

    @property
    def dropped(self) -> int | None:
        """Frames of a live source that the net had no time for; None for a file."""
        return self._newest.dropped if self._newest else None

    @property
    def latency_ms(self) -> tuple[float, float]:
        """Milliseconds from the source to the input of the net, and from there to the scores.

        Medians over the frames since the first prediction.
        """
        decode, step = np.median(self._times, axis=0).tolist()
        return decode, step

    def steps(self, keep: bool = False, features: bool = False) -> Iterator[Step]:
        """What becomes of every frame, also while there is no prediction.

        Args:
            keep: whether steps hold the input of the net and the picture, the latter scaled down
                to LONGEST.
            features: whether they hold the vector before the classifier; engine "eager" only.

        Raises:
            ValueError, VideoError: as the class; ValueError also for features of another engine.
        """
        if features and self.engine != "eager":
            raise ValueError(
                f"expected engine eager for the vectors before the classifier, given {self.engine}"
            )
        state, decoded_s, first = None, 0.0, self.model.warmup + 1
        with self._opened, closing(iter(self._frames)) as frames:
            for time_s, raw in frames:
                if self.seconds is not None and time_s >= self.seconds:
                    break
                begun = perf_counter()
                picture = self.reader.rgb(raw)
                frame = self.transform.frame(picture)
                ready = perf_counter()
                result, vector, state = self._step(frame[None], state, features)
                step_ms = 1000 * (perf_counter() - ready)
                decode_ms = 1000 * (self.reader.decode_s - decoded_s + ready - begun)
                decoded_s = self.reader.decode_s
                self.frames += 1
                if self.frames == first:
                    self._times.clear()
                self._times.append((decode_ms, step_ms))
                step = Step(self.frames, time_s, result, decode_ms, step_ms, features=vector)
                yield replace(step, frame=frame, picture=_smaller(picture)) if keep else step
        if self.frames < first:
            raise ValueError(
                f"{self.reader.source}: ends after {self.frames} frames at {self.fps:g} per "
                f"second, but the first prediction of {self.name} comes with frame {first} "
                f"({first / self.fps:.1f} s). {self.reader.note}".rstrip()
            )

    @torch.no_grad()
    def _step(
        self, frame: Tensor, state: State | None, features: bool
    ) -> tuple[Scores | None, np.ndarray | None, State]:
        """Scores and, if asked for, features of a frame, and the next state."""
        model, options = self.model, {"features": True} if features else {}
        y, state = model.step(frame.to(self._device), state, **options)
        if y is None:
            return None, None, state
        logits = model.classifier(y) if features else y
        values = model.scores(logits) if isinstance(model, Runner) else scores(model, logits)
        self._labels = self._labels or class_names(model, logits.shape[1])
        vector = y[0].cpu().numpy() if features else None
        return Scores(values[0].cpu(), self._labels), vector, state


def clip_steps(net: ClipNet, steps: Iterable[Step], every: int = 1) -> Iterator[Step]:
    """The steps of a clip net, which predicts from as many frames on as its clip has.

    Args:
        steps: of a stream, with the frames that it was fed.
        every: frames from one prediction to the next; each computes the last whole clip.

    Raises:
        ValueError: for less than 1 frame from one prediction to the next.
    """
    if every < 1:
        raise ValueError(f"expected a clip at every 1 or more frames, given every {every}")
    device, length, labels = next(net.parameters()).device, net.spec.frames, class_names(net)
    recent = deque(maxlen=length)
    for step in steps:
        begun, result = perf_counter(), None
        recent.append(step.frame)
        if step.number >= length and (step.number - length) % every == 0:
            clip = torch.stack(tuple(recent), 1)[None].to(device)
            with torch.no_grad():
                result = Scores(scores(net, net(clip))[0].cpu(), labels)
        step_ms = 1000 * (perf_counter() - begun)
        yield Step(step.number, step.time_s, result, step.decode_ms, step_ms)


def class_names(model: ClipNet | Net, classes: int | None = None) -> Sequence[str]:
    """The names of a model's classes, from its weights or their data set; codes where unknown.

    Weights with 400 classes that do not name their data set are taken for Kinetics-400. The names
    of Charades come with the data set only.

    Args:
        classes: their number, for a model without a classifier.

    Raises:
        ValueError: if the file with the names of Charades cannot be used.
    """
    classes = classes or model.classifier.out_features
    facts = _facts(model)
    data = facts.training_data or ("kinetics400" if classes == 400 else "")
    names = facts.labels or LABELS.get(data, ())
    if data == "charades" and not names:
        from ..data import charades, sets  # which take their time to import

        with suppress(FileNotFoundError):
            names = charades.class_names(sets.set_root("charades"))
    return names if len(names) == classes else tuple(f"c{n:03d}" for n in range(classes))


class _Facts(NamedTuple):
    """What is known of a model, whatever its form."""

    name: str
    training_data: str
    labels: Sequence[str]
    fps: float | None
    transform: Transform | None


def _facts(model: ClipNet | Net) -> _Facts:
    if isinstance(model, Runner):
        record = model.record
        transform = model.transform if record.transform else None
        data = record.weights.get("training_data", "")
        return _Facts(record.model, data, record.labels, record.transform.get("fps"), transform)
    from .. import transform_for  # which composes zoo and data

    record, weights = getattr(model, "spec", None), getattr(model, "weights", None)
    data, labels = (weights.training_data, weights.labels) if weights else ("", ())
    if record is None:
        return _Facts(type(model).__name__, data, labels, None, None)
    order = weights.channel_order if weights else record.channel_order
    transform = replace(transform_for(record.name), channel_order=order)
    return _Facts(record.name, data, labels, record.native_fps, transform)


def _caveats(facts: _Facts, fps: float, source: str) -> list[str]:
    caveats = []
    if facts.fps not in (None, fps):
        caveats.append(
            f"{facts.name} was trained at {facts.fps:g} frames per second; fed at {fps:g} it may "
            "be less accurate"
        )
    made_here = paths.cache_path() in Path(source).absolute().parents
    if facts.training_data.startswith("synthetic-") and not made_here:
        caveats.append(
            f"{facts.name} knows only synthetic motions: here its answers mean nothing; for real "
            "classes: co3d stream SOURCE --model cox3d_m --weights kinetics400"
        )
    return caveats


def _prepared(
    model: Net, size: int, engine: str | None, threads: int | None
) -> tuple[Net, str, torch.device]:
    """The form of a model that runs the steps, its engine, and the device of frames."""
    if not isinstance(model, Net):
        name = _facts(model).name
        raise ValueError(f"{name} needs whole clips; co{name} runs the same weights on a stream")
    if not isinstance(model, StreamNet):
        if engine or threads:
            raise ValueError("expected engine and threads of an eager net alone, given "
                             f"{engine or threads} of one with an engine of its own")  # fmt: skip
        return model, model.engine, model.device
    device = next(model.parameters()).device
    if engine in ("torch", "eager") and threads:
        torch.set_num_threads(threads)
    if engine == "eager":
        return model, engine, device
    example = torch.zeros(1, 3, size, size, device=device)
    try:
        fast = OptimizedStream(model, example, threads=threads, engine=engine)
    except (NoCompiler, PermissionError) as error:  # of "native", where it is asked for
        raise ValueError(str(error)) from None
    return fast, fast.engine, device


def _smaller(picture: np.ndarray) -> np.ndarray:
    image = Image.fromarray(picture)
    image.thumbnail((LONGEST, LONGEST))
    return np.asarray(image)

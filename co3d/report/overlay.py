"""What networks say of a video, beside its frames: as pictures and as an annotated video."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Self

import matplotlib as mpl
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from ..data import writing
from ..measure import complexity
from ..measure.outputs import Step
from ..nn import ClipNet, StreamNet
from .drawings import EMPTY, macs_text
from .style import CLIP, INK, MUTED, color, label

WIDTH, MARGIN, SPLIT = 960, 16, 480  # pixels; the networks are right of SPLIT
PANEL, ROW = 252, 25  # height of what is told of a network, and of a line in it
PIXELATED = 128  # pixels of the longer side up to which a picture is enlarged without smoothing


@dataclass(frozen=True)
class Side:
    """What is to be known of a network beside a video.

    Attributes:
        first: frame with its first prediction.
        real: frame from which on no padding stands in for frames before the video.
        begins, every: frames at which it computes: `begins`, then each `every`-th.
        macs: multiply-accumulates each time, the mean over a period of temporal strides.
    """

    title: str
    about: str
    color: str
    first: int
    real: int
    begins: int
    every: int
    macs: float

    @classmethod
    def stream(cls, model: StreamNet) -> Self:
        """A stream, which computes each frame once.

        Raises:
            ValueError: for a network that is no stream.
        """
        if not isinstance(model, StreamNet):
            name = model.spec.name
            raise ValueError(
                f"{name} needs whole clips; co{name} runs the same weights on a stream"
            )
        macs = complexity.macs_frame(model, torch.empty(1, 3, *[model.spec.image_size] * 2))
        about = "each prediction computes the new frame alone"
        first, real, name = model.warmup + 1, model.receptive_field, model.spec.name
        return cls(label(name), about, color(name), first, real, 1, 1, macs)

    @classmethod
    def clips(cls, net: ClipNet, every: int = 1) -> Self:
        """A clip net that is asked at every `every`-th frame from its first whole clip on."""
        length, size = net.spec.frames, net.spec.image_size
        macs = complexity.macs_clip(net, torch.empty(1, 3, length, size, size))
        about = f"each prediction computes {length} frames"
        about += f", one at every {every} frames" if every > 1 else ""
        return cls(label(net.spec.name), about, CLIP, length, length, length, every, macs)

    def spent(self, frame: int) -> float:
        """Multiply-accumulates from frame 1 to `frame`.

        A step counts in full in the start-up too, where layers that wait for frames do less.
        """
        return self.macs * max(0, 1 + (frame - self.begins) // self.every)

    def state(self, frame: int) -> str:
        """Where in its start-up it is with `frame`."""
        if frame < self.first:
            return f"no prediction before frame {self.first}"
        if frame < self.real:
            return f"start-up: sees padding too, until frame {self.real}"
        return self.about


class Watched:
    """A video that networks have seen, as pictures by the number of the frame, from 1.

    Args:
        sides: the networks.
        steps: for each frame the step of each network, of which the first one has the picture.
    """

    def __init__(self, sides: Sequence[Side], steps: Sequence[Sequence[Step]]) -> None:
        self.sides, self.steps = sides, steps
        self._said = list(accumulate(steps, _latest))

    def __len__(self) -> int:
        return len(self.steps)

    def said(self, frame: int) -> Sequence[Step]:
        """Of each network the last step with a prediction; one without if there is none."""
        return self._said[frame - 1]

    def picture(self, frame: int) -> Image.Image:
        """The frame with all that the networks told by then."""
        return annotated(self.sides, self.steps[frame - 1], self.said(frame))

    def save(self, path: str | Path, fps: float) -> None:
        """Writes all pictures as a video (H.264) at `fps` frames per second.

        Raises:
            ValueError: for a name with the suffix of no format, such as `.mp4`.
        """
        with writing.Writer(path, fps) as film:
            for frame in range(1, len(self) + 1):
                film.add(np.asarray(self.picture(frame)))


class Film(writing.Writer):
    """An annotated video (H.264) of a single network, written while it runs."""

    def __init__(self, path: Path, model: StreamNet, fps: float) -> None:
        super().__init__(path, fps)
        self._sides, self._said = [Side.stream(model)], ()

    def add_step(self, step: Step) -> None:
        """Takes every step, with its picture, also one without a prediction."""
        self._said = _latest(self._said or (step,), (step,))
        self.add(np.asarray(annotated(self._sides, (step,), self._said)))


def annotated(sides: Sequence[Side], now: Sequence[Step], said: Sequence[Step]) -> Image.Image:
    """A frame, and of each network its likeliest classes, time, start-up and MACs so far.

    Args:
        now: the steps with this frame, of which the first one has the picture.
        said: the last steps that have predictions.
    """
    size = WIDTH, MARGIN + PANEL * len(sides) + MARGIN * (len(sides) - 1)
    size = WIDTH, max(size[1], PANEL + 2 * MARGIN)
    canvas = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(canvas)
    _place(canvas, now[0].picture)
    when = f"frame {now[0].number}   {now[0].time_s:.2f} s"
    pen.text((MARGIN, size[1] - MARGIN), when, INK, _font(17, True), "ls")
    # What a network alone has spent is a number with nothing to compare it with.
    most = max(side.spent(now[0].number) for side in sides) if len(sides) > 1 else 0.0
    for row, parts in enumerate(zip(sides, now, said, strict=True)):
        _panel(pen, MARGIN + row * (PANEL + MARGIN), *parts, most)
    return canvas


def _latest(before: Sequence[Step], now: Sequence[Step]) -> Sequence[Step]:
    """Of each network the last step with a prediction."""
    return [new if new.scores else old for old, new in zip(before, now, strict=True)]


def _place(canvas: Image.Image, picture: np.ndarray) -> None:
    """Fits a picture into the left part of the canvas, whatever its shape."""
    image = Image.fromarray(picture)
    room = SPLIT - 2 * MARGIN, canvas.height - 4 * MARGIN
    scale = min(room[0] / image.width, room[1] / image.height)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    smooth = max(image.size) > PIXELATED
    image = image.resize(size, Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST)
    canvas.paste(image, (MARGIN + (room[0] - size[0]) // 2, MARGIN))


def _panel(
    pen: ImageDraw.ImageDraw, top: int, side: Side, now: Step, said: Step, most: float
) -> None:
    """What is told of one network, right of SPLIT from `top` down."""
    right, number = WIDTH - MARGIN, now.number
    pen.text((SPLIT, top + 16), side.title, side.color, _font(18, True), "ls")
    took = f"{now.step_ms:.2f} ms" if now.scores else ""
    pen.text((right, top + 16), took, MUTED, _font(14), "rs")
    pen.text((SPLIT, top + 38), side.state(number), MUTED, _font(14), "ls")
    _bar(pen, top + 47, 7, min(1.0, number / side.real), side.color if said.scores else MUTED)
    mark = SPLIT + (right - SPLIT) * side.first / side.real
    pen.line((mark, top + 43, mark, top + 57), INK, 2)
    for row, (name, share) in enumerate(said.scores.top() if said.scores else ()):
        y = top + 66 + ROW * row
        _bar(pen, y, ROW - 4, share, side.color, faint=True)
        pen.text((SPLIT + 6, y + 16), _cut(name, 44), INK, _font(15, row == 0), "ls")
        pen.text((right - 6, y + 16), f"{100 * share:.0f} %", INK, _font(15), "rs")
    if not said.scores:
        middle = (SPLIT + right) / 2, top + 66 + 2.5 * ROW
        pen.text(middle, "nothing to say yet", MUTED, _font(16), "mm")
    spent = side.spent(number)
    if most:
        _bar(pen, top + 202, 12, spent / most, side.color)
    count = f"{macs_text(spent, spent)} so far"
    pen.text((SPLIT, top + 236), count, side.color, _font(17, True), "ls")


def _bar(
    pen: ImageDraw.ImageDraw, top: int, height: int, share: float, color: str, faint: bool = False
) -> None:
    """A bar over a share of the width right of SPLIT."""
    right = WIDTH - MARGIN
    pen.rectangle((SPLIT, top, right, top + height), EMPTY)
    if share > 0:
        light = tuple(255 - (255 - int(color[n : n + 2], 16)) * 4 // 10 for n in (1, 3, 5))
        end = SPLIT + (right - SPLIT) * share
        pen.rectangle((SPLIT, top, end, top + height), light if faint else color)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


@cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The font of all figures, which comes with matplotlib."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(mpl.get_data_path(), "fonts", "ttf", name), size)

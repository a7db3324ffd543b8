"""What networks say of a video, beside its frames: as pictures and as an annotated video."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.colors import to_hex, to_rgb
from PIL import Image, ImageDraw, ImageFont, ImageOps

from ..data.video import Writer
from ..measure import complexity
from ..measure.live import Step
from ..nn import ClipNet, StreamNet
from .drawings import EMPTY, macs_text
from .style import CLIP, INK, MUTED, color, label

WIDTH, MARGIN, SPLIT = 960, 16, 480  # pixels; the networks are right of SPLIT
RIGHT = WIDTH - MARGIN
PANEL, ROW = 252, 25  # height of the panel of a network, and of a line in it
PIXELATED = 128  # pixels of the longer side up to which a picture is enlarged without smoothing


@dataclass(frozen=True)
class Side:
    """What a viewer needs to know about a network beside a video.

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
        """A stream, which computes each frame once."""
        name, size = model.spec.name, model.spec.image_size
        macs = complexity.macs_frame(model, torch.empty(1, 3, size, size))
        about = "each prediction computes the new frame alone"
        first, real = model.warmup + 1, model.receptive_field
        return cls(label(name), about, color(name), first, real, 1, 1, macs)

    @classmethod
    def clips(cls, net: ClipNet, every: int = 1) -> Self:
        """A clip network that predicts at every `every`-th frame from its first whole clip on."""
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


class Film(Writer):
    """An annotated video (H.264) of one stream, written while it runs."""

    def __init__(self, path: Path, model: StreamNet, fps: float) -> None:
        super().__init__(path, fps)
        self._sides, self._latest = [Side.stream(model)], None

    def add_step(self, step: Step) -> None:
        """Takes every step, with its picture, also one without a prediction."""
        self._latest = step if step.scores or self._latest is None else self._latest
        self.add(np.asarray(annotated(self._sides, [step], [self._latest])))


def picture(sides: Sequence[Side], steps: Sequence[Sequence[Step]], frame: int) -> Image.Image:
    """The picture of a frame, from 1; `steps` holds for each frame the step of each network."""
    now, latest = steps[frame - 1], []
    for place, step in enumerate(now):
        before = (both[place] for both in reversed(steps[:frame]) if both[place].scores)
        latest.append(next(before, step))
    return annotated(sides, now, latest)


def annotated(sides: Sequence[Side], now: Sequence[Step], latest: Sequence[Step]) -> Image.Image:
    """A frame, and of each network its likeliest classes, time, start-up and MACs so far.

    Args:
        now: the step of each network with this frame; the first one has the picture.
        latest: the last step of each network that has scores, any other before that.
    """
    height = MARGIN + max(len(sides) * (PANEL + MARGIN) - MARGIN, PANEL + MARGIN)
    canvas = Image.new("RGB", (WIDTH, height), "white")
    pen, number = ImageDraw.Draw(canvas), now[0].number
    image = Image.fromarray(now[0].picture)
    smooth = Image.Resampling.BICUBIC if max(image.size) > PIXELATED else Image.Resampling.NEAREST
    room = SPLIT - 2 * MARGIN, height - 4 * MARGIN
    fitted = ImageOps.pad(image, room, smooth, color="white", centering=(0.5, 0))
    canvas.paste(fitted, (MARGIN, MARGIN))
    when = f"frame {number}   {now[0].time_s:.2f} s"
    pen.text((MARGIN, height - MARGIN), when, INK, _font(17, True), "ls")
    # The MACs of a network alone have nothing to be compared with.
    most = max(side.spent(number) for side in sides) if len(sides) > 1 else 0.0
    for row, (side, step, last) in enumerate(zip(sides, now, latest, strict=True)):
        _panel(pen, MARGIN + row * (PANEL + MARGIN), side, step, last, most)
    return canvas


def _panel(
    pen: ImageDraw.ImageDraw, top: int, side: Side, now: Step, latest: Step, most: float
) -> None:
    """One network, right of SPLIT from `top` down."""
    spent = side.spent(now.number)
    pen.text((SPLIT, top + 16), side.title, side.color, _font(18, True), "ls")
    pen.text((SPLIT, top + 38), side.state(now.number), MUTED, _font(14), "ls")
    if now.scores:
        pen.text((RIGHT, top + 16), f"{now.step_ms:.2f} ms", MUTED, _font(14), "rs")
    tone = side.color if latest.scores else MUTED
    _bar(pen, top + 47, 7, min(1.0, now.number / side.real), tone)
    mark = SPLIT + (RIGHT - SPLIT) * side.first / side.real
    pen.line((mark, top + 43, mark, top + 57), INK, 2)
    for row, (name, share) in enumerate(latest.scores.top() if latest.scores else ()):
        y, text = top + 66 + ROW * row, name if len(name) <= 44 else f"{name[:43]}…"
        _bar(pen, y, ROW - 4, share, _light(side.color))
        pen.text((SPLIT + 6, y + 16), text, INK, _font(15, row == 0), "ls")
        pen.text((RIGHT - 6, y + 16), f"{100 * share:.0f} %", INK, _font(15), "rs")
    if not latest.scores:
        middle = (SPLIT + RIGHT) / 2, top + 66 + 2.5 * ROW
        pen.text(middle, "no prediction yet", MUTED, _font(16), "mm")
    if most:
        _bar(pen, top + 202, 12, spent / most, side.color)
    count = f"{macs_text(spent, spent)} so far"
    pen.text((SPLIT, top + 236), count, side.color, _font(17, True), "ls")


def _bar(pen: ImageDraw.ImageDraw, top: int, height: int, share: float, color: str) -> None:
    """A bar over a share of the width right of SPLIT."""
    pen.rectangle((SPLIT, top, RIGHT, top + height), EMPTY)
    if share > 0:
        pen.rectangle((SPLIT, top, SPLIT + (RIGHT - SPLIT) * share, top + height), color)


def _light(color: str) -> str:
    """The colour at 40 % on white."""
    return to_hex([1 - 0.4 * (1 - part) for part in to_rgb(color)])


@cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The font of all figures, which comes with matplotlib."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(mpl.get_data_path(), "fonts", "ttf", name), size)

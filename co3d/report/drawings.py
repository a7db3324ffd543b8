"""Concept drawings and animations: the idea of continual convolution on numbers one can check."""

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import FancyArrowPatch, Rectangle
from PIL import Image

from .figures import metadata, target
from .style import CLIP, FAMILY_COLORS, INK, MUTED, STYLE, WIDTH, Drawing

GIF_LIMIT_BYTES = 1_000_000
NEW, AGAIN, KEPT, EMPTY = FAMILY_COLORS["x3d"], FAMILY_COLORS["slow"], "#CFE3F1", "#F2F2F2"
EXACT = ("#FFFFFF", "#CCCCCC", NEW, AGAIN, KEPT, EMPTY, CLIP)  # in every animation


def _canvas(width: float, height: float, inches: float = WIDTH) -> tuple[Drawing, Axes]:
    """An empty drawing of `width` x `height` units, origin top left, `inches` wide."""
    fig = Drawing(inches, inches * height / width)
    ax = fig.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    ax.set_axis_off()
    return fig, ax


def _box(
    ax: Axes,
    x: float,
    y: float,
    text: object = "",
    *,
    face: str = "white",
    ink: str = INK,
    w: float = 0.9,
    h: float = 0.9,
    **edge: str,
) -> None:
    """A box with its centre at x, y and a text in it."""
    edge = {"edgecolor": MUTED, "linewidth": 1.1, **edge}
    ax.add_patch(Rectangle((x - w / 2, y - h / 2), w, h, facecolor=face, **edge))
    _say(ax, x, y, str(text), color=ink)


def _say(ax: Axes, x: float, y: float, text: str, **style: object) -> None:
    ax.text(x, y, text, **{"ha": "center", "va": "center", "color": INK, **style})


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], color: str) -> None:
    ax.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=11,
            lw=1.3,
            color=color,
            shrinkA=0,
            shrinkB=0,
        )
    )


@mpl.rc_context(STYLE)
def principle(kernel: Sequence[int], frames: Sequence[int], step: int) -> Drawing:
    """One step of a continual convolution: `frames[step - 1]` arrives, one output is completed."""
    size, new = len(kernel), frames[step - 1]
    fig, ax = _canvas(20, 1.6 + 1.5 * size)
    heads = (
        (2, "the new frame"),
        (6.2, "times every kernel slice"),
        (11.2, "plus what is stored"),
        (15, "= sum"),
        (18, "goes to"),
    )
    for x, text in heads:
        _say(ax, x, 0.6, text, weight="bold")
    middle = 0.5 + 1.5 * (size + 1) / 2
    _box(ax, 2, middle, f"$x_{step}$ = {new}", face=NEW, ink="white", w=2.2)
    for ahead in range(size):
        y, output, weight = 0.5 + 1.5 * (ahead + 1), step + ahead, kernel[size - 1 - ahead]
        seen = range(max(1, output - size + 1), step)
        terms = [(kernel[size - 1 - (output - t)], frames[t - 1]) for t in seen]
        stored = sum(w * x for w, x in terms)
        text = " + ".join(f"{w}·{x}" for w, x in terms) + f" = {stored}" if terms else "nothing yet"
        done = ahead == 0
        _arrow(ax, (3.2, middle), (4.7, y), NEW)
        _box(ax, 6.2, y, f"{weight}·{new} = {weight * new}", face=KEPT, w=2.8)
        _say(ax, 8.4, y, "+", size=13)
        _box(ax, 11.2, y, text, face=EMPTY, w=4.6, linestyle="-" if terms else "--")
        _say(ax, 13.9, y, "=", size=13)
        _box(
            ax,
            15,
            y,
            stored + weight * new,
            face=NEW if done else KEPT,
            ink="white" if done else INK,
            w=1.3,
        )
        _arrow(ax, (15.8, y), (16.5, y), NEW if done else MUTED)
        goal = f"output $y_{output}$" if done else f"state: $y_{output}$ so far"
        _say(ax, 16.7, y, goal, ha="left", weight="bold" if done else "normal")
    return fig


@mpl.rc_context(STYLE)
def residual_alignment(frames: int = 6, delay: int = 1) -> Drawing:
    """Which shortcut frame meets which main-branch output, without and with the delay."""
    fig, ax = _canvas(20, 8)
    wrong = {"ink": AGAIN, "edgecolor": AGAIN, "linestyle": "--"}
    rows = (
        ("frame that arrives", "$x_{0}$", 0, {"face": KEPT}),
        ("main branch emits", "$y_{0}$", delay, {"face": KEPT}),
        ("shortcut, not delayed: out of step", "$x_{0}$", 0, wrong),
        (f"shortcut, delayed by {delay}", "$x_{0}$", delay, {"face": KEPT}),
        ("block emits", "$y_{0} + x_{0}$", delay, {"face": NEW, "ink": "white"}),
    )
    for y, (name, text, late, style) in enumerate(rows, 1):
        _say(ax, 5.6, 0.4 + 1.3 * y, name, ha="right", color=style.get("edgecolor", INK))
        for step in range(1, frames + 1):
            cell = (text.format(step - late), style) if step > late else ("", {"face": EMPTY})
            _box(ax, 5.1 + 2.1 * step, 0.4 + 1.3 * y, cell[0], w=1.95, **cell[1])
            if y == 1:
                _say(ax, 5.1 + 2.1 * step, 0.7, f"step {step}", weight="bold")
    return fig


@mpl.rc_context(STYLE)
def padding_shift(frames: int = 6) -> Drawing:
    """Two 3-frame convolutions: which values of a clip feel its zero padding, and the stream."""
    fig, ax = _canvas(2 * frames + 13, 9.2)
    for left, stream in ((3.2, False), (frames + 8.7, True)):
        for depth, (y, name) in enumerate(((7.0, "frames"), (4.6, "layer 1"), (2.2, "layer 2"))):
            # The clip has a zero at either end of each layer's input, the stream a real value.
            reach = 2 - depth if stream else min(1, 2 - depth)
            for position in range(1 - reach, frames + 1 + reach):
                border = min(position, frames + 1 - position)
                face = KEPT if depth == 0 else NEW if stream or border > depth else AGAIN
                text = f"$x_{{{position}}}$" if depth == 0 else ""
                if border < 1 and not stream:
                    face, text = EMPTY, "0"
                _box(ax, left + position, y, text, face=face)
            for tip in range(frames - 1 + depth, frames + 2 - depth):
                for foot in (-1, 0, 1) if depth < 2 and tip <= frames + reach - 1 else ():
                    ax.plot(
                        [left + tip + foot, left + tip], [y - 0.45, y - 1.95], color=MUTED, lw=0.9
                    )
            _say(ax, 0.2, y, name, ha="left")
        title = "stream: the border is now the middle" if stream else "clip: zeros at both ends"
        _say(ax, left + (frames + 1) / 2, 0.7, title, weight="bold")
    legend = (
        (3.2, KEPT, "frame"),
        (6.2, EMPTY, "padding zero"),
        (10.7, NEW, "from real frames alone"),
        (17.5, AGAIN, "from frames and zeros"),
    )
    for x, face, text in legend:
        _box(ax, x, 8.5, face=face, w=0.5, h=0.5)
        _say(ax, x + 0.5, 8.5, text, ha="left")
    return fig


def clip_against_step(kernel: Sequence[int], frames: Sequence[int], clip: int) -> list[Image.Image]:
    """An animation: per new frame, a convolution over the last `clip` frames, and one step."""
    return [_at_frame(now, kernel, frames, clip) for now in range(1, len(frames) + 1)]


@mpl.rc_context(STYLE)
def _at_frame(now: int, kernel: Sequence[int], frames: Sequence[int], clip: int) -> Image.Image:
    size = len(kernel)
    sums = np.convolve(frames[:now], kernel[::-1])  # outputs 1, 2, ... as far as frames 1..now go
    clips = max(0, now - clip + 1)
    fig, ax = _canvas(len(frames) + size + 7, 9.2, inches=7.6)
    for top, stream in ((0.8, False), (5.4, True)):
        window = range(now if stream else now - clip + 1, now + 1) if stream or clips else ()
        outputs = range(size, now + size) if stream else range(now - clip + size, now + 1)
        multiplications = size * now if stream else size * (clip - size + 1) * clips
        title = f"Clip by clip: all outputs of the last {clip} frames, most of them again"
        title = "Frame by frame: one step, dashed sums wait for later frames" if stream else title
        _say(ax, 0.4, top, title, ha="left", weight="bold", size=11)
        for t in range(1, now + 1):
            face, ink = (KEPT, INK) if t in window else ("white", MUTED)
            _box(ax, 2.6 + t, top + 1.2, frames[t - 1], face=face, ink=ink)
        for t in outputs if stream or clips else ():
            face = NEW if t == now else "white" if t < now else EMPTY
            face = AGAIN if t < now and not stream else face
            _box(
                ax,
                2.6 + t,
                top + 2.6,
                sums[t - 1],
                face=face,
                ink="white" if face in (NEW, AGAIN) else MUTED,
                linestyle="--" if t > now else "-",
            )
        _say(ax, 0.4, top + 1.2, "frames", ha="left")
        _say(ax, 0.4, top + 2.6, "outputs", ha="left")
        right = len(frames) + size + 4.4
        _say(
            ax,
            right,
            top + 1.3,
            f"{multiplications}",
            size=22,
            weight="bold",
            color=NEW if stream else AGAIN,
        )
        _say(ax, right, top + 2.4, "multiplications", color=MUTED)
    return _rgb(fig)


def hero(
    video: np.ndarray,
    stem: str,
    folder: Path | str,
    *,
    names: tuple[str, str],
    clip_frames: int,
    clip_macs: float,
    step_macs: float,
    first_output: int,
    every: int = 4,
    ms: int = 200,
) -> Path:
    """Write the animation of a clip net against a stream on the same frames; returns its path.

    Args:
        video: uint8 (T, H, W, 3), of which every so many frames are shown.
        names: what the clip net and the stream are called.
        clip_frames, first_output: frame from which on either predicts at each new frame.
        clip_macs, step_macs: multiply-accumulates of one clip and of one step.
    """
    ends = max(1, len(video) - clip_frames + 1) * clip_macs, len(video) * step_macs
    images = []
    for now in range(every, len(video) + 1, every):
        clips = max(0, now - clip_frames + 1)
        rows = (
            (
                f"{names[0]}: every prediction computes {clip_frames} frames",
                clip_frames,
                clips * clip_macs,
                clips,
                CLIP,
            ),
            (
                f"{names[1]}: every prediction computes the new frame alone",
                1,
                now * step_macs,
                max(0, now - first_output + 1),
                NEW,
            ),
        )
        images.append(_hero(video[max(0, now - clip_frames) : now], clip_frames, rows, max(ends)))
    return save_gif(images, stem, folder, ms)


@mpl.rc_context(STYLE)
def _hero(recent: np.ndarray, slots: int, rows: Sequence[tuple], full: float) -> Image.Image:
    width, gap = 760, 3
    thumb = (width - 20) // slots - gap
    high = round(thumb * recent.shape[1] / recent.shape[2])
    fig, ax = _canvas(width, 2 * high + 210, inches=width / 100)
    for row, (title, computed, macs, predictions, color) in enumerate(rows):
        top = 14 + row * (high + 102)
        _say(ax, 10, top, title, ha="left", weight="bold", size=9.5)
        for slot in range(slots):
            x, age = 10 + slot * (thumb + gap), slots - slot
            _box(
                ax,
                x + thumb / 2,
                top + 16 + high / 2,
                face=EMPTY,
                w=thumb + 2,
                h=high + 2,
                edgecolor=color if age <= computed else "#CCCCCC",
            )
            if age <= min(computed, len(recent)):
                small = Image.fromarray(recent[-age]).resize((thumb, high), Image.Resampling.BOX)
                ax.imshow(
                    small,
                    extent=(x, x + thumb, top + 16 + high, top + 16),
                    interpolation="nearest",
                    aspect="auto",
                    zorder=2,
                )
        y = top + high + 34
        ax.add_patch(Rectangle((10, y - 7), (width - 20) * macs / full, 14, facecolor=color))
        count = macs_text(macs, full)
        _say(ax, 10, y + 20, count, ha="left", weight="bold", size=12, color=color)
        _say(ax, width - 10, y + 20, f"{predictions} predictions", ha="right", color=MUTED)
    ax.set(xlim=(0, width), ylim=(2 * high + 210, 0))
    return _rgb(fig)


def macs_text(macs: float, most: float) -> str:
    """Multiply-accumulates in the unit for `most` of them, which is GMACs from 10 GMACs on."""
    return f"{macs / 1e9:,.1f} GMACs" if most >= 1e10 else f"{macs / 1e6:,.0f} MMACs"


def save_gif(images: Sequence[Image.Image], stem: str, folder: Path | str, ms: int) -> Path:
    """Write RGB `images`, `ms` milliseconds each, to folder/figures/stem.gif and return its path.

    The last one stays longer. All share one palette, so that still areas cost nothing. Its metadata
    is a comment. Raises ValueError if the file would exceed GIF_LIMIT_BYTES.
    """
    path = target(stem + ".gif", folder)
    sheet = Image.fromarray(np.concatenate([np.asarray(image) for image in images[::4]]))
    colors = np.reshape(sheet.quantize(48, dither=Image.Dither.NONE).getpalette(), (-1, 3))
    # paper, empty boxes and the colours that mean something as they are, not nearly so
    exact = np.array([[round(255 * part) for part in to_rgb(one)] for one in EXACT])
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.concatenate([exact, colors[colors.min(axis=1) < 236]]).flatten().tolist())
    still = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    buffer, times = io.BytesIO(), [ms] * (len(still) - 1) + [2500]
    said = "\n".join(f"{name}: {text}" for name, text in metadata(stem).items())
    options = {"append_images": still[1:], "duration": times, "loop": 0, "comment": said.encode()}
    still[0].save(buffer, format="GIF", save_all=True, **options)
    if buffer.tell() > GIF_LIMIT_BYTES:
        raise ValueError(
            f"{path.name} needs {buffer.tell():,} of {GIF_LIMIT_BYTES:,} bytes: use fewer images"
        )
    part = path.with_name(path.name + ".part")
    part.write_bytes(buffer.getvalue())
    return part.replace(path)


def _rgb(fig: Drawing) -> Image.Image:
    """The drawn figure as an image, 100 pixels per inch."""
    fig.canvas.draw()
    return Image.fromarray(np.asarray(fig.canvas.buffer_rgba())[..., :3])

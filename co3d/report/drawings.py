"""Concept drawings and animations: the idea of continual convolution on numbers one can check."""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from PIL import Image, ImageColor

from ..files import write
from .figures import metadata
from .style import CLIP, FAMILY_COLORS, INK, MUTED, STYLE, WIDTH, Drawing

NEW, AGAIN, KEPT, EMPTY = FAMILY_COLORS["x3d"], FAMILY_COLORS["slow"], "#CFE3F1", "#F2F2F2"
EXACT = ("#FFFFFF", "#CCCCCC", NEW, AGAIN, KEPT, EMPTY, CLIP)  # in every animation
SUMS = 9  # columns for sums that wait in `unrolled`, whose pictures all have one size


def _canvas(width: float, height: float, inches: float = WIDTH) -> tuple[Drawing, Axes]:
    """An empty drawing of `width` x `height` units, origin top left, `inches` wide."""
    fig = Drawing(inches, inches * height / width)
    ax = fig.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    ax.set_axis_off()
    return fig, ax


def _say(ax: Axes, x: float, y: float, text: str, **style: object) -> None:
    ax.text(x, y, text, **{"ha": "center", "va": "center", "color": INK, **style})


def _box(
    ax: Axes,
    x: float,
    y: float,
    text: object = "",
    face: str = "white",
    ink: str | None = None,
    *,
    w: float = 0.9,
    h: float = 0.9,
    **edge: str,
) -> None:
    """A box with its centre at x, y and a text in it, white on dark faces."""
    edge = {"edgecolor": MUTED, "linewidth": 1.1, **edge}
    ax.add_patch(Rectangle((x - w / 2, y - h / 2), w, h, facecolor=face, **edge))
    _say(ax, x, y, str(text), color=ink or ("white" if face in (NEW, AGAIN) else INK))


def _key(ax: Axes, y: float, entries: Iterable[tuple[float, str, str]]) -> None:
    """Explains colours: the place, the colour and the meaning of each."""
    for x, face, meaning in entries:
        _box(ax, x, y, face=face, w=0.5, h=0.5)
        _say(ax, x + 0.5, y, meaning, ha="left", size=8.5)


@mpl.rc_context(STYLE)
def principle(kernel: Sequence[int], frames: Sequence[int], step: int) -> Drawing:
    """One step of a continual convolution: `frames[step - 1]` arrives, one output is completed."""
    size, new = len(kernel), frames[step - 1]
    fig, ax = _canvas(20, 1.6 + 1.5 * size)
    heads = ("the new frame", "times every kernel slice", "plus what is stored", "= sum", "goes to")
    for x, head in zip((2, 6.2, 11.2, 15, 18), heads, strict=True):
        _say(ax, x, 0.6, head, weight="bold")
    middle = 0.5 + 1.5 * (size + 1) / 2
    arrow = {"arrowstyle": "-|>", "lw": 1.3, "shrinkA": 0, "shrinkB": 0}
    _box(ax, 2, middle, f"$x_{step}$ = {new}", NEW, w=2.2)
    for ahead in range(size):
        y, output, weight = 0.5 + 1.5 * (ahead + 1), step + ahead, kernel[size - 1 - ahead]
        seen = range(max(1, output - size + 1), step)
        terms = [(kernel[size - 1 - (output - t)], frames[t - 1]) for t in seen]
        stored = sum(w * x for w, x in terms)
        text = " + ".join(f"{w}·{x}" for w, x in terms) + f" = {stored}" if terms else "nothing yet"
        tone = MUTED if ahead else NEW
        ax.annotate("", (4.7, y), (3.2, middle), arrowprops=arrow | {"color": NEW})
        _box(ax, 6.2, y, f"{weight}·{new} = {weight * new}", KEPT, w=2.8)
        _say(ax, 8.4, y, "+", size=13)
        _box(ax, 11.2, y, text, EMPTY, w=4.6, linestyle="-" if terms else "--")
        _say(ax, 13.9, y, "=", size=13)
        _box(ax, 15, y, stored + weight * new, KEPT if ahead else NEW, w=1.3)
        ax.annotate("", (16.5, y), (15.8, y), arrowprops=arrow | {"color": tone})
        goal = f"state: $y_{output}$ so far" if ahead else f"output $y_{output}$"
        _say(ax, 16.7, y, goal, ha="left", weight="normal" if ahead else "bold")
    return fig


@mpl.rc_context(STYLE)
def residual_alignment(frames: int = 6, delay: int = 1) -> Drawing:
    """Which shortcut frame meets which main-branch output, without and with the delay."""
    fig, ax = _canvas(20, 8)
    rows = (
        ("frame that arrives", "$x_{0}$", 0, KEPT),
        ("main branch emits", "$y_{0}$", delay, KEPT),
        ("shortcut, not delayed: out of step", "$x_{0}$", 0, "white"),
        (f"shortcut, delayed by {delay}", "$x_{0}$", delay, KEPT),
        ("block emits", "$y_{0} + x_{0}$", delay, NEW),
    )
    for row, (name, text, late, face) in enumerate(rows, 1):
        y, ink, edge = 0.4 + 1.3 * row, None, {}
        if face == "white":  # wrong
            ink, edge = AGAIN, {"edgecolor": AGAIN, "linestyle": "--"}
        _say(ax, 5.6, y, name, ha="right", color=ink or INK)
        for step in range(1, frames + 1):
            x = 5.1 + 2.1 * step
            if row == 1:
                _say(ax, x, 0.7, f"step {step}", weight="bold")
            if step > late:
                _box(ax, x, y, text.format(step - late), face, ink, w=1.95, **edge)
            else:
                _box(ax, x, y, face=EMPTY, w=1.95)
    return fig


@mpl.rc_context(STYLE)
def padding_shift(frames: int = 6) -> Drawing:
    """Two 3-frame convolutions: which values of a clip feel its zero padding, and the stream."""
    fig, ax = _canvas(2 * frames + 13, 9.2)
    titles = ("clip: zeros at both ends", "stream: the border is now the middle")
    for stream, (left, title) in enumerate(zip((3.2, frames + 8.7), titles, strict=True)):
        _say(ax, left + (frames + 1) / 2, 0.7, title, weight="bold")
        for depth, (y, name) in enumerate(((7.0, "frames"), (4.6, "layer 1"), (2.2, "layer 2"))):
            _say(ax, 0.2, y, name, ha="left")
            # The clip has a zero at either end of each layer's input, the stream a real value.
            reach = 2 - depth if stream else min(1, 2 - depth)
            for position in range(1 - reach, frames + 1 + reach):
                border = min(position, frames + 1 - position)
                text = f"$x_{{{position}}}$" if depth == 0 else ""
                face = KEPT if depth == 0 else NEW if stream or border > depth else AGAIN
                if border < 1 and not stream:
                    face, text = EMPTY, "0"
                _box(ax, left + position, y, text, face)
            # Two values above that feel the border are joined to the three below them.
            for tip in range(frames - 1 + depth, min(frames + 2 - depth, frames + reach)):
                for foot in (tip - 1, tip, tip + 1) if depth < 2 else ():
                    ends = [left + foot, left + tip]
                    ax.plot(ends, [y - 0.45, y - 1.95], color=MUTED, lw=0.9)
    words = ("frame", "padding zero", "from real frames alone", "from frames and zeros")
    faces, places = (KEPT, EMPTY, NEW, AGAIN), (3.2, 6.2, 10.7, 17.5)
    _key(ax, 8.5, zip(places, faces, words, strict=True))
    return fig


@mpl.rc_context(STYLE)
def unrolled(
    kernel: Sequence[int], frames: Sequence[int], dilation: int = 1, padding: int = 0
) -> Drawing:
    """All steps of a continual convolution over frames of one pixel, and those that flush it.

    What comes, what leaves and what waits, a step below the other. The outputs that are not
    dropped are those of a regular convolution with that dilation and that many zeros of padding at
    either end, at most dilation * (len(kernel) - 1).
    """
    count, waiting = len(frames), dilation * (len(kernel) - 1)
    delay = waiting - padding
    taps = np.zeros(waiting + 1, int)
    taps[::dilation] = kernel[::-1]
    fig, ax = _canvas(2 * SUMS + 6.6, count + 6.1, inches=8.4)
    fig.set_figheight(5.2)
    setting = f"kernel {' '.join(map(str, kernel))}, dilation {dilation}, padding {padding}"
    facts = f"{waiting} sums wait, delay {delay}, first output with frame {delay + 1}"
    _say(ax, 0.3, 0.6, f"{setting}: {facts}", ha="left", weight="bold")
    heads = ("frame", "output", "sums that wait, the next to leave first")
    for x, head in zip((0.3, 3.3, 6.4), heads, strict=True):
        _say(ax, x, 1.7, head, ha="left", size=9, color=MUTED)
    inputs = [*frames, *[0] * padding]
    for step, x in enumerate(inputs, 1):
        flush = step > count
        output, *sums = np.convolve(inputs[:step], taps)[step - 1 :]
        face = EMPTY if step <= delay else AGAIN if step <= waiting or flush else NEW
        _box(ax, 1.2, step + 1.8, "zero" if flush else x, EMPTY if flush else KEPT, w=1.8, h=0.8)
        _box(ax, 4.2, step + 1.8, output, face, w=1.8, h=0.8)
        for ahead, value in enumerate(sums, 1):
            face = "white" if flush or ahead % dilation else KEPT
            _box(ax, 5.3 + 2 * ahead, step + 1.8, value, face, w=1.8, h=0.8)
    words = ("dropped: placed before the video", "with zeros of the padding", "of frames alone")
    words += ("got a product", "moved up")
    faces, places = (EMPTY, AGAIN, NEW, KEPT, "white"), (0.7, 7.9, 13.6, 17.7, 21.4)
    _key(ax, count + 5.4, zip(places, faces, words, strict=True))
    return fig


@mpl.rc_context(STYLE)
def clip_against_step(kernel: Sequence[int], frames: Sequence[int], clip: int) -> list[Image.Image]:
    """An animation: per new frame, a convolution over the last `clip` frames, and one step."""
    size, count, images = len(kernel), len(frames), []
    by_clips = f"Clip by clip: all outputs of the last {clip} frames, most of them again"
    by_steps = "Frame by frame: one step, dashed sums wait for later frames"
    for now in range(1, count + 1):
        sums = np.convolve(frames[:now], kernel[::-1])  # outputs 1, 2, ... as far as frames go
        begin = now - clip + 1 if now >= clip else now + 1
        outputs = range(begin + size - 1, now + 1)
        products = size * (clip - size + 1) * max(0, now - clip + 1)
        rows = (
            (0.8, by_clips, begin, outputs, AGAIN, AGAIN, products),
            (5.4, by_steps, now, range(size, now + size), "white", NEW, size * now),
        )
        fig, ax = _canvas(count + size + 7, 9.2, inches=7.6)
        for top, title, first, outputs, old, tone, products in rows:
            _say(ax, 0.4, top, title, ha="left", weight="bold", size=11)
            _say(ax, 0.4, top + 1.2, "frames", ha="left")
            _say(ax, 0.4, top + 2.6, "outputs", ha="left")
            for t in range(1, now + 1):
                _box(ax, 2.6 + t, top + 1.2, frames[t - 1], KEPT if t >= first else "white")
            for t in outputs:
                face = NEW if t == now else old if t < now else EMPTY
                _box(ax, 2.6 + t, top + 2.6, sums[t - 1], face, linestyle="--" if t > now else "-")
            right = count + size + 4.4
            _say(ax, right, top + 1.3, f"{products}", size=22, weight="bold", color=tone)
            _say(ax, right, top + 2.4, "multiplications", color=MUTED)
        images.append(_rgb(fig))
    return images


@mpl.rc_context(STYLE)
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
    """Write the animation of a clip network against a stream on the same frames; returns its path.

    Args:
        video: uint8 (T, H, W, 3), of which every so many frames are shown.
        names: what the clip network and the stream are called.
        clip_frames, first_output: frame from which on either predicts at each new frame.
        clip_macs, step_macs: multiply-accumulates of one clip and of one step.
    """
    count = len(video)
    full = max((count - clip_frames + 1) * clip_macs, count * step_macs)
    titles = (
        f"{names[0]}: every prediction computes {clip_frames} frames",
        f"{names[1]}: every prediction computes the new frame alone",
    )
    width, pitch = 760, 740 // clip_frames
    thumb = pitch - 3
    high = round(thumb * video.shape[1] / video.shape[2])
    size = thumb, high
    small = [Image.fromarray(frame).resize(size, Image.Resampling.BOX) for frame in video]
    images = []
    for now in range(every, count + 1, every):
        clips = max(0, now - clip_frames + 1)
        rows = (
            (titles[0], CLIP, clip_frames, clips * clip_macs, clips),
            (titles[1], NEW, 1, now * step_macs, max(0, now - first_output + 1)),
        )
        fig, ax = _canvas(width, 2 * high + 210, inches=width / 100)
        for row, (title, color, computed, macs, predictions) in enumerate(rows):
            top = 14 + row * (high + 102)
            middle, y = top + 16 + high / 2, top + high + 34
            _say(ax, 10, top, title, ha="left", weight="bold", size=9.5)
            for age in range(clip_frames, 0, -1):
                x = 10 + (clip_frames - age) * pitch
                edge = color if age <= computed else "#CCCCCC"
                _box(ax, x + thumb / 2, middle, "", EMPTY, w=thumb + 2, h=high + 2, edgecolor=edge)
                if age <= min(computed, now):
                    place = (x, x + thumb, middle + high / 2, middle - high / 2)
                    look = {"interpolation": "nearest", "aspect": "auto", "zorder": 2}
                    ax.imshow(small[now - age], extent=place, **look)
            ax.add_patch(Rectangle((10, y - 7), (width - 20) * macs / full, 14, facecolor=color))
            cost = macs_text(macs, full)
            _say(ax, 10, y + 20, cost, ha="left", weight="bold", size=12, color=color)
            _say(ax, width - 10, y + 20, f"{predictions} predictions", ha="right", color=MUTED)
        ax.set(xlim=(0, width), ylim=(2 * high + 210, 0))
        images.append(_rgb(fig))
    return save_gif(images, stem, folder, ms)


def macs_text(macs: float, most: float) -> str:
    """Multiply-accumulates in the unit for `most` of them, which is GMACs from 10 GMACs on."""
    return f"{macs / 1e9:,.1f} GMACs" if most >= 1e10 else f"{macs / 1e6:,.0f} MMACs"


def save_gif(images: Sequence[Image.Image], stem: str, folder: Path | str, ms: int) -> Path:
    """Write RGB `images`, `ms` milliseconds each, to folder/figures/stem.gif and return its path.

    The last one stays longer. All share one palette, so that still areas cost nothing.
    """
    path = Path(folder) / "figures" / f"{stem}.gif"
    sheet = Image.fromarray(np.concatenate(images[::4]))
    colors = np.reshape(sheet.quantize(48, dither=Image.Dither.NONE).getpalette(), (-1, 3))
    # Paper, empty boxes and the colours that mean something stay as they are, not nearly so.
    exact = [ImageColor.getrgb(color) for color in EXACT]
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.ravel([*exact, *colors[colors.min(axis=1) < 236]]).tolist())
    still = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    options = {
        "append_images": still[1:],
        "duration": [ms] * (len(still) - 1) + [2500],
        "comment": "\n".join(f"{name}: {text}" for name, text in metadata(stem).items()).encode(),
    }
    buffer = io.BytesIO()
    still[0].save(buffer, format="GIF", save_all=True, loop=0, **options)
    return write(path, buffer.getvalue())


def _rgb(fig: Drawing) -> Image.Image:
    """The drawn figure as an image, 100 pixels per inch."""
    fig.canvas.draw()
    return Image.fromarray(np.asarray(fig.canvas.buffer_rgba())[..., :3])

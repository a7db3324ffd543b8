"""Drawings of one setting among several, for the controls of the notebooks (`play`)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from . import tables
from .drawings import AGAIN, EMPTY, KEPT, NEW
from .overlay import Watched
from .style import CLIP, INK, MUTED, STYLE, Drawing, color, label

SUMS = 9  # columns for sums that wait, so that all settings have pictures of one size


@dataclass(frozen=True)
class Row:
    """A step of a continual convolution: frame `x` in (None: a zero that flushes), sum `y` out.

    `kind` of the output: "dropped" before the delay has passed, "padded" if zeros stand in for
    frames, else "real". `sums` wait after the step; `fed` tells which got a product in it.
    """

    x: int | None
    y: int
    kind: str
    sums: tuple[int, ...]
    fed: tuple[bool, ...]


def rows(
    kernel: Sequence[int], frames: Sequence[int], dilation: int = 1, padding: int = 0
) -> Iterator[Row]:
    """The steps over frames of one pixel, and those that flush the end padding.

    The outputs that are not dropped are those of a regular convolution with that dilation and
    that many zeros of padding at either end.

    Raises:
        ValueError: for more padding than sums wait, d (k - 1).
    """
    waiting = dilation * (len(kernel) - 1)
    if not 0 <= padding <= waiting:
        raise ValueError(f"expected a padding of 0 to {waiting}, given {padding}")
    sums = [0] * waiting
    for step, x in enumerate([*frames, *[None] * padding], 1):
        sums.append(0)
        for place, weight in enumerate(reversed(kernel)):
            sums[place * dilation] += weight * (x or 0)
        y, *sums = sums
        kind = "real" if waiting < step <= len(frames) else "padded"
        kind = "dropped" if step <= waiting - padding else kind
        fed = tuple(x is not None and ahead % dilation == 0 for ahead in range(1, waiting + 1))
        yield Row(x, y, kind, tuple(sums), fed)


@mpl.rc_context(STYLE)
def unrolled(
    kernel: Sequence[int], frames: Sequence[int], dilation: int = 1, padding: int = 0
) -> Drawing:
    """All steps of `rows` below each other: what comes, what leaves, what waits."""
    waiting, steps = dilation * (len(kernel) - 1), list(rows(kernel, frames, dilation, padding))
    fig = Drawing(8.4, 5.2)
    ax = fig.add_axes((0, 0, 1, 1), xlim=(0, 2 * SUMS + 6.6), ylim=(len(frames) + 6.1, 0))
    ax.set_axis_off()
    delay = waiting - padding
    setting = f"kernel {' '.join(map(str, kernel))}, dilation {dilation}, padding {padding}"
    facts = f"{waiting} sums wait, delay {delay}, first output with frame {delay + 1}"
    ax.text(0.3, 0.6, f"{setting}: {facts}", weight="bold", va="center", color=INK)
    heads = ((0.3, "frame"), (3.3, "output"), (6.4, "sums that wait, the next to leave first"))
    for x, head in heads:
        ax.text(x, 1.7, head, size=9, va="center", color=MUTED)
    for y, row in enumerate(steps, 2):
        _draw_row(ax, y + 0.8, row)
    _draw_key(ax, len(frames) + 5.4)
    return fig


def _draw_row(ax: Axes, y: float, row: Row) -> None:
    looks = {"dropped": (EMPTY, MUTED), "padded": (AGAIN, "white"), "real": (NEW, "white")}
    if row.x is None:
        _cell(ax, 1.2, y, "zero", EMPTY, MUTED)
    else:
        _cell(ax, 1.2, y, row.x, KEPT, INK)
    _cell(ax, 4.2, y, row.y, *looks[row.kind], "--" if row.kind == "dropped" else "-")
    for place, (held, fed) in enumerate(zip(row.sums, row.fed, strict=True)):
        _cell(ax, 7.3 + 2 * place, y, held, KEPT if fed else "white", INK)


def _draw_key(ax: Axes, y: float) -> None:
    key = (
        (0.7, EMPTY, "dropped: placed before the video"),
        (7.9, AGAIN, "with zeros of the padding"),
        (13.6, NEW, "of frames alone"),
        (17.7, KEPT, "got a product"),
        (21.4, "white", "moved up"),
    )
    for x, face, meaning in key:
        _cell(ax, x, y, "", face, INK, width=0.6, height=0.5)
        ax.text(x + 0.5, y, meaning, size=8.5, va="center", color=INK)


def _cell(
    ax: Axes,
    x: float,
    y: float,
    text: object,
    face: str,
    ink: str,
    line: str = "-",
    *,
    width: float = 1.8,
    height: float = 0.8,
) -> None:
    corner = (x - width / 2, y - height / 2)
    ax.add_patch(Rectangle(corner, width, height, fc=face, ec=MUTED, lw=0.8, ls=line))
    ax.text(x, y, str(text), ha="center", va="center", color=ink)


@mpl.rc_context(STYLE)
def at_window(
    sweeps: pd.DataFrame, padding: pd.Series, fps: float, title: str, window: int
) -> Drawing:
    """Top-1 of all streams at one window beside control and clip, and how their streams start.

    Args:
        sweeps: rows of `studies.sweep`, of all windows.
        padding: frames of aggregated padding by continual model.
        fps: frames fed per second.
    """
    names = list(dict.fromkeys(sweeps["model"]))
    high = 1.4 + 0.42 * len(names)
    fig = Drawing(9.4, high)  # laid out by hand, which takes half the time
    left, right = fig.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    fig.subplots_adjust(0.14, 0.52 / high, 0.985, 1 - 0.32 / high, wspace=0.05)
    last = sweeps["frames"].max() / fps
    for y, name in enumerate(names):
        own = sweeps[sweeps["model"] == name]
        left.plot([own["clip"].iloc[0]] * 2, [y - 0.32, y + 0.32], color=CLIP, ls="--", lw=1.2)
        for row in own[own["window"] == window].itertuples():
            _draw_accuracies(left, y, row)
            waited = _first_output(row.frames, f"co{name}", padding[f"co{name}"])
            _draw_start(right, y, waited / fps, row.frames / fps, color(name), last)
    values = sweeps[["stream_low", "control_low", "clip"]].astype(float)
    left.set(xlim=(values.min().min() - 2, 101), ylim=(len(names) - 0.4, -0.9))
    left.set_yticks(range(len(names)), [label(f"co{name}") for name in names])
    left.set(xlabel="top-1 accuracy (%)", title=f"Window {window:g} · {title}")
    _name_marks(left, sweeps, names, window)
    right.set(xlim=(-0.12 * last, 1.25 * last), xlabel="seconds of video", title="Start-up")
    right.text(0, -0.6, "silent, then start-up, then all is video", size=8, color=MUTED)
    right.spines["left"].set_visible(False)
    for ax in (left, right):
        ax.grid(axis="x")
        ax.tick_params(axis="y", length=0)
    return fig


def _draw_accuracies(ax: Axes, y: float, row: tuple) -> None:
    """A stream with its interval, above it the control if there is one: a row of a sweep."""
    looks = (("stream", 0.12, "o", color(row.model)), ("control", -0.16, "D", MUTED))
    for name, below, marker, tone in looks:
        value, low, high = (getattr(row, f"{name}{end}") for end in ("", "_low", "_high"))
        if pd.notna(value):
            ax.plot([low, high], [y + below] * 2, color=tone, lw=1.2)
            ax.plot(value, y + below, marker, color=tone, ms=5, gid=f"{row.model}:{name}")


def _name_marks(ax: Axes, sweeps: pd.DataFrame, names: Sequence[str], window: int) -> None:
    """What the marks of the first row mean, above it."""
    first = sweeps[(sweeps["model"] == names[0]) & (sweeps["window"] == window)]
    known = "◆ control on the same frames" if first["control"].notna().any() else "no control"
    text = f"● stream    {known}    ┆ one clip"
    ax.text(0.01, -0.6, text, size=8, color=MUTED, transform=ax.get_yaxis_transform())


def _first_output(frames: int, model: str, padding: int) -> int:
    """The frame of the first output: as many strides before `frames`, the first output that sees
    no padding, as the padding needs.
    """
    stride = tables.stride(model)
    return frames - stride * -(-padding // stride)


def _draw_start(ax: Axes, y: float, first: float, real: float, tone: str, last: float) -> None:
    """Seconds to the first output, to the first that sees video alone, and from there on."""
    bars = ((0, first, EMPTY), (first, real - first, KEPT), (real, 1.25 * last - real, tone))
    for left, width, face in bars:
        ax.barh(y, width, 0.5, left, color=face)
    ax.text(first, y, f"{first:.1f} s ", size=8.5, ha="right", va="center", color=INK)


@mpl.rc_context(STYLE)
def over_frames(seen: Watched, fps: float) -> Drawing:
    """Of each network: the probability of what the first one says at the end, and the MACs so far.

    The first network is a stream, another is by clips and dashed.
    """
    fig = Drawing(8.4, 4.6)
    fig.set_layout_engine("constrained")
    above, below = fig.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    frames = range(1, len(seen) + 1)
    last = seen.said(len(seen))[0].scores
    wanted = int(last.values.argmax())
    for place, side in enumerate(seen.sides):
        predicted = [steps[place] for steps in seen.steps if steps[place].scores]
        said = [step.number for step in predicted]
        shares = [float(step.scores.values[wanted]) for step in predicted]
        look = {"color": side.color, "lw": 1.8, "ls": "--" if place else "-"}
        above.plot(said, shares, label=side.title, **look)
        above.axvline(side.first, color=side.color, ls=":", lw=1.1)
        spent = [side.spent(frame) / 1e6 for frame in frames]
        below.plot(frames, spent, **look)
        note = f"  {side.title}: {spent[-1]:,.0f}"
        below.text(len(seen), spent[-1], note, color=side.color, va="center", size=8.5)
    stream = seen.sides[0]
    above.axvspan(stream.first, stream.real, color=stream.color, alpha=0.12, lw=0)
    above.set(ylim=(0, 1.04), ylabel="probability", title=f"Probability of {last.labels[wanted]!r}")
    above.legend(loc="center right")
    below.set(xlim=(0, 1.28 * len(seen)), xlabel=f"frame ({fps:g} per second)")
    below.set(ylabel="MMACs so far", ylim=(0, None))
    for ax in (above, below):
        ax.grid(axis="y")
    return fig

"""co3d stream: a model over a video, frame by frame."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click
from tqdm import tqdm

if TYPE_CHECKING:
    from ..export import Runner
    from ..measure.live import Watch
    from ..measure.outputs import Output, Step
    from ..nn import StreamNet

EXPORTED = (".onnx", ".xml")


@click.command()
@click.argument("places", nargs=-1, required=True, metavar="[MODEL] SOURCE")
@click.option("--model", "name", help="As MODEL.  [default: cox3d_mini]")
@click.option("--weights", help="As published, such as kinetics400 or charades, or a file "
              "(default: what comes with co3d).")  # fmt: skip
@click.option("--window", type=int, help="Span of the running average in frames.")
@click.option("--engine", type=click.Choice(["eager", "native", "torch"]),
              help="Of the steps (default: native; torch without a C++ compiler).")  # fmt: skip
@click.option("--threads", type=click.IntRange(min=1), help="Of a step (default: what is faster).")
@click.option("--fps", type=float, help="Frames per second to feed (default: the model's own).")
@click.option("--limit-seconds", type=float, help="Stop after so many seconds of video.")
@click.option("--csv", "table", type=click.Path(path_type=Path), help="Write a row per prediction.")
@click.option("--features", type=click.Path(path_type=Path),
              help="Write vectors before the classifier and times (.npz); is eager.")  # fmt: skip
@click.option("--save", type=click.Path(path_type=Path),
              help="Write the video with its top-5 bars, start-up and MACs (.mp4).")  # fmt: skip
@click.option("--device", default="cpu", show_default=True)
def stream(
    places: tuple[str, ...],
    name: str | None,
    weights: str | None,
    window: int | None,
    engine: str | None,
    threads: int | None,
    fps: float | None,
    limit_seconds: float | None,
    table: Path | None,
    features: Path | None,
    save: Path | None,
    device: str,
) -> None:
    """Run MODEL over SOURCE frame by frame: a name such as cox3d_m or an exported file, over a
    video file, a camera (webcam, webcam:1) or the address of a stream.

    A file is seen whole. Of a source that is faster than the model, the newest frame is taken.
    """
    from ..measure.live import Watch
    from ..measure.outputs import Features, Table
    from .options import check_device

    *names, source = places
    if len(names) + (name is not None) > 1:
        raise ValueError(f"expected one MODEL and one SOURCE, given {' '.join(places)}")
    name = (*names, name or "cox3d_mini")[0]
    _check_distinct(Path(source), {"table": table, "features": features, "annotated video": save})
    check_device(device)
    if Path(name).suffix in EXPORTED:
        given = {"weights": weights, "window": window, "engine": engine, "features": features,
                 "save": save, "device": device != "cpu"}  # fmt: skip
        model, threads = _exported(name, threads, given), None
    else:
        model = _loaded(name, weights, window).to(device)
        engine = engine or ("eager" if features else None)
    watch = Watch(source, model, engine=engine, threads=threads, fps=fps, seconds=limit_seconds)
    for caveat in watch.caveats:
        click.echo(caveat, err=True)
    outputs = [Table(table)]
    if features:
        outputs.append(Features(features, model, watch.fps))
    if save:
        from ..report.overlay import Film

        outputs.append(Film(save, model, watch.fps))
    _show(watch, watch.steps(save is not None, features is not None), outputs)


def _show(watch: "Watch", steps: Iterator["Step"], outputs: Sequence["Output"]) -> None:
    """Prints the likeliest classes per second and what the run took; hands on all steps."""
    warmup, span, fps = watch.model.warmup, watch.model.receptive_field, watch.fps
    click.echo(
        f"{watch.name}: warm-up {warmup} frames ({warmup / fps:.1f} s) before the first "
        f"prediction, {span} ({span / fps:.1f} s) until all that it sees is video"
    )
    begun, step, interrupted = time.perf_counter(), None, False
    with ExitStack() as opened:
        for output in outputs:
            opened.enter_context(output)
        bar = tqdm(steps, unit=" frames", disable=None, leave=False)
        try:
            for second, group in groupby(bar, key=lambda step: int(step.time_s)):
                for step in group:
                    for output in outputs:
                        output.add(step)
                bar.write(_line(second, step, warmup + 1, span), file=sys.stdout)
        except KeyboardInterrupt:  # the usual end of a camera: what was seen is kept
            interrupted = True
        bar.close()
    if step:
        _summarise(watch, step.number, time.perf_counter() - begun)
    if interrupted:
        raise KeyboardInterrupt


def _line(second: int, step: "Step", first: int, span: int) -> str:
    """The last prediction within a second of video."""
    if not step.scores:
        return f"{second:5d} s  warming up: frame {step.number} of {first}"
    shown = "  ".join(f"{label} {100 * p:.0f} %" for label, p in step.scores.top())
    return f"{second:5d} s  {shown}" + ("  (start-up)" if step.number < span else "")


def _summarise(watch: "Watch", count: int, seconds: float) -> None:
    rate = count / seconds
    click.echo(f"{count} frames in {seconds:.1f} s: {rate:.0f} frames per second "
               f"({rate / watch.fps:.1f} x real time)")  # fmt: skip
    click.echo(f"median latency per frame: decode {watch.decode_ms:.2f} ms, "
               f"step {watch.step_ms:.2f} ms (engine {watch.engine})")  # fmt: skip
    if watch.dropped is not None:
        click.echo(f"dropped {watch.dropped} frames, for which the network had no time")
    if watch.reader.note:
        click.echo(f"{watch.reader.source}: {watch.reader.note}", err=True)


def _exported(path: str, threads: int | None, options: dict[str, object]) -> "Runner":
    """An exported file, which has its weights, window and runtime in it."""
    from ..export import Runner

    for option, value in options.items():
        if value:
            raise ValueError(f"expected no --{option} with {path}: an exported file has its own")
    return Runner(path, threads=threads)


def _loaded(name: str, weights: str | None, window: int | None) -> "StreamNet":
    """A network with the weights that are asked for, or those that come with it."""
    from .. import load, spec
    from ..zoo.checkpoints import shipped

    if not spec(name).continual:
        raise ValueError(f"{name} needs whole clips; co{name} runs the same weights on a stream")
    if not weights and not shipped(name):
        raise ValueError(f"no weights come with {name}: give --weights kinetics400 or a file")
    return load(name, weights or next(iter(shipped(name))), window)[0]


def _check_distinct(video: Path, outputs: dict[str, Path | None]) -> None:
    """Refuses to overwrite the video, or one output with another."""
    named: dict[Path, str] = {}
    for kind, path in outputs.items():
        if path is None:
            continue
        if path.resolve() == video.resolve():
            raise ValueError(f"the {kind} would replace the video {video}: name another file")
        if (other := named.setdefault(path.resolve(), kind)) != kind:
            raise ValueError(f"the {other} and the {kind} would both be {path}: name another file")

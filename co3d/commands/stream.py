"""co3d stream: a model over a video, frame by frame."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click
from tqdm import tqdm

if TYPE_CHECKING:
    from ..deploy import Runner
    from ..measure.live import Watch
    from ..measure.outputs import Step
    from ..nn import StreamNet

EXPORTED = (".onnx", ".xml")
RANKS = range(1, 6)
COLUMNS = ["time_s", "frame", *(f"label{n}" for n in RANKS), *(f"probability{n}" for n in RANKS),
           "decode_ms", "step_ms"]  # fmt: skip
DECIMALS = {"time_s": 6, "decode_ms": 3, "step_ms": 3}


@click.command()
@click.argument("places", nargs=-1, required=True, metavar="[MODEL] SOURCE")
@click.option("--model", "name", help="Same as MODEL.  [default: cox3d_mini]")
@click.option("--weights", help="Published weights such as kinetics400 or charades, or a file "
              "(default: those that come with co3d).")  # fmt: skip
@click.option("--window", type=int, help="Frames of the running average.")
@click.option("--engine", type=click.Choice(["eager", "native", "torch"]),
              help="Runs the steps (default: native; torch without a C++ compiler).")  # fmt: skip
@click.option("--threads", type=click.IntRange(min=1), help="Per step (default: the faster).")
@click.option("--fps", type=float, help="Frames per second to feed (default: the model's own).")
@click.option("--limit-seconds", type=float, help="Stop after this much video.")
@click.option("--csv", "table", type=click.Path(path_type=Path), help="Write a row per prediction.")
@click.option(
    "--features",
    type=click.Path(path_type=Path),
    help="Write the vectors before the classifier and their times (.npz); runs eager.",
)
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
    """Run MODEL over SOURCE frame by frame.

    MODEL is a name such as cox3d_m or an exported file; SOURCE a video file, a camera (webcam,
    webcam:1) or the address of a stream. A file is seen whole. If a live source is faster than the
    model, the model takes the newest frame.
    """
    import pandas as pd

    from ..measure.live import Watch
    from .options import check_device, check_file, write_table

    *names, source = places
    if len(names) + (name is not None) > 1:
        raise ValueError(f"expected one MODEL and one SOURCE, given {' '.join(places)}")
    name = (*names, name or "cox3d_mini")[0]
    check_device(device)
    _check_distinct(Path(source), {"table": table, "features": features, "annotated video": save})
    for path in (table, features, save):
        check_file(path)
    if features and features.suffix != ".npz":
        raise ValueError(f"expected a file that ends in .npz for the features, given {features}")
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
    rows, vectors, writer = [], [], nullcontext()
    if save:
        from ..report.overlay import Film

        writer = Film(save, model, watch.fps)
    with writer as film:

        def take(step: "Step") -> None:
            if film:
                film.add_step(step)
            if step.scores and (table or features):
                rows.append(_row(step))
                vectors.append(step.features)

        interrupted = _show(watch, watch.steps(save is not None, features is not None), take)
    write_table(pd.DataFrame(rows, columns=COLUMNS).round(DECIMALS), table)
    if features:
        _write_features(features, model, watch.fps, rows, vectors)
    if interrupted:
        raise KeyboardInterrupt


def _show(watch: "Watch", steps: Iterator["Step"], take: Callable[["Step"], None]) -> bool:
    """Prints the likeliest classes per second and the times of the run; returns whether it was
    interrupted. That is how a camera usually ends, so the results so far are kept.
    """
    warmup, span, fps = watch.model.warmup, watch.model.receptive_field, watch.fps
    click.echo(
        f"{watch.name}: warm-up {warmup} frames ({warmup / fps:.1f} s) before the first "
        f"prediction, {span} ({span / fps:.1f} s) until all that it sees is video"
    )
    begun, step, interrupted = time.perf_counter(), None, False
    bar = tqdm(steps, unit=" frames", disable=None, leave=False)
    try:
        for second, group in groupby(bar, key=lambda step: int(step.time_s)):
            for step in group:
                take(step)
            bar.write(_line(second, step, warmup + 1, span), file=sys.stdout)
    except KeyboardInterrupt:
        interrupted = True
    bar.close()
    if not step:
        return interrupted
    seconds = time.perf_counter() - begun
    rate = step.number / seconds
    click.echo(f"{step.number} frames in {seconds:.1f} s: {rate:.0f} frames per second "
               f"({rate / fps:.1f} x real time)")  # fmt: skip
    click.echo(f"median latency per frame: decode {watch.decode_ms:.2f} ms, "
               f"step {watch.step_ms:.2f} ms (engine {watch.engine})")  # fmt: skip
    if watch.dropped is not None:
        click.echo(f"dropped {watch.dropped} frames that the network had no time for")
    if watch.reader.note:
        click.echo(f"{watch.reader.source}: {watch.reader.note}", err=True)
    return interrupted


def _line(second: int, step: "Step", first: int, span: int) -> str:
    """The last prediction within a second of video."""
    if not step.scores:
        return f"{second:5d} s  warming up: frame {step.number} of {first}"
    shown = "  ".join(f"{label} {100 * p:.0f} %" for label, p in step.scores.top())
    return f"{second:5d} s  {shown}" + ("  (start-up)" if step.number < span else "")


def _row(step: "Step") -> dict[str, object]:
    """Of the table; blank where there are fewer classes than RANKS."""
    row = {"time_s": step.time_s, "frame": step.number}
    for rank, (label, probability) in enumerate(step.scores.top(len(RANKS)), 1):
        row |= {f"label{rank}": label, f"probability{rank}": probability}
    return {**row, "decode_ms": step.decode_ms, "step_ms": step.step_ms}


def _write_features(
    path: Path, model: "StreamNet", fps: float, rows: Sequence[dict], vectors: Sequence
) -> None:
    """A NumPy archive: `features` (N, D) float32, `time_s` (N,) of the video, `frame` (N,) as fed,
    from 1; and as text the model, its window, the frames per second and the origin of the weights.
    """
    import numpy as np

    weights, part = model.weights, path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        np.savez(
            file,
            features=np.array(vectors, np.float32).reshape(-1, model.classifier.in_features),
            time_s=np.array([row["time_s"] for row in rows], np.float64),
            frame=np.array([row["frame"] for row in rows], np.int64),
            model=model.spec.name,
            window=str(model.window),
            fps=f"{fps:g}",
            weights=weights.source,
            weights_sha256=weights.sha256,
            weights_data=weights.training_data,
        )
    part.replace(path)


def _exported(path: str, threads: int | None, options: dict[str, object]) -> "Runner":
    """An exported file, which contains its weights, window and runtime."""
    from ..deploy import Runner

    for option, value in options.items():
        if value:
            raise ValueError(f"expected no --{option} with {path}: an exported file has its own")
    return Runner(path, threads=threads)


def _loaded(name: str, weights: str | None, window: int | None) -> "StreamNet":
    """A network with the weights asked for, or those that come with it."""
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

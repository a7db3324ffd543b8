"""co3d stream: a model over a video, frame by frame."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click
from tqdm import tqdm

if TYPE_CHECKING:
    import pandas as pd

    from ..measure.live import Step, Watch

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

    from ..deploy import Runner
    from ..measure.live import Watch
    from ..report.overlay import Film
    from .options import check_device, check_file, loaded, write_table

    *names, source = places
    if len(names) + (name is not None) > 1:
        raise ValueError(f"expected one MODEL and one SOURCE, given {' '.join(places)}")
    name = (*names, name or "cox3d_mini")[0]
    check_device(device)
    check_file(table, features, save, video=Path(source))
    if features and features.suffix != ".npz":
        raise ValueError(f"expected a file that ends in .npz for the features, given {features}")
    if Path(name).suffix in EXPORTED:
        options = {"weights": weights, "window": window, "engine": engine, "features": features,
                   "save": save, "device": device != "cpu"}  # fmt: skip
        for option in [option for option, value in options.items() if value]:
            raise ValueError(f"expected no --{option} with {name}: an exported file has its own")
        model, threads = Runner(name, threads=threads), None
    else:
        model = loaded(name, weights, window=window)[0].to(device)
        engine = engine or ("eager" if features else None)
    watch = Watch(source, model, engine=engine, threads=threads, fps=fps, seconds=limit_seconds)
    for caveat in watch.caveats:
        click.echo(caveat, err=True)
    rows, vectors, interrupted, begun = [], [], False, time.perf_counter()
    with Film(save, model, watch.fps) if save else nullcontext() as film:
        try:
            for step in _printed(watch, watch.steps(save is not None, features is not None)):
                if film:
                    film.add_step(step)
                if step.scores and (table or features):
                    rows.append(_row(step))
                    vectors.append(step.features)
        except KeyboardInterrupt:  # how a camera usually ends, so the results so far are kept
            interrupted = True
    _summarize(watch, time.perf_counter() - begun)
    rows = pd.DataFrame(rows, columns=COLUMNS)
    write_table(rows.round(DECIMALS), table)
    if features:
        _write_features(features, watch, rows, vectors)
    if interrupted:
        raise KeyboardInterrupt


def _printed(watch: "Watch", steps: Iterator["Step"]) -> Iterator["Step"]:
    """The steps; prints the last prediction of each second of video."""
    warmup, span, fps = watch.model.warmup, watch.model.receptive_field, watch.fps
    click.echo(
        f"{watch.name}: warm-up {warmup} frames ({warmup / fps:.1f} s) before the first "
        f"prediction, {span} ({span / fps:.1f} s) until all that it sees is video"
    )
    with tqdm(steps, unit=" frames", disable=None, leave=False) as bar:
        for second, group in groupby(bar, key=lambda step: int(step.time_s)):
            for step in group:
                yield step
            line = f"warming up: frame {step.number} of {warmup + 1}"
            if step.scores:
                line = "  ".join(f"{label} {100 * p:.0f} %" for label, p in step.scores.top())
                line += "  (start-up)" if step.number < span else ""
            bar.write(f"{second:5d} s  {line}", file=sys.stdout)


def _summarize(watch: "Watch", seconds: float) -> None:
    """Prints the times of the run."""
    if not watch.frames:
        return
    rate, (decode, step) = watch.frames / seconds, watch.latency_ms
    click.echo(f"{watch.frames} frames in {seconds:.1f} s: {rate:.0f} frames per second "
               f"({rate / watch.fps:.1f} x real time)")  # fmt: skip
    click.echo(f"median latency per frame: decode {decode:.2f} ms, step {step:.2f} ms "
               f"(engine {watch.engine})")  # fmt: skip
    if watch.dropped is not None:
        click.echo(f"dropped {watch.dropped} frames that the network had no time for")
    if watch.reader.note:
        click.echo(f"{watch.reader.source}: {watch.reader.note}", err=True)


def _row(step: "Step") -> dict[str, object]:
    """Of the table; blank where there are fewer classes than RANKS."""
    row = {"time_s": step.time_s, "frame": step.number}
    for rank, (label, probability) in enumerate(step.scores.top(len(RANKS)), 1):
        row |= {f"label{rank}": label, f"probability{rank}": probability}
    return {**row, "decode_ms": step.decode_ms, "step_ms": step.step_ms}


def _write_features(path: Path, watch: "Watch", rows: "pd.DataFrame", vectors: Sequence) -> None:
    """A NumPy archive: `features` (N, D) float32, `time_s` (N,) of the video, `frame` (N,) as fed,
    from 1; and as text the model, its window, the frames per second and the origin of the weights.
    """
    import numpy as np

    model, weights, part = watch.model, watch.model.weights, path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        np.savez(
            file,
            features=np.array(vectors, np.float32).reshape(-1, model.classifier.in_features),
            time_s=rows["time_s"].to_numpy(np.float64),
            frame=rows["frame"].to_numpy(np.int64),
            model=model.spec.name,
            window=str(model.window),
            fps=f"{watch.fps:g}",
            weights=weights.source,
            weights_sha256=weights.sha256,
            weights_data=weights.training_data,
        )
    part.replace(path)

"""co3d stream: a model over a video, frame by frame."""

from pathlib import Path

import click


@click.command()
@click.argument("video")
@click.option("--model", "name", default="cox3d_mini", show_default=True)
@click.option("--weights", help="As published, such as kinetics400 or charades, or a file "
              "(default: what comes with co3d).")  # fmt: skip
@click.option("--window", type=int, help="Span of the running average in frames.")
@click.option("--fps", type=float, help="Frames per second to feed (default: the model's own).")
@click.option("--limit-seconds", type=float, help="Stop after so many seconds of video.")
@click.option("--csv", "table", type=click.Path(path_type=Path), help="Write a row per prediction.")
@click.option("--features", type=click.Path(path_type=Path),
              help="Write the vectors before the classifier and their times (.npz).")  # fmt: skip
@click.option("--save", type=click.Path(path_type=Path),
              help="Write the video with its top-5 bars, start-up and MACs (.mp4).")  # fmt: skip
@click.option("--device", default="cpu", show_default=True)
def stream(
    video: str,
    name: str,
    weights: str | None,
    window: int | None,
    fps: float | None,
    limit_seconds: float | None,
    table: Path | None,
    features: Path | None,
    save: Path | None,
    device: str,
) -> None:
    """Run a model over VIDEO frame by frame; a file, camera or stream address."""
    from .. import load, spec
    from ..data.video import Reader
    from ..measure import live
    from ..zoo.checkpoints import shipped
    from .options import check_device

    record = spec(name)
    if not record.continual:
        raise ValueError(f"{name} needs whole clips; co{name} runs the same weights on a stream")
    if not weights and not shipped(name):
        raise ValueError(f"no weights come with {name}: give --weights kinetics400 or a file")
    _check_distinct(Path(video), {"table": table, "features": features, "annotated video": save})
    check_device(device)
    model, transform = load(name, weights or next(iter(shipped(name))), window)
    model, labels = model.to(device), live.class_names(model)
    fps = record.native_fps if fps is None else fps
    if not fps > 0:
        raise ValueError(f"fps must be above 0, not {fps:g}")
    with Reader(video) as reader:
        if fps != record.native_fps:
            click.echo(f"{name} was trained at {record.native_fps:g} frames per second; fed at "
                       f"{fps:g} it may be less accurate", err=True)  # fmt: skip
        if caveat := live.caveat(model, video):
            known = "co3d stream VIDEO --model cox3d_m --weights kinetics400"
            click.echo(f"{caveat}; for real classes: {known}", err=True)
        films = []
        if save:
            from ..report.overlay import Film

            films.append(Film(save, model, fps))
        live.watch(
            *(reader, model, transform, labels),
            fps=fps,
            limit_s=limit_seconds,
            table=table,
            features=features,
            more=films,
        )


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

"""co3d stream: a model over a video, frame by frame."""

from pathlib import Path

import click

from .. import paths


@click.command()
@click.argument("video")
@click.option("--model", "name", default="cox3d_mini", show_default=True)
@click.option("--weights", help="kinetics400, or a file (default: what comes with co3d).")
@click.option("--window", type=int, help="Span of the running average in frames.")
@click.option("--fps", type=float, help="Frames per second to feed (default: the model's own).")
@click.option("--limit-seconds", type=float, help="Stop after so many seconds of video.")
@click.option("--csv", "table", type=click.Path(path_type=Path), help="Write a row per prediction.")
@click.option("--device", default="cpu", show_default=True)
def stream(
    video: str,
    name: str,
    weights: str | None,
    window: int | None,
    fps: float | None,
    limit_seconds: float | None,
    table: Path | None,
    device: str,
) -> None:
    """Run a model over VIDEO frame by frame; a file, camera or stream address."""
    from .. import load, spec
    from ..data.kinetics import KINETICS400_LABELS
    from ..data.synthetic import SYNTHETIC_KINETICS_LABELS
    from ..data.video import Reader
    from ..measure import live
    from ..zoo.checkpoints import shipped

    record = spec(name)
    if not record.continual:
        raise ValueError(f"{name} needs whole clips; co{name} runs the same weights on a stream")
    if not weights and not shipped(name):
        raise ValueError(f"no weights come with {name}: give --weights kinetics400 or a file")
    if table and table.resolve() == Path(video).resolve():
        raise ValueError(f"the table would replace the video {video}: name another file")
    labels = KINETICS400_LABELS
    if record.num_classes == len(SYNTHETIC_KINETICS_LABELS):
        labels = SYNTHETIC_KINETICS_LABELS
    known = record.checkpoint(weights or "")
    if known and known.num_classes != len(labels):
        raise ValueError(
            f"co3d stream knows no names for the {known.num_classes} classes of {weights}"
        )
    model, transform = load(name, weights or next(iter(shipped(name))), window)
    try:
        model = model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {device!r} cannot be used: {error}".splitlines()[0]) from None
    fps = record.native_fps if fps is None else fps
    if not fps > 0:
        raise ValueError(f"fps must be above 0, not {fps:g}")
    with Reader(video) as reader:
        if fps != record.native_fps:
            click.echo(f"{name} was trained at {record.native_fps:g} frames per second; fed at "
                       f"{fps:g} it may be less accurate", err=True)  # fmt: skip
        if len(labels) < 400 and paths.cache_path() not in Path(video).absolute().parents:
            click.echo(
                f"{name} knows only {len(labels)} synthetic motions; for real classes: "
                "co3d stream VIDEO --model cox3d_m --weights kinetics400",
                err=True,
            )
        live.watch(
            *(reader, model, transform, labels),
            fps=fps,
            limit_s=limit_seconds,
            table=table,
        )

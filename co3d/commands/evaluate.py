"""co3d evaluate: accuracy over a data set."""

from pathlib import Path

import click


@click.command()
@click.argument("dataset", type=click.Choice(["synthetic-kinetics"]))
@click.option("--split", default="test", show_default=True,
              type=click.Choice(["train", "val", "test"]))  # fmt: skip
@click.option("--window", "windows", type=int, multiple=True, default=(16, 32, 64),
              show_default=True, help="Frames of the running average.")  # fmt: skip
@click.option("--limit", default=0, show_default=True, type=click.IntRange(min=0),
              help="First so many videos; 0 is all.")  # fmt: skip
@click.option("--csv", "table", type=click.Path(path_type=Path), help="Also write the rows here.")
def evaluate(
    dataset: str, split: str, windows: tuple[int, ...], limit: int, table: Path | None
) -> None:
    """Accuracy of x3d_mini on clips, cox3d_mini on streams, and the control over equal frames."""
    import pandas as pd

    from .. import load
    from ..data import synthetic
    from ..measure import accuracy

    if table and (table.is_dir() or not table.parent.is_dir()):
        raise ValueError(f"cannot write {table}: name a file in an existing folder")
    regular, transform = load("x3d_mini", dataset)
    streams = [load("cox3d_mini", dataset, window=window)[0] for window in windows]
    readings = accuracy.readings(regular, streams)
    data = synthetic.dataset(split, limit=limit or None)
    fps = regular.spec.native_fps
    rows = pd.DataFrame(accuracy.evaluate(readings, data, transform, fps, limit=limit))
    shown = ["model", "mode", "window", "frames", "views", "n_expected", "n_scored"]
    shown += ["top1", "ci_low", "ci_high", "macs_per_prediction"]
    click.echo(rows[shown].to_string(index=False, float_format=lambda x: f"{x:.1f}", na_rep=""))
    if table:
        part = table.with_name(f"{table.name}.part")
        rows.to_csv(part, index=False)
        part.replace(table)

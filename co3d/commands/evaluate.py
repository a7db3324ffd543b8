"""co3d evaluate: accuracy over a data set."""

from pathlib import Path
from typing import Any

import click

SHOWN = ["model", "protocol", "mode", "window", "frames", "views", "crops", "fill", "n_expected",
         "n_found", "n_scored", "top1", "as_wrong", "map_official", "map_common", "ci_low",
         "ci_high"]  # fmt: skip


@click.command()
@click.argument("dataset")
@click.option(
    "--models",
    "names",
    default="all",
    show_default=True,
    metavar="A,B,...",
    help="Names as in co3d models; all: every one with weights for the data set.",
)
@click.option(
    "--protocol",
    "protocols",
    multiple=True,
    metavar="NAME",
    help="paper, native, first-valid or steady; may be repeated.  "
    "[default: paper, first-valid and steady; on synthetic sets native and steady]",
)
@click.option(
    "--window",
    "windows",
    type=click.IntRange(min=1),
    multiple=True,
    help="Frames of a stream's running average; may be repeated.  [default: native]",
)
@click.option("--weights", help="Training data, or a file for one model.  [default: DATASET]")
@click.option("--split", help="[default: val of kinetics400, else test]")
@click.option("--root", help="Of the data set: a folder, or an address such as s3://bucket/set.")
@click.option("--parts", type=click.IntRange(min=1),
              help="Only the first N archives of kinetics400, fetched if need be.")  # fmt: skip
@click.option("--limit", default=0, show_default=True, type=click.IntRange(min=0),
              help="First so many videos; 0 is all.")  # fmt: skip
@click.option("--controls", is_flag=True,
              help="For each stream also the clip net on clips over the same frames.")  # fmt: skip
@click.option("--fps", type=float, help="Rate of sampling by time.")
@click.option("--fill", type=click.Choice(["zeros", "replicate"]), help="Before a stream's start.")
@click.option("--crops", type=click.IntRange(min=1), help="1 or 3.")
@click.option("--views", type=click.IntRange(min=1), help="Clips per video.")
@click.option("--frames", type=click.IntRange(min=1), help="Of a clip.  [default: the model's own]")
@click.option("--position", type=click.FloatRange(0, 1), help="Of one clip; 0.5 is the middle.")
@click.option("--channel-order", type=click.Choice(["rgb", "bgr"]))
@click.option("--device", help="[default: cpu; of a cluster its GPUs, if it has any]")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(min=1),
              help="Processes that decode (of each actor of a cluster).")  # fmt: skip
@click.option("--engine", "engine_name", default="local", show_default=True,
              type=click.Choice(["local", "ray"]),
              help="This process, or a Ray cluster.")  # fmt: skip
@click.option("--address",
              help="Of the cluster's head; auto is one that runs on this machine.  "
              "[default: start one here]")  # fmt: skip
@click.option("--plan", "only_plan", is_flag=True,
              help="Print which frames of a video would feed which model, and stop.")  # fmt: skip
@click.option("--csv", "table", type=click.Path(path_type=Path), help="Write the rows here, too.")
def evaluate(
    dataset: str,
    names: str,
    protocols: tuple[str, ...],
    windows: tuple[int, ...],
    weights: str | None,
    split: str | None,
    root: str | None,
    parts: int | None,
    limit: int,
    controls: bool,
    device: str | None,
    workers: int,
    engine_name: str,
    address: str | None,
    only_plan: bool,
    table: Path | None,
    **options: float | str | None,
) -> None:
    """Accuracy of models on DATASET: kinetics400, charades, synthetic-kinetics,
    synthetic-charades, or a folder of one folder of videos per class.

    A run that was stopped goes on where it was. Predictions are kept per video among the runs, and
    the rows go to the tables there.
    top1 is of the scored videos; as_wrong counts planned ones without a prediction as wrong.
    """
    import pandas as pd

    from .. import report
    from ..measure import accuracy, cluster, readings, runs
    from ..measure import protocols as rules
    from .options import check_device, check_file, write_table

    here = device or "cpu" if engine_name == "local" else "cpu"  # where networks are loaded
    check_device(here)
    check_file(table)
    data = _opened(dataset, split, root, parts, limit)
    chosen = readings.readings(
        readings.loaded(names, weights or dataset, here, len(data.labels)),
        data.name,
        protocols or rules.usual(dataset),
        windows or (None,),
        controls=controls,
        **options,
    )
    if only_plan:
        for line in runs.plan_lines(chosen, data.videos):
            click.echo(line)
        return
    accuracy.check(chosen, data)
    with cluster.engine(engine_name, address, device=device, workers=workers) as engine:
        results, times = accuracy.evaluate(chosen, data, limit=limit, engine=engine)
    rows = [result.row for result in results]
    whole = pd.DataFrame(rows)
    wrong = [accuracy.failures_as_wrong(row) for row in rows]
    shown = whole.assign(as_wrong=wrong)[SHOWN].dropna(axis=1, how="all")
    click.echo(shown.to_string(index=False, float_format=lambda x: f"{x:.1f}", na_rep=""))
    if parts or limit:
        click.echo(f"a part of {dataset}: not its accuracy, and in none of its figures")
    account = runs.account([result.run for result in results], times)
    for line in (*accuracy.warnings(results), *account):
        click.echo(line)
    write_table(whole, table)
    path = report.write("accuracy", rows, report.output_folder(), notebook="", seed=0, device=here)
    click.echo(f"rows: {path}")


def _opened(
    dataset: str, split: str | None, root: str | None, parts: int | None, limit: int
) -> Any:
    """The `Dataset`, or its parts."""
    from ..data.remote import is_address
    from ..data.sets import open_parts, open_set

    place = Path(root) if root and not is_address(root) else root
    if not parts:
        return open_set(dataset, split, root=place, limit=limit or None)
    if dataset != "kinetics400" or is_address(place):
        raise ValueError(
            "expected --parts of kinetics400 alone, and a folder into which they are fetched, "
            f"given {root or dataset}"
        )
    return open_parts(parts, split, root=place, limit=limit or None, tell=click.echo)

"""co3d scale: how evaluation grows with actors, and what that means for Kinetics-400."""

import click


@click.command()
@click.option("--actors", multiple=True, type=click.IntRange(min=1), default=(1, 2),
              show_default=True,
              help="Of a Ray cluster on this machine; may be repeated.")  # fmt: skip
@click.option("--limit", default=400, show_default=True, type=click.IntRange(min=1),
              help="Videos of synthetic-kinetics.")  # fmt: skip
@click.option("--assumed", default=4.0, show_default=True, type=click.FloatRange(0, min_open=True),
              help="Videos per second of one GPU, for the expected hours.")  # fmt: skip
def scale(actors: tuple[int, ...], limit: int, assumed: float) -> None:
    """Time runs on Ray with so many actors of one thread each, and the driver alone.

    The rows go to the tables among the runs, too. No GPU is measured: the expected hours for
    Kinetics-400 hold for GPUs of the assumed rate, or for the driver, where they outrun it.
    """
    import pandas as pd
    import torch

    from .. import report
    from ..data.sets import open_set
    from ..measure import readings, scaling

    torch.set_num_threads(1)
    data = open_set("synthetic-kinetics", "test", limit=limit)
    nets = readings.loaded("x3d_mini,cox3d_mini", data.name)
    chosen = readings.readings(nets, data.name, ["native", "steady"])
    rows = [*scaling.rates(chosen, data, actors), scaling.ceiling()]
    rows = [{**row, "threads": 1} for row in rows]
    click.echo(pd.DataFrame(rows).to_string(index=False, float_format=lambda x: f"{x:.1f}"))
    hours = pd.DataFrame(scaling.expected(rows, assumed))
    click.echo(f"\nhours for Kinetics-400, {assumed:g} videos per second and GPU assumed:")
    click.echo(hours.to_string(index=False, float_format=lambda x: f"{x:.3g}"))
    path = report.write("scaling", rows, report.output_folder(), notebook="", seed=0)
    click.echo(f"rows: {path}")

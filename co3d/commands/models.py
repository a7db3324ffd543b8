"""co3d models: sizes, costs and stream constants."""

import click


@click.command()
@click.argument("names", metavar="[MODEL]...", nargs=-1)
@click.option("--window", type=int, help="Frames of the running average (default: native).")
def models(names: tuple[str, ...], window: int | None) -> int:
    """Parameters, cost and stream constants of MODELs (default: all).

    MACs are multiply-accumulates of a clip, of the largest step within a period, and the mean per
    frame. RF, padding and warm-up are in frames; the first output comes at that frame, and so
    many seconds after the start at the model's native rate. FLOPs are counted in the paper's way,
    slips included, and compared with its table, which prints two decimals in G; "once" counts every
    operation once.
    """
    from .. import list_models, spec
    from ..measure import sizes

    records = [spec(name) for name in names or list_models()]
    click.echo(sizes.HEAD)
    refused = 0
    for record in records:
        lengths = sorted({record.frames, *(p.frames for p in record.published)} - {None})
        for frames in [None] if record.continual else lengths:
            try:
                chosen = window if record.continual else None
                row = sizes.row(record.name, window=chosen, frames=frames)
            except ValueError as error:
                click.echo(f"co3d: {record.name}: {error}", err=True)
                refused += 1
                continue
            click.echo(sizes.line(row, record.native_fps))
    return 2 if refused else 0

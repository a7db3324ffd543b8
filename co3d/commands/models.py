"""co3d models: sizes, costs and stream constants."""

from typing import Any

import click

LINE = "{:<20}{:>9}{:>8}{:>8}{:>8}{:>7}{:>7}{:>6}{:>8}{:>8}{:>17}{:>7}{:>10}{:>8}{:>6}{:>8}"
UPPER = ("", "", "MACs", "MACs", "MACs", "clip", *[""] * 4, "first", "", *["FLOPs"] * 2, "",
         "FLOPs")  # fmt: skip
LOWER = ("model", "params", "clip", "step", "frame", "frames", "window", "RF", "padding", "warm-up",
         "output", "stride", "published", "here", "same", "once")  # fmt: skip


@click.command()
@click.argument("names", metavar="[MODEL]...", nargs=-1)
@click.option("--window", type=int, help="Frames of the running average (default: native).")
def models(names: tuple[str, ...], window: int | None) -> int:
    """Parameters, cost and stream constants of MODELs (default: all).

    MACs are multiply-accumulates of a clip, of the largest step within a period, and the mean per
    frame. RF, padding and warm-up are in frames; the first output comes at that frame, so many
    seconds after the start at the model's native rate. FLOPs are counted as in the paper, slips
    included, and compared with its table, which prints two decimals in G; "once" counts every
    operation once.
    """
    from .. import list_models, spec
    from ..measure import sizes

    click.echo(f"{LINE.format(*UPPER)}\n{LINE.format(*LOWER)}".rstrip())
    refused = 0
    for record in [spec(name) for name in names or list_models()]:
        lengths = sorted({record.frames, *(p.frames for p in record.published)} - {None})
        for frames in [None] if record.continual else lengths:
            try:
                chosen = window if record.continual else None
                row = sizes.row(record.name, window=chosen, frames=frames)
            except ValueError as error:
                click.echo(f"co3d: {record.name}: {error}", err=True)
                refused += 1
                continue
            same = {True: "yes", False: "NO", None: None}[sizes.matches_published(row)]
            click.echo(_line(row, record.native_fps, same))
    return 2 if refused else 0


def _line(row: dict[str, Any], fps: float, same: str | None) -> str:
    counts = [_units(row[name]) for name in ("params", "macs_clip", "macs_step", "macs_frame")]
    cells = [row[name] for name in ("frames", "window", "receptive_field", "padding", "warmup")]
    first = None if row["warmup"] is None else row["warmup"] + 1
    cells += [first and f"{first} ({first / fps:.1f} s)", row["stride"]]
    published = row["flops_published"]
    cells += [published and f"{published / 1e9:.2f} G"]
    cells += [_units(row["flops_paper_clip"] or row["flops_paper_step"]), same]
    cells += [_units(row["flops_paper_clip"] or row["flops_once_step"])]
    cells = ["" if cell is None else cell for cell in cells]
    return LINE.format(row["model"], *counts, *cells).rstrip()


def _units(number: float | None) -> str:
    """Four digits: 1.963 G, 152.7 M, 63.04 k."""
    if number is None:
        return ""
    units = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""))
    size, unit = next(pair for pair in units if number >= pair[0])
    return f"{number / size:#.4g} {unit}"

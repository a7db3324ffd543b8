"""co3d bench: how fast models are on this machine."""

from pathlib import Path

import click


@click.command()
@click.argument("names", metavar="[MODEL]...", nargs=-1)
@click.option("--window", type=int, help="Frames of the running average (default: native).")
@click.option("--repeats", default=100, show_default=True, type=click.IntRange(min=1),
              help="Measurements of each model.")  # fmt: skip
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads (default: torch's).")
@click.option("--device", default="cpu", show_default=True)
@click.option("--csv", "table", type=click.Path(path_type=Path), help="Also write the rows here.")
def bench(
    names: tuple[str, ...],
    window: int | None,
    repeats: int,
    threads: int | None,
    device: str,
    table: Path | None,
) -> None:
    """Time predictions of MODELs (default: the minis) at batch 1, in turns.

    Of a clip net a whole clip is timed, of a continual net one step past its warm-up, the one that
    predicts; weights are random, on which speed does not depend. Predictions per second count all
    steps between two predictions, and ms/frame is their mean. GEMM is the best matrix product of
    the same run.
    """
    import pandas as pd

    from .. import list_models
    from ..measure import speed
    from ..report.origin import provenance
    from ..report.schema import TABLES
    from .options import check_device, check_file, write_table

    check_file(table)
    check_device(device)
    chosen = names or [name for name in list_models() if name.endswith("_mini")]
    options = {"window": window, "repeats": repeats, "threads": threads, "device": device}
    speeds = speed.measure(chosen, **options)
    rows = pd.DataFrame([one.row() for one in speeds])
    rows["window"] = rows["window"].astype("Int64")
    shown = pd.DataFrame(
        {
            "model": rows["model"],
            "mode": rows["mode"],
            "window": rows["window"].astype("string").fillna(""),
            "median ms": rows["latency_ms_median"],
            "p95": rows["latency_ms_p95"],
            "std": rows["latency_ms_std"],
            "ms/frame": [one.ms_per_frame for one in speeds],
            "predictions/s": rows["throughput_per_s"],
            "state MB": rows["state_mb"],
        }
    )
    click.echo(shown.to_string(index=False, float_format=lambda x: f"{x:.2f}", na_rep=""))
    where = provenance(notebook="", seed=0, device=device)
    click.echo(f"{where['device']}, threads {speeds[0].threads}, float32, {repeats} measurements "
               f"each; GEMM {speeds[0].peak / 1e9:.0f} GMACs per second")  # fmt: skip
    whole = rows.assign(**{**where, "threads": speeds[0].threads})
    write_table(whole[list(TABLES["benchmark"].columns)], table)

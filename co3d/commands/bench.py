"""co3d bench: how fast models are on this machine."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import pandas as pd

PAPER = ("cox3d_s", "cox3d_m", "cox3d_l", "coslow_8x8_r50", "coi3d_8x8_r50")


@click.command()
@click.argument("names", metavar="[MODEL]...", nargs=-1)
@click.option("--window", type=int, help="Frames of the running average (default: native).")
@click.option("--repeats", default=100, show_default=True, type=click.IntRange(min=1),
              help="Measurements of each model.")  # fmt: skip
@click.option("--seconds", type=click.FloatRange(min=0),
              help="At most so long for each, with fewer measurements.")  # fmt: skip
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads (default: torch's).")
@click.option("--device", default="cpu", show_default=True)
@click.option("--precision", "precisions", multiple=True,
              help="float32, bfloat16 or float16; may be repeated.  "
              "[default: float32, with --peer both]")  # fmt: skip
@click.option("--implementation", "implementations", multiple=True,
              help="A form such as 'co3d optimised', or all; may be repeated.  "
              "[default: eager and optimised, with --peer all]")  # fmt: skip
@click.option("--peer", is_flag=True,
              help="Also the same nets of continual-inference, and how they compare.")  # fmt: skip
@click.option("--memory", type=click.FloatRange(min=0, min_open=True),
              help="MB: also the largest batch, a power of two, that fits.")  # fmt: skip
@click.option("--csv", "table", type=click.Path(path_type=Path), help="Also write the rows here.")
def bench(
    names: tuple[str, ...],
    precisions: tuple[str, ...],
    implementations: tuple[str, ...],
    peer: bool,
    device: str,
    table: Path | None,
    **options: float | None,
) -> None:
    """Time predictions of MODELs (default: the minis, with --peer the paper's streams), in turns.

    Of a clip net a whole clip is timed, of a continual net one step past its warm-up, the one that
    predicts; weights are random, on which speed does not depend. Predictions per second count all
    steps between two predictions, and ms/frame is their mean. GMACs/s are those of the formula in
    that time, GEMM is the best matrix product of the same run. The rows go to the tables among the
    runs, too.
    """
    from .. import list_models, report
    from ..measure import rungs, speed
    from ..report import speedups
    from ..report.origin import device_name
    from .options import check_device, check_file

    check_file(table)
    check_device(device)
    minis = [name for name in list_models() if name.endswith("_mini")]
    chosen = names or (PAPER if peer else minis)
    forms = list(implementations) or (["all"] if peer else [rungs.EAGER, rungs.OPTIMISED])
    ours = rungs.ours(device) if "all" in forms else tuple(forms)
    speeds, left_out = speed.measure(
        chosen,
        device=device,
        implementations=dict.fromkeys([*ours, *(rungs.PEERS if peer else ())]),
        precisions=precisions or (("float32", "bfloat16") if peer else ("float32",)),
        **options,
    )
    rows = speedups.frame(speeds)
    _show(rows.assign(frame=[one.ms_per_frame for one in speeds]))
    for line in left_out:
        click.echo(line)
    if "bfloat16" in set(rows["precision"]) and device == "cpu" and not rungs.amx():
        click.echo("no AMX here: bfloat16 is computed by AVX-512, a part of the speed of AMX")
    peaks = rows.groupby("precision", sort=False)["gemm_peak_gmacs"].max().items()
    peaks = ", ".join(f"{precision} {peak:.0f}" for precision, peak in peaks)
    click.echo(f"{device_name(device)}, threads {speeds[0].threads}, GEMM {peaks} GMACs per second")
    if peer:
        _compare(rows)
    out = report.output_folder()
    for path in speedups.save(speeds, out, notebook="", seed=0, device=device):
        click.echo(f"rows: {path}")
    _write(rows, table, device)


def _show(rows: "pd.DataFrame") -> None:
    """A line per model and form, without columns that are blank."""
    import pandas as pd

    from ..report import speedups

    rows = speedups.rates(rows)
    shown = pd.DataFrame(
        {
            "model": rows["model"],
            "mode": rows["mode"],
            "window": rows["window"].astype("string").fillna(""),
            "implementation": rows["implementation"],
            "precision": rows["precision"],
            "batch": rows["batch"],
            "median ms": rows["latency_ms_median"],
            "p95": rows["latency_ms_p95"],
            "std": rows["latency_ms_std"],
            "of": rows["repeats"],
            "ms/frame": rows["frame"],
            "predictions/s": rows["throughput_per_s"],
            "state MB": rows["state_mb"],
            "alloc MB": rows["alloc_mb"],
            "peak MB": rows["peak_mem_mb"],
            "GMACs/s": rows["gmacs_per_s"],
        }
    ).dropna(axis=1, how="all")
    click.echo(shown.to_string(index=False, float_format=lambda x: f"{x:.2f}", na_rep=""))


def _compare(rows: "pd.DataFrame") -> None:
    """How many times as long the peers take."""
    from ..report import speedups

    for title, table in (
        ("times of the peer in float32 / ours, per prediction:", speedups.ratios(rows)),
        ("memory of ours / the peer as installed, float32:", speedups.memory(rows)),
    ):
        if len(table):
            text = table.to_string(index=False, float_format=lambda x: f"{x:.2f}", na_rep="")
            click.echo(f"\n{title}\n{text}")
    click.echo(speedups.WHERE)


def _write(rows: "pd.DataFrame", path: Path | None, device: str) -> None:
    """The rows with their provenance."""
    from ..report.origin import provenance
    from ..report.schema import TABLES
    from .options import write_table

    threads = rows["threads"].iloc[0]
    whole = rows.assign(**{
        **provenance(notebook="", seed=0, device=device),
        "threads": threads,
        "precision": rows["precision"],
    })  # fmt: skip
    write_table(whole[list(TABLES["benchmark"].columns)], path)

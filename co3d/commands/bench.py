"""co3d bench: how fast models are on this machine."""

from math import log2
from pathlib import Path
from typing import Any

import click

PAPER = ("cox3d_s", "cox3d_m", "cox3d_l", "coslow_8x8_r50", "coi3d_8x8_r50")
PEER_SECONDS = 4.0


@click.command()
@click.argument("names", metavar="[MODEL]...", nargs=-1)
@click.option("--window", type=int, help="Frames of the running average (default: native).")
@click.option("--batch", default=1, show_default=True, type=click.IntRange(min=1),
              help="Streams or clips computed at once.")  # fmt: skip
@click.option("--repeats", default=100, show_default=True, type=click.IntRange(min=1),
              help="Measurements of each model.")  # fmt: skip
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True),
              help="At most so long for each form, with fewer measurements.  "
              f"[default: no limit, with --peer {PEER_SECONDS:g}]")  # fmt: skip
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads (default: torch's).")
@click.option("--device", default="cpu", show_default=True)
@click.option("--precision", "precisions", multiple=True, default=["float32"], show_default=True,
              help="float32, bfloat16 or float16; may be repeated.")  # fmt: skip
@click.option("--implementation", "implementations", multiple=True,
              help="A form such as 'co3d optimised', or all; may be repeated.  "
              "[default: eager and optimised, with --peer all]")  # fmt: skip
@click.option("--peer", is_flag=True,
              help="Also the same nets of continual-inference and their clip nets, and how all "
              "compare.")  # fmt: skip
@click.option("--memory", type=click.FloatRange(min=0, min_open=True),
              help="MB: also the largest batch, a power of two, that fits.")  # fmt: skip
@click.option("--csv", "table", type=click.Path(path_type=Path), help="Also write the rows here.")
def bench(
    names: tuple[str, ...],
    precisions: tuple[str, ...],
    implementations: tuple[str, ...],
    peer: bool,
    memory: float | None,
    table: Path | None,
    **options: Any,
) -> None:
    """Time predictions of MODELs (default: the minis, with --peer the paper's streams), in turns.

    Times a whole clip for clip networks, and one predicting step after the warm-up for continual
    ones. Weights are random; they do not affect speed. Predictions per second count all steps
    between two predictions, and ms/frame is their mean. GMACs/s are the counted MACs over that
    time; GEMM is the best matrix product of the same run. The rows also go to the tables among the
    runs.
    """
    import pandas as pd

    from .. import list_models, report
    from ..measure import bench as harness
    from ..measure import forms
    from ..report import speedups
    from ..report.origin import device_name, provenance
    from ..report.schema import TABLES
    from .options import check_device, check_file, write_table

    device = options["device"]
    check_file(table)
    check_device(device)
    minis = [name for name in list_models() if name.endswith("_mini")]
    chosen = list(names or (PAPER if peer else minis))
    wanted = implementations or (["all"] if peer else [forms.EAGER, forms.OPTIMISED])
    wanted = [*(forms.OURS if "all" in wanted else wanted), *(forms.PEERS if peer else ())]
    options["forms"] = dict.fromkeys(precisions, wanted)
    if peer:
        chosen += [name.removeprefix("co") for name in chosen]
        options["seconds"] = options["seconds"] or PEER_SECONDS
    rows, left_out = harness.measure(chosen, **options)
    rows += _in_batches(rows, memory, options) if memory else []
    frame = pd.DataFrame(rows).astype({"window": "Int64"})
    _echo(speedups.summary(frame))
    for line in left_out:
        click.echo(line)
    if "bfloat16" in set(frame["precision"]) and device == "cpu" and not forms.amx():
        click.echo("no AMX here: AVX-512 computes bfloat16, at a fraction of the speed of AMX")
    peaks = frame.groupby("precision", sort=False)["gemm_peak_gmacs"].max().items()
    peaks = ", ".join(f"{precision} {peak:.0f}" for precision, peak in peaks)
    threads = rows[0]["threads"]
    click.echo(f"{device_name(device)}, threads {threads}, GEMM {peaks} GMACs per second")
    if peer:
        for title, ratios in speedups.compared(frame).items():
            click.echo(f"\n{title}:")
            _echo(ratios)
        click.echo(f"\n{speedups.WHERE}")
    origin = {"notebook": "", "seed": 0, "device": device}
    for path in speedups.save(rows, report.output_folder(), **origin):
        click.echo(f"rows: {path}")
    whole = pd.DataFrame([{**provenance(**origin), **row} for row in rows])
    write_table(whole[list(TABLES["benchmark"].columns)].astype({"window": "Int64"}), table)


def _echo(table: Any) -> None:
    click.echo(table.to_string(index=False, float_format=lambda x: f"{x:.2f}", na_rep=""))


def _in_batches(rows: list[dict], memory: float, options: dict[str, Any]) -> list[dict]:
    """Each form, alone, in the largest batch for which "co3d eager" fits into so many MB.

    Memory grows linearly with the batch: weights are there once, all else per stream or clip.
    """
    from ..measure.bench import EAGER, Case, measure, subject

    device, repeats = options["device"], max(1, options["repeats"] // 10)
    more: list[dict] = []
    batches: dict[tuple[str, str], int] = {}
    for row in rows:
        model, precision = row["model"], row["precision"]
        if (model, precision) not in batches:
            cases = [Case(model, row["window"], batch) for batch in (1, 2)]
            facts = [subject(case, EAGER, precision, device=device).facts for case in cases]
            one, two = (each["peak_mem_mb"] or each["alloc_mb"] for each in facts)
            batches[model, precision] = 2 ** int(log2(max(1, 1 + (memory - one) / (two - one))))
        batch = batches[model, precision]
        if batch > options["batch"]:
            changes = {"forms": {precision: [row["implementation"]]}, "progress": False}
            changes |= {"batch": batch, "repeats": repeats}
            more += measure([model], **{**options, **changes})[0]
    return more

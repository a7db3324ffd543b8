"""co3d bench: how fast models are on this machine."""

from math import log2
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import pandas as pd

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
    from ..report.origin import device_name
    from .options import check_device, check_file

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
    _show(frame)
    for line in left_out:
        click.echo(line)
    if "bfloat16" in set(frame["precision"]) and device == "cpu" and not forms.amx():
        click.echo("no AMX here: AVX-512 computes bfloat16, at a fraction of the speed of AMX")
    peaks = frame.groupby("precision", sort=False)["gemm_peak_gmacs"].max().items()
    peaks = ", ".join(f"{precision} {peak:.0f}" for precision, peak in peaks)
    threads = rows[0]["threads"]
    click.echo(f"{device_name(device)}, threads {threads}, GEMM {peaks} GMACs per second")
    if peer:
        _compare(frame)
    for path in speedups.save(rows, report.output_folder(), notebook="", seed=0, device=device):
        click.echo(f"rows: {path}")
    _write(frame, table, device)


def _in_batches(rows: list[dict], memory: float, options: dict[str, Any]) -> list[dict]:
    """Each form, alone, in the largest batch for which "co3d eager" fits into so many MB.

    Memory grows linearly with the batch: weights are there once, all else per stream or clip.
    """
    from ..measure import bench as harness
    from ..measure.forms import EAGER

    def run(row: dict, form: str, batch: int, repeats: int) -> list[dict]:
        changes = {"batch": batch, "repeats": repeats, "forms": {row["precision"]: [form]}}
        return harness.measure([row["model"]], **{**options, **changes, "progress": False})[0]

    more: list[dict] = []
    batches: dict[tuple[str, str], int] = {}
    for row in rows:
        key = row["model"], row["precision"]
        if key not in batches:
            one, two = (run(row, EAGER, count, 1)[0] for count in (1, 2))
            one, two = (each["peak_mem_mb"] or each["alloc_mb"] for each in (one, two))
            batches[key] = 2 ** int(log2(max(1, 1 + (memory - one) / (two - one))))
        if batches[key] > options["batch"]:
            repeats = max(1, options["repeats"] // 10)
            more += run(row, row["implementation"], batches[key], repeats)
    return more


def _show(rows: "pd.DataFrame") -> None:
    """A line per model and form, without columns that are blank."""
    from ..report import speedups

    rows = speedups.per_prediction(rows)
    columns = {
        **dict.fromkeys(("model", "mode", "window", "implementation", "precision", "batch")),
        "latency_ms_median": "median ms",
        "latency_ms_p5": "p5",
        "latency_ms_p95": "p95",
        "repeats": "of",
        "ms_per_frame": "ms/frame",
        "throughput_per_s": "predictions/s",
        "state_mb": "state MB",
        "alloc_mb": "alloc MB",
        "peak_mem_mb": "peak MB",
        "gmacs_per_s": "GMACs/s",
    }
    shown = rows.assign(
        window=rows["window"].astype("string").fillna(""),
        ms_per_frame=rows["batch"] * rows["ms"] / rows["stride"],
    )[list(columns)].dropna(axis=1, how="all")
    click.echo(_text(shown.rename(columns={key: name for key, name in columns.items() if name})))


def _compare(rows: "pd.DataFrame") -> None:
    """Streams beside the peer, the file of OpenVINO, and their clip nets."""
    from ..measure.forms import OPENVINO, PEERS
    from ..report import speedups

    tables = {
        "time of these in float32 / ours, per prediction": speedups.against(
            rows, [*PEERS, OPENVINO]
        ),
        "saved per prediction against the fastest float32 form of the clip net": speedups.savings(
            rows
        ),
        "state / that of continual-inference in float32": speedups.state_shares(rows),
    }
    for title, table in tables.items():
        if len(table):
            click.echo(f"\n{title}:\n{_text(table)}")
    click.echo(f"\n{speedups.WHERE}")


def _text(table: "pd.DataFrame") -> str:
    return table.to_string(index=False, float_format=lambda x: f"{x:.2f}", na_rep="")


def _write(rows: "pd.DataFrame", path: Path | None, device: str) -> None:
    """The rows with their provenance."""
    from ..report.origin import provenance
    from ..report.schema import TABLES
    from .options import write_table

    origin = provenance(notebook="", seed=0, device=device)
    whole = rows.assign(**{name: origin[name] for name in origin if name not in rows})
    write_table(whole[list(TABLES["benchmark"].columns)], path)

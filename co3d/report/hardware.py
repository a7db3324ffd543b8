"""The rows of the ledger on memory and throughput, from the benchmark table.

None of the four published devices is here, so throughput is measured on another one.
"""

import pandas as pd

from ..measure.forms import EAGER
from .entries import Rows, Sources, between, entry
from .style import label

_TIMED = {"notebook": "04_speed"}


def eager(at: Sources) -> pd.DataFrame:
    """Our rows of published networks in plain torch, float32, at batch 1, by model."""
    rows = at.benchmark
    wanted = (rows["implementation"] == EAGER) & (rows["precision"] == "float32")
    wanted &= rows["batch"] == 1
    published = set(at.printed("kinetics400_published")["model"])
    return rows[wanted & rows["model"].isin(published)].drop_duplicates("model").set_index("model")


def columns(at: Sources, where: str) -> Rows:
    """The measured columns of the published table: memory, and throughput on four devices."""
    source, rows = "kinetics400_published", eager(at)
    table = at.numbers(source)
    printed, memory = at.printed(source), table["peak_memory_mib"].dropna()
    claim = f"peak memory during inference, {len(memory)} values"
    held, note = rows["peak_mem_mb"].dropna(), "a GPU's allocator, in MB"
    if held.empty:
        held = rows["alloc_mb"].dropna()
        note = "counted on a CPU, in MB, without what an operator takes for itself (alloc_mb)"
    found = {}
    if len(held):
        found = {"published": f"{memory.min():.0f}-{memory.max():.0f} MiB", "note": note, **_TIMED}
        found |= {"shown": f"{held.min():.0f}-{held.max():.0f} MB, {len(held)} networks"}
        found |= {"status": "measured and differs"}
    yield entry("table-memory", where, claim, source=source, **found)
    for id, column, device in (
        ("cpu", "cpu", "a laptop's CPU"),
        ("tx2", "jetson_tx2", "a Jetson TX2"),
        ("xavier", "jetson_xavier", "a Jetson AGX Xavier"),
        ("2080ti", "rtx_2080_ti", "an RTX 2080 Ti"),
    ):
        speeds = printed[f"{column}_per_s_mean"]
        claim = f"throughput on {device}, {(speeds != '').sum()} values"
        found = {"status": "not available", "note": "this device is not here; others are timed"}
        found["published"] = f"{between(speeds)} per s"
        yield entry(f"table-{id}", where, claim, source=source, **found)


def share_of_memory(at: Sources, published: str) -> dict:
    """What a stream allocates of its clip net, beside the published span; for `entry`."""
    held = eager(at)["alloc_mb"].dropna()
    pairs = {model: held[model] / held[model[2:]] for model in held.index if model[2:] in held}
    if not pairs:
        return {"note": f"the published column gives {published} of the clip net's"}
    names = ", ".join(f"{label(model)} {share:.2f}" for model, share in pairs.items())
    note = f"a stream's allocation over its clip net's, counted on a CPU: {names}"
    span = [min(pairs.values()), max(pairs.values())]
    return {"published": published, "ours": span, "note": note, **_TIMED}


def benchmarked(at: Sources) -> dict:
    """Which networks are timed, and where; for `entry`."""
    rows = eager(at)
    if rows.empty:
        return {}
    devices = ", ".join(sorted(set(rows["device"])))
    shown = f"{len(rows)} networks on {devices}"
    note = "the published devices are not here"
    found = {"published": "throughput on 4 devices", "shown": shown, "note": note}
    return {**found, "status": "measured and differs", **_TIMED}

"""Factors of speed: rows of the benchmark table in, ratios out; nothing here measures.

`ms` is the time of all work for one prediction of one stream or clip, so that of a strided stream
counts a whole period, and that of a batch is shared.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from .. import report
from ..measure.forms import EAGER, FORMS, INSTALLED, ONNX, OPENVINO, OPTIMISED, PEERS, TUNED
from . import tables
from .schema import TABLES
from .style import label, order

RUN = ["batch", "threads"]  # what rows share that are compared
NAMES = {
    EAGER: "eager",
    OPTIMISED: "optimised",
    ONNX: "ONNX Runtime",
    OPENVINO: "OpenVINO",
    INSTALLED: "continual-inference",
    TUNED: "continual-inference, tuned",
}
MARKERS = {EAGER: "o", OPTIMISED: "D", ONNX: "^", OPENVINO: "v", INSTALLED: "X", TUNED: "P"}
SHOWN = {  # columns of `summary` and their heads
    **{name: name for name in ("model", "mode", "window", "implementation", "precision", "batch")},
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
WHERE = (
    "These ratios hold for this machine and these networks: continual-inference is a general "
    "library, whose layers serve any network."
)


def save(
    rows: Iterable[Mapping], out: Path, table: str = "benchmark", **origin: str | int
) -> list[Path]:
    """Writes rows of `measure.bench` into a table in `out`; returns its files, one a precision.

    `origin` is notebook, seed and device, as `report.write` takes them.
    """
    files: dict[str, list[dict]] = {}
    for row in rows:
        columns = {name: row[name] for name in TABLES[table].own}
        files.setdefault(row["precision"], []).append(columns)
    return [
        report.write(table, rows, out, precision=precision, **origin)
        for precision, rows in files.items()
    ]


def per_prediction(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with `ms`, and `gmacs_per_s` of the formula in that time."""
    ms = 1000 / rows["throughput_per_s"]
    return rows.assign(ms=ms, gmacs_per_s=rows["macs_per_prediction"] / ms / 1e6)


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """A line per model and form for display, without columns that are blank."""
    rows = per_prediction(rows)
    window = rows["window"].astype("string").fillna("")
    rows = rows.assign(window=window, ms_per_frame=rows["batch"] * rows["ms"] / rows["stride"])
    return rows[list(SHOWN)].dropna(axis=1, how="all").rename(columns=SHOWN)


def compared(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Streams beside the peer, the file of OpenVINO and their clip nets, by title if any."""
    tables = {
        "time of these in float32 / ours, per prediction": against(rows, [*PEERS, OPENVINO]),
        "saved per prediction against the fastest float32 form of the clip net": savings(rows),
        "state / that of continual-inference in float32": state_shares(rows),
    }
    return {title: table for title, table in tables.items() if len(table)}


def by_form(rows: pd.DataFrame, value: str) -> pd.DataFrame:
    """One column of the rows for display: a network per row, a form per column."""
    table = rows.pivot_table(value, "model", "implementation")
    columns = [form for form in FORMS if form in table]
    table = table.reindex(index=order(table.index), columns=columns)
    return table.rename(index=label, columns=NAMES).rename_axis(index=None, columns=None)


def against(rows: pd.DataFrame, forms: Iterable[str]) -> pd.DataFrame:
    """How many times as long each of `forms` in float32 takes as each of our forms of a stream.

    Returns:
        Columns model, implementation, precision, batch, threads, and one for each of `forms` that
        is there.
    """
    streams = per_prediction(rows[rows["mode"] == "stream"])
    keys = ["model", "window", *RUN]
    rivals = streams[streams["implementation"].isin(list(forms))].query("precision == 'float32'")
    times = rivals.pivot_table("ms", keys, "implementation").reset_index()
    ours = streams[~streams["implementation"].isin(PEERS)].merge(times, on=keys)
    ratios = {form: ours[form] / ours["ms"] for form in forms if form in ours}
    return ours[["model", "implementation", "precision", *RUN]].assign(**ratios)


def state_shares(rows: pd.DataFrame) -> pd.DataFrame:
    """The state of each stream as a share of that of continual-inference in float32.

    Returns:
        Columns model, implementation, precision, state_mb and share.
    """
    streams = rows[rows["state_mb"].notna()]
    peer = streams[(streams["implementation"] == INSTALLED) & (streams["precision"] == "float32")]
    peer = peer.drop_duplicates("model").set_index("model")["state_mb"]
    ours = streams[~streams["implementation"].isin(PEERS) & streams["model"].isin(peer.index)]
    columns = ours[["model", "implementation", "precision", "state_mb"]]
    return columns.assign(share=ours["state_mb"] / ours["model"].map(peer))


def savings(rows: pd.DataFrame) -> pd.DataFrame:
    """What a stream saves against the fastest float32 form of its clip net, per prediction.

    Returns:
        Columns model (of the stream), implementation, precision, batch, threads; clip (its fastest
        form), clip_ms and ms; macs and time, clip over stream; and share, time over macs.
    """
    rows = per_prediction(rows)
    clips = rows[(rows["mode"] == "clip") & (rows["precision"] == "float32")]
    clips = clips.sort_values("ms", kind="stable")
    both = tables.beside(rows[rows["mode"] == "stream"], clips, RUN)
    both = both.rename(columns={"implementation_clip": "clip", "ms_clip": "clip_ms"})
    macs = both["macs_per_prediction_clip"] / both["macs_per_prediction"]
    time = both["clip_ms"] / both["ms"]
    columns = ["model", "implementation", "precision", *RUN, "clip", "clip_ms", "ms"]
    return both[columns].assign(macs=macs, time=time, share=time / macs)

"""Tables of speed: rows of the benchmark table in, factors out; nothing here measures.

A time is that of all work for one prediction, one over `throughput_per_s` at batch 1, so that of a
strided stream counts a whole period.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median

import pandas as pd

from .. import report
from ..measure.rungs import CONTIGUOUS, EAGER, INSTALLED, OPTIMISED, PEERS, RUNGS
from ..measure.speed import Speed
from .style import label, order

RUNTIMES = ("onnxruntime", "openvino")
WHERE = "These ratios hold for this machine and these networks: continual-inference is a general "
WHERE += "library, whose layers serve any network."


def save(
    speeds: Iterable[Speed], out: Path, *, notebook: str, seed: int, device: str, raw: bool = False
) -> list[Path]:
    """Writes the rows into the tables of `out`, a file per precision; returns the files.

    Args:
        raw: whether single measurements go to the table `latencies`, in the place of `benchmark`.
    """
    files: dict[str, list[Mapping]] = {}
    for one in speeds:
        rows = one.raw() if raw else [one.row()]
        files.setdefault(one.subject.precision, []).extend(rows)
    table, origin = "latencies" if raw else "benchmark", {"notebook": notebook, "seed": seed}
    return [
        report.write(table, rows, out, **origin, device=device, precision=precision)
        for precision, rows in files.items()
    ]


def frame(speeds: Iterable[Speed]) -> pd.DataFrame:
    """The rows of the benchmark table with their precision."""
    rows = [{**one.row(), "precision": one.subject.precision} for one in speeds]
    return pd.DataFrame(rows).astype({"window": "Int64"})


def by_form(rows: pd.DataFrame, value: str, names: Mapping[str, str]) -> pd.DataFrame:
    """One column of the rows at batch 1, for display: a network per row, a form per column.

    Args:
        rows: of the benchmark table, of one precision.
        value: a column of it, or "ms" per prediction.
        names: of the forms, in the order of the columns.
    """
    table = _single(rows).pivot_table(value, "model", "implementation")
    table = table.reindex(
        index=order(table.index), columns=[form for form in names if form in table]
    )
    return table.rename(index=label, columns=names).rename_axis(index=None, columns=None)


def per_call(speeds: Iterable[Speed], names: Mapping[str, str]) -> pd.DataFrame:
    """Milliseconds per clip, and per frame of its stream (the mean over a period), for display.

    A row per clip net; `names` are those of the forms.
    """
    rows = []
    for one in speeds:
        ms, per = one.ms_per_frame, "frame"
        if ms is None:
            ms, per = 1000 * median(one.periods), "clip"
        model = one.subject.model.removeprefix("co")
        rows.append((model, f"ms per {per}", names[one.subject.implementation], ms))
    table = pd.DataFrame(rows, columns=["model", "per", "form", "ms"])
    table = table.pivot(index="model", columns=["per", "form"], values="ms").sort_index(axis=1)
    table = table.loc[order(table.index)].rename(label)
    return table.rename_axis(index=None, columns=[None, None])


def lateness(latencies: pd.DataFrame, limit: float, names: Mapping[str, str]) -> pd.DataFrame:
    """How single measurements spread, and the share within `limit` ms, for display.

    Args:
        latencies: rows of the table latencies, of one model.
        names: of the forms, in the order of the rows.
    """
    times = latencies.assign(early=100.0 * (latencies["latency_ms"] <= limit))
    times = times.groupby("implementation")
    table = pd.DataFrame(
        {
            "median (ms)": times["latency_ms"].median(),
            "95th percentile (ms)": times["latency_ms"].quantile(0.95),
            "longest (ms)": times["latency_ms"].max(),
            f"within {limit:.0f} ms (%)": times["early"].mean(),
        }
    )
    table = table.loc[[form for form in names if form in table.index]].rename(names)
    return table.rename_axis(index=None)


def ratios(rows: pd.DataFrame) -> pd.DataFrame:
    """How many times as long each peer takes as each of our forms, per prediction of a stream.

    Args:
        rows: of the benchmark table, one device and number of threads, with precision.

    Returns:
        Columns model, implementation, precision, and one for each peer (in float32) that is there.
    """
    streams = _single(rows[rows["mode"] == "stream"])
    peers = streams[streams["implementation"].isin(PEERS) & (streams["precision"] == "float32")]
    times = peers.pivot_table("ms", ["model", "window"], "implementation").reset_index()
    ours = streams[~streams["implementation"].isin(PEERS)].merge(times, on=["model", "window"])
    present = [name for name in PEERS if name in ours]
    for name in present:
        ours[name] = ours[name] / ours["ms"]
    return ours[["model", "implementation", "precision", *present]]


def memory(rows: pd.DataFrame) -> pd.DataFrame:
    """State and allocation of each stream in float32 as a share of the peer as installed."""
    streams = _single(rows[(rows["mode"] == "stream") & (rows["precision"] == "float32")])
    columns = ["state_mb", "alloc_mb"]
    peer = streams[streams["implementation"] == INSTALLED].set_index("model")[columns]
    ours = streams[~streams["implementation"].isin(PEERS)].set_index("model")
    shares = ours[columns] / peer.reindex(ours.index)
    table = shares.add_suffix(" / peer").assign(implementation=ours["implementation"])
    return table.dropna(subset=["state_mb / peer"]).reset_index()


def ladder(rows: pd.DataFrame) -> pd.DataFrame:
    """Per continual model the time of each rung, from its clip net in plain torch down.

    Of several runtimes the faster one is taken.

    Returns:
        Columns model, rung, ms, and factor: over the rung before. Rungs without a row are left out.
    """
    single, found = _single(rows), []
    for model in single.loc[single["mode"] == "stream", "model"].unique():
        before = None
        for rung, (mode, names, precision) in LADDER.items():
            name = model if mode == "stream" else model.removeprefix("co")
            wanted = (single["model"] == name) & single["implementation"].isin(names)
            ms = single.loc[wanted & (single["precision"] == precision), "ms"].min()
            if pd.notna(ms):
                found.append((model, rung, ms, before / ms if before else float("nan")))
                before = ms
    return pd.DataFrame(found, columns=["model", "rung", "ms", "factor"])


LADDER: dict[str, tuple[str, Sequence[str], str]] = {
    "clip, torch's layout": ("clip", (CONTIGUOUS,), "float32"),
    "clip, channels-last": ("clip", (EAGER,), "float32"),
    "stream: fewer MACs": ("stream", (EAGER,), "float32"),
    "stream, optimised": ("stream", (OPTIMISED,), "float32"),
    "stream, exported": ("stream", RUNTIMES, "float32"),
    "stream, bfloat16": ("stream", (OPTIMISED, *RUNTIMES), "bfloat16"),
}


def fastest(rows: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """The fastest form of each clip net and of its stream in float32, for display.

    A row per stream whose clip net is there; `names` are those of the forms.
    """
    single = _single(rows[rows["precision"] == "float32"])
    best = single.sort_values("ms").drop_duplicates("model").set_index("model")
    found = {}
    for model in order(best.index[best["mode"] == "stream"]):
        if (twin := model.removeprefix("co")) in best.index:
            clip, stream = best.loc[twin], best.loc[model]
            found[label(model)] = {
                "clip": names[clip["implementation"]],
                "clip (ms)": clip["ms"],
                "stream": names[stream["implementation"]],
                "stream (ms)": stream["ms"],
                "clip / stream": clip["ms"] / stream["ms"],
            }
    return pd.DataFrame.from_dict(found, orient="index")


def savings(rows: pd.DataFrame) -> pd.DataFrame:
    """What a stream saves of its clip net, both in the same form, per prediction.

    Returns:
        Columns model (of the stream), implementation, precision, clip_ms and stream_ms, macs and
        time: clip over stream.
    """
    single = _single(rows)
    clip, stream = (single[single["mode"] == mode] for mode in ("clip", "stream"))
    keys = ["model", "implementation", "precision"]
    both = stream.merge(clip.assign(model="co" + clip["model"]), on=keys, suffixes=("", "_clip"))
    macs = both["macs_per_prediction_clip"] / both["macs_per_prediction"]
    times = {"clip_ms": both["ms_clip"], "stream_ms": both["ms"]}
    return both[keys].assign(**times, macs=macs, time=both["ms_clip"] / both["ms"])


def rates(rows: pd.DataFrame) -> pd.DataFrame:
    """Multiply-accumulates as counted, per second and per byte that torch's operators move.

    Returns:
        The rows with gmacs_per_s, share (of the matrix product of the run) and macs_per_byte.
    """
    rows = rows.assign(gmacs_per_s=rows["macs_per_prediction"] * rows["throughput_per_s"] / 1e9)
    return rows.assign(
        share=rows["gmacs_per_s"] / rows["gemm_peak_gmacs"],
        macs_per_byte=rows["macs_per_prediction"] * rows["batch"] / rows["moved_mb"] / 1e6,
    )


def _single(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of batch 1, with `ms` per prediction, forms in the order of the ladder."""
    order = {name: number for number, name in enumerate(RUNGS)}
    rows = rows[rows["batch"] == 1].assign(ms=1000 / rows["throughput_per_s"])
    return rows.sort_values("implementation", key=lambda names: names.map(order), kind="stable")

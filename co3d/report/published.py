"""The published tables of results/paper, with our columns (our_...) beside theirs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from ..nn import continual
from ..zoo.specs import SPECS
from . import tables
from .style import label


def read(
    paper: Path, ours: Mapping[str, pd.DataFrame], joins: Sequence[Mapping]
) -> dict[str, pd.DataFrame]:
    """What the expressions of claims.toml are about, by name.

    Args:
        paper: folder of the published tables.
        ours: the result tables models, accuracy, benchmark, equivalence and transient.
        joins: which rows of ours stand beside which published ones; see claims.toml.

    Returns:
        The published tables; "pairs", streams of the benchmark beside their clip nets;
        "equivalence"; and "concept", one convolution over a clip and as a stream.
    """
    frames = {path.stem: pd.read_csv(path) for path in paper.glob("*.csv")}
    for name, table in frames.items():
        frames[name] = _described(table) if "model" in table else table
    models, accuracy, benchmark = (ours[name] for name in ("models", "accuracy", "benchmark"))
    for name in ("kinetics400_published", "flops_exact"):
        frames[name] = tables.with_counts(frames[name], models)
    sweep = frames["pool_sweep_published"]  # its windows follow from the native one
    sweep = tables.with_counts(sweep.assign(number=sweep["native"]), models)
    additions = (sweep["our_window_sum"] / sweep["native"]).fillna(0)
    sweep = sweep.assign(number=sweep["window"].astype(float), our_additions=additions)
    frames["pool_sweep_published"] = sweep
    accuracy = tables.numbered(accuracy)
    accuracy["clips"] = accuracy["views"] * accuracy["crops"]
    memory = benchmark["peak_mem_mb"].fillna(benchmark["alloc_mb"])
    ours = {**ours, "accuracy": accuracy, "benchmark": benchmark.assign(memory_mb=memory)}
    for join in joins:
        published, on = frames[join["to"]], join["on"]
        rows = ours[join["table"]].query(join["rows"]).drop_duplicates(on).set_index(on)
        rows = rows[join["take"]].add_prefix("our_").reset_index()
        rows = rows.astype(published[on].dtypes.to_dict())
        frames[join["to"]] = published.merge(rows, on=on, how="left")
    kinetics = frames["kinetics400_published"]
    kinetics["our_gflops_rounded"] = (kinetics["our_flops"] / 1e9).round(2)
    costs = {"gflops": "gflops_per_prediction", "macs": "macs_per_predicting_step"}
    for name, cost in costs.items():
        front = tables.pareto_front(kinetics, cost, "top1_percent").astype(float)
        kinetics[f"our_front_{name}"] = front.where(kinetics[cost].notna())
    same = ours["equivalence"]
    same = same.assign(label=same["model"].map(label))
    return frames | {"pairs": tables.pairs(kinetics), "equivalence": same, "concept": _concept()}


def _described(table: pd.DataFrame) -> pd.DataFrame:
    """The rows with label, whether the model is built here, its number, and that in words.

    A number is the window of a stream or the frames of a clip; `native` is that of the spec.
    """
    specs = [SPECS.get(model) for model in table["model"]]
    native = [spec and (spec.window or spec.frames) for spec in specs]
    labels, built = table["model"].map(label), table["model"].isin(SPECS)
    table = table.assign(label=labels, built=built, native=native)
    if "mode" not in table:
        table["mode"] = ["stream" if spec.continual else "clip" for spec in specs]
    numbers = table.reindex(columns=["window", "frames", "native"]).astype(float)
    table["number"] = numbers.bfill(axis=1)["window"]
    words = {"stream": "a step at window {:.0f}", "clip": "a clip of {:.0f} frames"}
    table["prediction"] = [
        f"{name}, {words[mode].format(number)}"
        for name, mode, number in table[["label", "mode", "number"]].itertuples(index=False)
    ]
    return table


def _concept() -> pd.DataFrame:
    """The principle, on the numbers that notebook 01 draws."""
    net = nn.Conv3d(1, 1, (3, 1, 1), bias=False).requires_grad_(False)
    net.weight.copy_(torch.tensor([1.0, 2.0, 3.0]).view(1, 1, 3, 1, 1))
    frames = torch.arange(1.0, 7.0).view(1, 1, 6, 1, 1)
    stream, _ = continual(net).steps(frames)
    return pd.DataFrame({"clip": net(frames).flatten(), "stream": stream.flatten()})

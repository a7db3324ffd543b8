"""The ledger: every claim, figure and table of the paper beside what is computed here.

Rows come in the order of the paper, from results/paper/*.csv and the result tables. A status is
computed from the values; a row without values is "not yet". `refresh` writes the ledger.
"""

from decimal import Decimal
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from ..nn import continual
from ..paths import repo_root
from ..zoo.specs import SPECS
from . import hardware, readme, results, tables
from .abstract import CO_X3D, ON_CHARADES, READ, START_UP, abstract
from .entries import (
    COLUMNS,
    STATUSES,
    Rows,
    Sources,
    Value,
    between,
    entry,
    needs_data,
    over,
    tally,
    verdict,
)
from .style import label

TABLES = ("models", "accuracy", "benchmark", "equivalence")  # of results, that the ledger reads


def ledger(
    models: pd.DataFrame,
    accuracy: pd.DataFrame | None = None,
    paper: Path | None = None,
    benchmark: pd.DataFrame | None = None,
    equivalence: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """All rows of the ledger, as text.

    Args:
        models: the table of that name; what it lacks is "not yet".
        accuracy: likewise; what it lacks "needs data".
        paper: folder of the published tables (default: results/paper).
        benchmark, equivalence: tables of these names; what they lack is "not yet".
    """
    paper = paper or repo_root() / "results" / "paper"
    at = Sources(models, paper, accuracy, benchmark, equivalence)
    parts = (abstract, _concept, _constants, _figure, _table, _bold, _exact, _sweep, _others)
    return pd.DataFrame([row for part in parts for row in part(at)], columns=COLUMNS)


def statuses(table: pd.DataFrame) -> pd.Series:
    """How many rows have each status, in the order of STATUSES."""
    return table["status"].value_counts().reindex(list(STATUSES), fill_value=0)


def markdown(table: pd.DataFrame) -> str:
    """The ledger for people: one table for each place in the paper."""
    parts = []
    for where, rows in table.groupby("where", sort=False):
        cells = rows[["claim", "published", "ours", "status", "note"]]
        cells = cells.rename(columns={"ours": "here"}).assign(notebook=rows["notebook"].str[:2])
        cells = cells.loc[:, (cells != "").any()]
        parts.append(f"**{where}**\n\n" + tables.markdown(cells, ("claim", "status", "note")))
    return "\n".join(parts)


def summary(table: pd.DataFrame) -> str:
    """The counts of the statuses that occur, with their meaning, as Markdown."""
    found = statuses(table)
    rows = [(name, str(count), STATUSES[name]) for name, count in found[found > 0].items()]
    cells = pd.DataFrame(rows, columns=["status", "rows", "meaning"])
    return tables.markdown(cells, ("status", "meaning"))


def save(table: pd.DataFrame, folder: Path | str) -> Path:
    """Write folder/results/paper/claims.csv; returns it."""
    path = Path(folder) / "results" / "paper" / "claims.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(table.to_csv(index=False, lineterminator="\n"), "utf-8")
    return part.replace(path)


def compare(new: Path, committed: Path) -> str:
    """A sentence on the ledger in the folder `new` against the one in `committed`; "" if none."""
    paths = [Path(folder) / "results" / "paper" / "claims.csv" for folder in (new, committed)]
    if not all(path.exists() for path in paths):
        return ""
    ours, theirs = (
        {line["id"]: line for line in pd.read_csv(path, dtype=str).fillna("").to_dict("records")}
        for path in paths
    )
    changed = [id for id in {**theirs, **ours} if ours.get(id) != theirs.get(id)]
    return f"claims.csv: {len(ours)} rows, not as committed: {', '.join(changed) or 'none'}"


def refresh(root: Path) -> None:
    """Bring claims.csv and the counts in README.md in line with the result tables of `root`."""
    paper = root / "results" / "paper"
    if not paper.is_dir():
        return
    table = ledger(paper=paper, **{name: results.read(name, root / "results") for name in TABLES})
    save(table, root)
    readme.refresh(root, claims=summary(table))


def _concept(at: Sources) -> Rows:
    """The principle, on the numbers that notebook 01 draws."""
    net = nn.Conv3d(1, 1, (3, 1, 1), bias=False).requires_grad_(False)
    net.weight.copy_(torch.tensor([1.0, 2.0, 3.0]).view(1, 1, 3, 1, 1))
    frames = torch.arange(1.0, 7.0).view(1, 1, 6, 1, 1)
    stepped, _ = continual(net).steps(frames)
    regular, stepped = net(frames).flatten().tolist(), stepped.flatten().tolist()
    yield entry(
        "concept",
        "concept figures",
        "a convolution gives frame by frame what it gives for the clip: shown for one, kernel "
        "1 2 3 over frames 1 to 6",
        published="the same outputs",
        shown=" ".join(f"{value:.0f}" for value in stepped),
        status=verdict([f"{value:.0f}" for value in regular], stepped),
        note="the delayed shortcut and the shift of the padding are drawn there, too",
        notebook="01_continual_convolution",
    )


def _constants(at: Sources) -> Rows:
    nets, where = ", ".join(map(label, CO_X3D)), "stream constants in the text"
    for column, name, printed in (
        ("receptive_field", "receptive field in frames", "69, 72, 130"),
        ("padding", "aggregated padding in frames", "28, 28, 57"),
        ("warmup", "frames before the first output", "40, 43, 72"),
    ):
        ours = [at.own(column, model) for model in CO_X3D]
        yield entry(f"text-{column}", where, f"{name}: {nets}", printed, ours)
    ours = [over(at.own("window_sum", model), SPECS[model].window) for model in CO_X3D]
    claim = f"additions per frame of the window: {nets}"
    yield entry("text-window_sum", where, claim, "432, 432, 432", ours)


def _figure(at: Sources) -> Rows:
    where, source = "accuracy-vs-FLOPs figure", "kinetics400_published"
    agree: dict[str, str] = {}
    for row in at.printed(source).itertuples():
        if row.model in SPECS:
            own = [_scaled(at.flops(row.model, row.window or row.frames), 9)]
            agree[_prediction(row)] = verdict([row.gflops_per_prediction], own)
    claim, note = "points whose GFLOPs agree as printed", "RCU is not built here"
    yield tally("figure-flops", where, claim, agree, note=note, source=source)
    yield _top1(at, "figure-top1", where, "top-1 of the points")
    note, source = "drawn as published, not built here", "kinetics400_context_published"
    claim = "the transformers ViViT and VTN as context"
    yield entry("figure-context", where, claim, status="not available", note=note, source=source)


def _table(at: Sources) -> Rows:
    source = "kinetics400_published"
    table = at.printed(source)
    for row in table.drop_duplicates("model").itertuples():
        where, claim = "benchmark table, parameters", f"million parameters of {label(row.model)}"
        found = _params(at, row) if row.model in SPECS else _NOT_BUILT
        id, printed = f"params-{row.model}", row.params_millions
        yield entry(id, where, claim, printed, **found, source=source)
    for row in table.itertuples():
        where = "benchmark table, FLOPs of a clip or of the step that predicts"
        claim = f"GFLOPs of {_prediction(row)}"
        found = _gflops(at, row) if row.model in SPECS else _NOT_BUILT
        id, printed = f"gflops-{row.model}-{row.window or row.frames}", row.gflops_per_prediction
        yield entry(id, where, claim, printed, **found, source=source)
    where = "benchmark table, measured columns"
    yield _top1(at, "table-top1", where, "top-1 on Kinetics-400")
    yield from hardware.columns(at, where)


def _top1(at: Sources, id: str, where: str, claim: str) -> dict[str, str]:
    """All published accuracies beside those that results/accuracy.csv has."""
    source, agree = "kinetics400_published", {}
    printed = at.printed(source)
    for row in printed.itertuples():
        number = row.window or row.frames
        own = at.top1(row.model, number) if row.model in SPECS else None
        if own is not None:
            agree[_prediction(row)] = verdict([row.top1_percent], [own])
    found = {"notebook": "05_kinetics400", "source": source}
    if agree:
        return tally(id, where, f"{claim}, {len(agree)} of them measured", agree, **found)
    others = (f"{READ} --window 64", f"{READ} --frames 8 --models r2plus1d_18")
    command = " && ".join((READ, *others))
    return needs_data(id, where, claim, _summary(printed), command=command, **found)


def _summary(printed: pd.DataFrame) -> str:
    """How many values of top-1 are published, and between which they lie."""
    return f"{len(printed)} values, {between(printed['top1_percent'])} %"


_NOT_BUILT = {"status": "not available", "note": "this network is not built here"}


def _params(at: Sources, row) -> dict:
    own = at.own("params", row.model, row.window or row.frames)
    slip = own and row.params_millions == row.gflops_per_prediction
    note = f"printed is a copy of its GFLOPs; the network has {own:,}" if slip else ""
    return {"ours": [_scaled(own, 6)], "note": note}


def _gflops(at: Sources, row) -> dict:
    number, note = row.window or row.frames, ""
    if once := row.window and at.flops(row.model, number, once=True):
        note = f"every operation counted once: {once / 1e9:.3f}"
    return {"ours": [_scaled(at.flops(row.model, number), 9)], "note": note}


def _scaled(value: Value, digits: int) -> Value:
    return None if value is None else Decimal(int(value)).scaleb(-digits)


def _prediction(row) -> str:
    """What a row of a published table spends on one prediction, in words."""
    span = f"a step at window {row.window}" if row.window else f"a clip of {row.frames} frames"
    return f"{label(row.model)}, {span}"


def _bold(at: Sources) -> Rows:
    """The rows that the authors set in bold, against those that no other row beats."""
    source, claim = "kinetics400_published", "rows that no other beats in published accuracy at no"
    counted = tables.with_counts(at.numbers(source), at.models)
    printed = _names(counted[counted["pareto_bold"] == 1])
    for id, cost, words in (
        ("gflops", "gflops_per_prediction", "more published GFLOPs"),
        ("macs", "macs_per_predicting_step", "more multiply-accumulates counted here"),
    ):
        rows = counted[counted[cost].notna()]
        front = _names(rows[tables.pareto_front(rows, cost, "top1_percent")])
        status = "exact" if front == printed else "measured and differs"
        other = sorted(set(front.split(", ")) ^ set(printed.split(", ")))
        note = "recomputed from the published accuracies"
        note += "" if front == printed else f"; only one of the two has {', '.join(other)}"
        status, note = (status, note) if len(rows) else ("not yet", "")
        found = {"shown": front, "status": status, "note": note}
        where, notebook = "benchmark table, bold", "08_figures_and_tables"
        yield entry(f"bold-{id}", where, f"{claim} {words}", printed, **found, source=source,
                    notebook=notebook)  # fmt: skip


def _names(rows: pd.DataFrame) -> str:
    return ", ".join(f"{label(row.model)} at {row.window:.0f}" for row in rows.itertuples())


def _exact(at: Sources) -> Rows:
    where, source = "exact counts behind the benchmark table", "flops_exact"
    agree: dict[str, dict] = {"flops_counted_once": {}, "macs_conv_fc": {}, "params": {}}
    for row in at.printed(source).itertuples():
        number = row.window or row.frames
        claim = f"FLOPs of {_prediction(row)}, in the published counting"
        id, printed = f"flops-{row.model}-{number}", row.flops_published_convention
        yield entry(id, where, claim, printed, [at.flops(row.model, number)], source=source)
        ours = (
            at.flops(row.model, number, once=True),
            at.macs(row.model, number),
            at.own("params", row.model, number),
        )
        for column, own in zip(agree, ours, strict=True):
            if printed := getattr(row, column):
                agree[column][_prediction(row)] = verdict([printed], [own])
    for column, claim in (
        ("flops_counted_once", "FLOPs with every operation counted once that agree"),
        ("macs_conv_fc", "multiply-accumulates of convolutions and linear layers that agree"),
        ("params", "parameter counts that agree"),
    ):
        yield tally(f"exact-{column}", where, claim, agree[column], source=source)


def _sweep(at: Sources) -> Rows:
    """Other windows follow from our native one: the published counts add the sum beyond it."""
    where, source = "pool sweep", "pool_sweep_published"
    flops, fields = {}, {}
    for row in at.numbers(source).itertuples():
        native, name = SPECS[row.model].window, f"{label(row.model)} at {row.window}"
        more = row.window - native if native else 0
        count, field = at.flops(row.model), at.own("receptive_field", row.model)
        addition = over(at.own("window_sum", row.model), native) if native else 0
        own = None if count is None or addition is None else count + more * addition
        flops[name] = verdict([str(row.flops_per_prediction)], [own])
        if native:
            own = None if field is None else field + more
            fields[name] = verdict([str(row.receptive_field)], [own])
    note = "windows other than the native one follow from it: {} more per frame"
    claim = "FLOPs per prediction that agree, the sum over the native window left out"
    more = {"note": note.format("432 additions"), "source": source}
    yield tally("sweep-flops", where, claim, flops, **more)
    claim, more["note"] = "receptive fields of streams that agree", note.format("1")
    yield tally("sweep-fields", where, claim, fields, **more)
    claim = "top-1 against the window, 15 frames per second"
    printed = at.printed(source)
    wider = {int(row.window) for row in printed.itertuples() if row.mode == "stream"
             and int(row.window) != SPECS[row.model].window}  # fmt: skip
    found = {"source": source, "notebook": START_UP["notebook"]}
    windows = " ".join(["native", *map(str, sorted(wider))])
    found["command"] = f"{START_UP['command']} -p windows '{windows}'"
    yield needs_data("sweep-top1", where, claim, _summary(printed), **found)


def _others(at: Sources) -> Rows:
    where, source = "transient figure", "transient_published"
    claim = "top-1 against the frames seen since a reset, state of zeros and replicated"
    curves = at.numbers(source)
    found = {"source": source, "notebook": START_UP["notebook"]}
    found["command"] = f"{START_UP['command']} -p frames {curves['frames_seen'].max()}"
    yield needs_data("transient-curve", where, claim, _summary(at.printed(source)), **found)
    zeros = curves[curves["fill"] == "zeros"].groupby("model")
    peaks = curves.loc[zeros["top1_percent"].idxmax()]
    last = zeros["top1_percent"].last()
    overshoots = ", ".join(
        f"{label(row.model)} {row.top1_percent:.1f} % at frame {row.frames_seen}, "
        f"{last[row.model]:.1f} % at the end"
        for row in peaks.itertuples()
    )
    claim = "chance until the padding has passed, an overshoot with zeros, then both fills coincide"
    yield needs_data("transient-shape", where, claim, f"with zeros {overshoots}", **found)
    where, source = "earlier release of the authors", "x3d_multiview_published"
    claim = "top-1 of X3D when 1, 10 or 30 clips are averaged"
    printed = at.printed(source)
    read = "co3d evaluate kinetics400 --protocol native --models "
    read += ",".join(dict.fromkeys(printed["model"]))
    command = " && ".join((f"{read} --views 1 --crops 1", f"{read} --crops 1", read))
    found = {"command": command, "source": source}
    yield needs_data("multiview-top1", where, claim, _summary(printed), **found)
    source = "charades_published"
    for row in at.printed(source).itertuples():
        id = f"charades-{row.model}-{row.window or row.frames}"
        where, claim = "Charades table", f"mean average precision of {_prediction(row)}"
        if row.map_percent:
            found = {"notebook": ON_CHARADES["notebook"], "command": ON_CHARADES["command"]}
            yield needs_data(id, where, claim, row.map_percent, source=source, **found)
        else:
            found = {
                "status": "not available",
                "note": "the published number could not be obtained",
            }
            yield entry(id, where, claim, source=source, **found)

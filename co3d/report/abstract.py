"""The rows of the ledger on the claims of the paper's abstract."""

import re
from collections.abc import Iterator

from ..measure.equivalence import NATIVE, STREAM
from ..zoo.specs import SPECS
from . import hardware, tables
from .entries import Rows, Sources, Value, between, entry, over, verdict
from .style import label

CO_X3D = ("cox3d_s", "cox3d_m", "cox3d_l")
READ = "co3d evaluate kinetics400 --protocol paper"  # clip nets, and streams at native windows
ON_KINETICS = {"status": "needs data", "notebook": "05_kinetics400", "command": READ}
ON_CHARADES = {
    "status": "needs data",
    "notebook": "06_charades",
    "command": "co3d evaluate charades",
}
START_UP = {
    "status": "needs data",
    "notebook": "07_start_up_and_context",
    "command": "co3d reproduce --profile full --only 07",
}
CO_NETS = (*CO_X3D, "coslow_8x8_r50", "coi3d_8x8_r50")


def abstract(at: Sources) -> Rows:
    """A row or more for each claim, in its order."""
    texts = at.numbers("claims_abstract").set_index("id")["claim"]

    def row(id: str, detail: str = "", **more: object) -> dict[str, str]:
        claim = texts[id[:2]] + (f": {detail}" if detail else "")
        return entry(id, "abstract", claim, **{"source": "claims_abstract", **more})

    yield row("A1", **_same_weights(at))
    detail = "multiply-accumulates of a clip over those of the step that predicts, "
    detail += ", ".join(map(label, CO_NETS))
    yield row("A2-flops", detail, **_proportion(at))
    memory = 1 - tables.pairs(at.numbers("kinetics400_published"))["memory saved (%)"] / 100
    span = f"{memory.min():.2f}-{memory.max():.2f}"
    yield row("A2-memory", "memory", **hardware.share_of_memory(at, span))
    both = {**ON_KINETICS, "command": f"{READ} && {READ} --window 64"}
    yield row("A2-accuracy", "accuracy", published=_points(at), **both)
    span = {id: re.search(r"[\d.]+-[\d.]+", texts[id])[0] for id in ("A3", "A4")}
    for id, detail, found in _ratios(at):
        yield row(id, detail, published=span["A3"], **found)
    table = tables.pairs(at.numbers("kinetics400_published"))
    points = table[table["model"].isin(CO_X3D) & (table["window"] == 64)]["points"]
    note = f"the published table gives {points.min():.1f}-{points.max():.1f}; not measured here"
    pairs = ",".join(name for model in CO_X3D for name in (model[2:], model))
    wide = {**ON_KINETICS, "command": f"{READ} --window 64 --models {pairs}"}
    yield row("A4", published=span["A4"], note=note, **wide)
    saved = table["memory saved (%)"]
    best, worst = (label(table["model"][n]) for n in (saved.idxmax(), saved.idxmin()))
    note = "recomputed from the published memory column, not measured here: "
    note += f"{best} saves most, {worst} needs {-saved.min():.0f} % more"
    printed = re.search(r"\d+", texts["A5"])[0]
    yield row(
        "A5", published=printed, ours=[saved.max()], note=note, notebook="08_figures_and_tables"
    )
    for id, detail, source, column, found in (
        ("A6-kinetics", "Kinetics-400", "kinetics400_published", "top1_percent", ON_KINETICS),
        ("A6-charades", "Charades", "charades_published", "map_percent", ON_CHARADES),
    ):
        rows = at.printed(source)
        numbers = between(rows[column])
        printed = f"{rows['model'].nunique()} networks, "
        printed += f"{numbers} %" if numbers else "their numbers could not be obtained"
        yield row(id, detail, published=printed, **found)
    curves = at.printed("transient_published").drop_duplicates(["model", "fill"])["model"]
    printed = f"{len(curves)} curves of {', '.join(map(label, dict.fromkeys(curves)))}"
    yield row("A7", published=printed, **START_UP)
    yield row("A8", **hardware.benchmarked(at))


def _points(at: Sources) -> str:
    """What streams gain over their clip nets in published top-1, at both windows."""
    table = tables.pairs(at.numbers("kinetics400_published"))
    native = table["window"] == table["model"].map(lambda model: SPECS[model].window)
    parts = [("at the native window", table[native]), ("at 64", table[~native])]
    spans = [f"{rows['points'].min():+.1f} to {rows['points'].max():+.1f} points {where}"
             for where, rows in parts]  # fmt: skip
    return ", ".join(spans)


def _same_weights(at: Sources) -> dict:
    """Whether streams give the outputs of their clip nets, with one set of weights; for `entry`."""
    rows = at.equivalence
    wanted = rows["model"].isin(CO_NETS) & rows["claim"].isin((STREAM, NATIVE))
    rows = rows[wanted & (rows["dtype"] == "float64")]
    if len(rows) < 2 * len(CO_NETS):
        return {"note": "results/equivalence.csv has no rows for it yet"}
    right = (rows["max_rel_diff"] <= rows["tolerance"]).groupby(rows["model"]).all()
    note = f"same outputs up to {rows['max_rel_diff'].max():.0e} of the largest logit, with random "
    note += "weights; the clip nets have gates over single frames, other than published X3D"
    return {
        "published": f"{len(CO_NETS)} networks",
        "shown": f"{right.sum()} agree",
        "status": "within rounding" if right.all() else "measured and differs",
        "note": note,
        "notebook": "02_equivalence",
    }


def _proportion(at: Sources) -> dict:
    clips = [at.macs(model.removeprefix("co")) for model in CO_NETS]
    ratios = [*map(over, clips, map(at.macs, CO_NETS))]
    frames = [str(SPECS[model].frames) for model in CO_NETS]
    mean = over(clips[-1], at.own("macs_frame", CO_NETS[-1]))
    note = f"the clips have {', '.join(frames)} frames. Only CoI3D is off, which predicts with "
    note += f"every second frame; the mean of its steps is {mean or 0:.1f} times less"
    return {
        "source": "",
        "published": "in proportion (no number)",
        "ours": ratios,
        "shown": ", ".join(f"{ratio:.1f}" for ratio in ratios if ratio),
        "status": verdict(frames, ratios),
        "note": note,
    }


def _ratios(at: Sources) -> Iterator[tuple[str, str, dict]]:
    """FLOPs of X3D over those of CoX3D in three countings; each with its reason to differ."""
    both = [(model.removeprefix("co"), model) for model in CO_X3D]
    paper = [[at.flops(model) for model in pair] for pair in both]
    rounded = [[n and round(n / 1e9, 2) for n in pair] for pair in paper]
    once = [[at.flops(model, once=True) for model in pair] for pair in both]
    macs = _span([over(*map(at.macs, pair)) for pair in both])
    alone = f"multiply-accumulates alone: {macs[0]:.2f}-{macs[1]:.2f}" if None not in macs else ""
    for id, detail, found, reason in (
        ("A3-rounded", "from GFLOPs with two decimals, as printed", rounded, ""),
        ("A3-unrounded", "from the same counts unrounded", paper,
         "; two decimals are coarse for a step"),
        ("A3-once", "from counts of every operation once", once,
         "; the published steps hold BatchNorm and ReLU twice and too small a classifier; "
         + alone),
    ):  # fmt: skip
        ratios = [over(*pair) for pair in found]
        named = (f"{label(m)} {r or 0:.2f}" for m, r in zip(CO_X3D, ratios, strict=True))
        yield id, detail, {"ours": _span(ratios), "note": ", ".join(named) + reason}


def _span(values: list[Value]) -> list[Value]:
    return [None, None] if None in values else [min(values), max(values)]

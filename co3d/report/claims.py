"""The ledger: every claim, figure and table of the paper beside what is computed here.

results/paper/claims.toml says what is compared; a status follows from the two values.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from torch import nn

from ..files import write
from ..measure.equivalence import NATIVE, STREAM
from ..nn import continual
from ..paths import repo_root
from ..zoo.specs import SPECS
from . import readme, results, tables
from .style import label

STATUSES = {
    "exact": "the published number, to the last digit",
    "within rounding": "rounded to the printed digits, ours is what is printed",
    "agrees with our derivation": "not printed by the authors: ours equals a number that we "
    "derived from what they published",
    "measured and differs": "ours is another value; the note says why",
    "other device": "measured, but on a device that the paper does not have, so not compared",
    "needs data": "the command is there, the data set or the published weights are not",
    "not available": "what was published, or what it needs, could not be obtained",
    "not yet": "the result tables lack a row for it; none in the committed ledger",
}
TABLES = ("models", "accuracy", "benchmark", "equivalence", "transient")  # that the ledger reads
COLUMNS = ["id", "where", "claim", "published", "ours", "status", "note", "notebook", "command"]
COLUMNS += ["source"]  # the file in results/paper that holds the published value
NUMBER = re.compile(r"\d+(?:\.\d+)?")
DIFFERS = "measured and differs"


def ledger(paper: Path | None = None, **ours: pd.DataFrame) -> pd.DataFrame:
    """All rows of the ledger, as text.

    Args:
        paper: folder of the published tables and claims.toml (default: results/paper).
        ours: the result tables of TABLES; what one lacks is "not yet" or "needs data".
    """
    paper = paper or repo_root() / "results" / "paper"
    document = tomllib.loads((paper / "claims.toml").read_text("utf-8"))
    ours = {name: results.read(name, paper) for name in TABLES} | ours  # empty ones, if not given
    frames = _frames(paper, ours, document["join"])
    abstract = frames["claims_abstract"].set_index("id")["claim"].to_dict()
    lines = []
    for entry in document["claim"]:
        claim = SimpleNamespace(**document["default"] | entry)
        rows = frames[claim.table]
        rows = rows.query(claim.rows) if claim.rows else rows
        if claim.models:
            rows = rows.set_index("model", drop=False)
            rows = rows.loc[[name for name in claim.models if name in rows.index]]
        rows = rows.reset_index(drop=True)
        for part in [rows[n : n + 1] for n in rows.index] if claim.each else [rows]:
            words = part.iloc[0].to_dict() if claim.each else {}
            id, text = (form.format(**abstract, **words) for form in (claim.id, claim.claim))
            line = {"id": id, "where": claim.where, "claim": text}
            lines.append(line | _compared(claim, part.reset_index(drop=True)))
    return pd.DataFrame(lines, columns=COLUMNS).drop_duplicates("id", ignore_index=True)


def _compared(claim: SimpleNamespace, rows: pd.DataFrame) -> dict[str, str]:
    """The other columns of a line: both values, their status, and what belongs to them."""
    printed, also = _values(rows, claim.printed), _values(rows, claim.also)
    texts, all_ours = printed.map(f"{{:{claim.format}}}".format), _values(rows, claim.ours, False)
    ours = all_ours.dropna()
    ends = sorted(texts, key=float) or [""]
    devices = sorted(set(rows.get("our_device", [])) - {np.nan})
    named = rows["label"] + rows["number"].map(" at {:.0f}".format)
    facts = {
        "printed": ", ".join(texts),
        "n": len(texts),
        "low": ends[0],
        "high": ends[-1],
        "models": rows["model"].nunique(),
        "marked": ", ".join(named[printed.index[printed == 1]]),
        "our_marked": ", ".join(named[ours.index[ours == 1]]),
        "least": ours.min(),
        "most": ours.max(),
        "ours": ", ".join(f"{value:{claim.show}}" for value in ours),
        "each": ", ".join(f"{rows['label'][n]} {value:.2f}" for n, value in ours.items()),
        "also": ", ".join(f"{value:{claim.also_format}}" for value in also),
        "device": ", ".join(devices),
    }
    theirs = claim.published.format(**facts)
    status, shown, note = _missing(claim, rows, theirs, all_ours), "", claim.note
    if claim.note_if and rows.query(claim.note_if).empty:
        note = ""
    if status == "not yet":
        note = "the result tables have no row for it yet"
    if not status:
        numbers = {"span": [ours.min(), ours.max()], "max": [ours.max()]}.get(claim.reduce, ours)
        by_row = len(texts) and len(numbers) == len(ours)
        wanted = texts[ours.index] if by_row else NUMBER.findall(theirs)
        limits = rows[claim.tolerance][ours.index] if claim.tolerance else [None] * len(numbers)
        triples = zip(wanted, numbers, limits, strict=True)
        verdicts = [verdict(*triple, derived=claim.derived) for triple in triples]
        status = max(verdicts, key=list(STATUSES).index)
        if claim.devices and not set(devices) & set(claim.devices):
            status = "other device"
        elif claim.reduce == "tally" and status == DIFFERS:
            others = [n for n, each in zip(ours.index, verdicts, strict=True) if each == DIFFERS]
            note = f"not {', '.join(rows['prediction'][others].unique())}"
        facts["agree"] = str(len(verdicts) - verdicts.count(DIFFERS))
        facts["agree"] += f" of {len(ours)}" if len(ours) < len(rows) else ""
        values = iter(numbers)
        shown = claim.shown.format(**facts)
        shown = shown or NUMBER.sub(lambda match: _finer(match[0], next(values)), theirs)
    command = claim.command or f"co3d reproduce --only {claim.notebook[:2]}"
    closed = status in ("not yet", "not available")
    return {
        "published": theirs,
        "ours": shown,
        "status": status,
        "note": note.format(**facts),
        "notebook": "" if closed else claim.notebook,
        "command": "" if closed else command,
        "source": claim.source.format(table=claim.table),
    }


def _values(rows: pd.DataFrame, expression: str, known: bool = True) -> pd.Series:
    """The (known) numbers that an expression over the columns gives; none without one."""
    values = rows.eval(expression).astype(float) if expression else pd.Series(dtype=float)
    return values.dropna() if known else values


def _missing(claim: SimpleNamespace, rows: pd.DataFrame, theirs: str, ours: pd.Series) -> str:
    """The status of a line that lacks a value, "" if both are there."""
    if not claim.ours:
        return "needs data" if claim.command and theirs else "not available"
    partly = claim.command and claim.reduce == "tally"  # some of the values may be measured
    there = ours.notna().any() if partly else len(ours) and ours.notna().all()
    if there and set(claim.models) <= set(rows["model"]):
        return ""
    return "needs data" if claim.command else "not yet"


def verdict(
    printed: str, ours: float, tolerance: float | None = None, derived: bool = False
) -> str:
    """The status of our number beside a printed, or a `derived`, one."""
    theirs, own = Decimal(printed), Decimal(ours)
    same = own.quantize(theirs, ROUND_HALF_UP) == theirs
    if tolerance is not None:
        same = abs(theirs - own) <= tolerance
    if not same:
        return DIFFERS
    if derived:
        return "agrees with our derivation"
    return "exact" if theirs == own else "within rounding"


def _finer(printed: str, ours: float) -> str:
    """Our number one digit finer than the printed one, two after a 5; a whole one as it is."""
    value, digit = Decimal(ours), Decimal(printed).as_tuple().exponent - 1
    if value % 1 == 0:
        return f"{value:f}"
    text = str(value.quantize(Decimal(1).scaleb(digit), ROUND_HALF_UP))
    return text if text[-1] != "5" else str(value.quantize(Decimal(1).scaleb(digit - 1)))


def _frames(
    paper: Path, ours: Mapping[str, pd.DataFrame], joins: Sequence[Mapping]
) -> dict[str, pd.DataFrame]:
    """What claims.toml is about, by name: the published tables with our columns, and three more."""
    frames = {path.stem: pd.read_csv(path) for path in paper.glob("*_published.csv")}
    frames["flops_exact"] = pd.read_csv(paper / "flops_exact.csv")
    models, benchmark = ours["models"], ours["benchmark"]
    for name, table in frames.items():
        table = _described(table)
        if name in ("kinetics400_published", "flops_exact"):
            table = tables.with_counts(table, models)
        if name == "pool_sweep_published":  # its windows follow from the native one
            table = tables.with_counts(table.assign(number=table["native"]), models)
            additions = (table["our_window_sum"] / table["native"]).fillna(0)
            table = table.assign(number=table["window"], our_additions=additions)
        frames[name] = table
    accuracy = tables.numbered(ours["accuracy"])
    accuracy["clips"] = accuracy["views"] * accuracy["crops"]
    memory = benchmark["peak_mem_mb"].fillna(benchmark["alloc_mb"])
    ours = {**ours, "accuracy": accuracy, "benchmark": benchmark.assign(memory_mb=memory)}
    for join in joins:
        table, on = frames[join["to"]], join["on"]
        rows = ours[join["table"]].query(join["rows"]).drop_duplicates(on).set_index(on)
        rows = rows[join["take"]].add_prefix("our_").reset_index()
        rows = rows.astype(table[on].dtypes.to_dict())
        frames[join["to"]] = table.merge(rows, on=on, how="left")
    kinetics = frames["kinetics400_published"]
    costs = {"gflops": "gflops_per_prediction", "macs": "macs_per_predicting_step"}
    for name, cost in costs.items():
        front = tables.pareto_front(kinetics, cost, "top1_percent").astype(float)
        kinetics[f"our_front_{name}"] = front.where(kinetics[cost].notna())
    same = ours["equivalence"]
    same = same[same["claim"].isin([STREAM, NATIVE]) & (same["dtype"] == "float64")]
    same = same.groupby("model")[["max_rel_diff", "tolerance"]].max().reset_index()
    names = same["model"].map(label)
    same = same.assign(label=names, prediction=names, number=0.0)
    abstract = pd.read_csv(paper / "claims_abstract.csv")
    pairs = tables.pairs(kinetics)
    return frames | {
        "claims_abstract": abstract,
        "pairs": pairs,
        "equivalence": same,
        "concept": _concept(),
    }


def _described(table: pd.DataFrame) -> pd.DataFrame:
    """The rows with label, whether the model is built here, its number, and that in words.

    A number is the window of a stream or the frames of a clip; `native` is that of the spec.
    """
    specs = table["model"].map(SPECS.get)
    native = [spec and (spec.window or spec.frames) for spec in specs]
    table = table.assign(label=table["model"].map(label), built=specs.notna(), native=native)
    if "mode" not in table:
        table["mode"] = ["stream" if spec.continual else "clip" for spec in specs]
    numbers = table.reindex(columns=["window", "frames", "native"]).astype(float)
    table["number"] = numbers.bfill(axis=1)["window"]
    words = {"stream": ", a step at window {:.0f}", "clip": ", a clip of {:.0f} frames"}
    phrases = map(str.format, table["mode"].map(words), table["number"])
    return table.assign(prediction=table["label"] + list(phrases))


def _concept() -> pd.DataFrame:
    """One convolution over a clip and as a stream, on the numbers that notebook 01 draws."""
    net = nn.Conv3d(1, 1, (3, 1, 1), bias=False).requires_grad_(False)
    net.weight.copy_(torch.tensor([1.0, 2.0, 3.0]).view(1, 1, 3, 1, 1))
    frames = torch.arange(1.0, 7.0).view(1, 1, 6, 1, 1)
    stream, _ = continual(net).steps(frames)
    table = pd.DataFrame({"clip": net(frames).flatten(), "stream": stream.flatten()})
    return table.assign(model="", label="", number=0.0, prediction="")


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
    counts = table["status"].value_counts()
    rows = [(name, str(counts[name]), STATUSES[name]) for name in STATUSES if name in counts]
    cells = pd.DataFrame(rows, columns=["status", "rows", "meaning"])
    return tables.markdown(cells, ("status", "meaning"))


def save(table: pd.DataFrame, folder: Path | str) -> Path:
    """Write folder/results/paper/claims.csv; returns it."""
    path = Path(folder) / "results" / "paper" / "claims.csv"
    return write(path, table.to_csv(index=False, lineterminator="\n"))


def compare(new: Path, committed: Path) -> str:
    """A sentence on the ledger in the folder `new` against the one in `committed`; "" if none."""
    paths = [Path(folder) / "results" / "paper" / "claims.csv" for folder in (new, committed)]
    if not all(path.exists() for path in paths):
        return ""
    ours, theirs = (pd.read_csv(path, dtype=str, keep_default_na=False) for path in paths)
    rows = pd.concat([ours, theirs]).drop_duplicates(keep=False)
    changed = ", ".join(rows["id"].unique()) or "none"
    return f"claims.csv: {len(ours)} rows, not as committed: {changed}"


def refresh(root: Path) -> None:
    """Bring claims.csv and the counts in README.md in line with the result tables of `root`."""
    paper = root / "results" / "paper"
    if paper.is_dir():
        ours = {name: results.read(name, root / "results") for name in TABLES}
        table = ledger(paper=paper, **ours)
        save(table, root)
        readme.refresh(root, claims=summary(table))

"""One row of the ledger of claims: what is published, what is ours, and the status between them."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import pandas as pd

from ..zoo.specs import SPECS
from . import tables
from .schema import TABLES

STATUSES = {
    "exact": "the same to the last digit",
    "within rounding": "rounded to the printed digits, ours is what is printed",
    "measured and differs": "ours is another value; the note says why",
    "needs data": "the command is there, the data set or the published weights are not",
    "not available": "what was published, or what it needs, could not be obtained",
    "not yet": "the result tables lack a row for it; none in the committed ledger",
}
COLUMNS = ("id", "where", "claim", "published", "ours", "status", "note", "notebook", "command")
COLUMNS += ("source",)  # the file in results/paper that holds the published value
NUMBER = re.compile(r"\d+(?:\.\d+)?")
Value = int | float | Decimal | None
Rows = Iterator[dict[str, str]]
ACCURACY = ("dataset", "protocol", "limit", "model", "mode", "window", "frames", "top1")
_NO_ROW = "results/models.csv has no row for it yet"


class Sources:
    """What the ledger is made from: the published tables, and our rows of the result tables."""

    def __init__(
        self,
        models: pd.DataFrame,
        paper: Path,
        accuracy: pd.DataFrame | None = None,
        benchmark: pd.DataFrame | None = None,
        equivalence: pd.DataFrame | None = None,
    ) -> None:
        self.models, self.paper = models, paper
        self.benchmark = _or_empty(benchmark, "benchmark")
        self.equivalence = _or_empty(equivalence, "equivalence")
        self.accuracy = pd.DataFrame(columns=ACCURACY) if accuracy is None else accuracy

    def printed(self, stem: str) -> pd.DataFrame:
        """A published table, every cell as it is printed."""
        return pd.read_csv(self.paper / f"{stem}.csv", dtype=str, keep_default_na=False)

    def numbers(self, stem: str) -> pd.DataFrame:
        """The same, as numbers."""
        return pd.read_csv(self.paper / f"{stem}.csv")

    def own(self, column: str, model: str, number: str | int = "") -> Value:
        """Our value, None where there is none yet; `number` as in `tables.own_row`."""
        row = tables.own_row(self.models, model, int(number) if number else None)
        return None if row is None or pd.isna(row[column]) else row[column]

    def macs(self, model: str, number: str | int = "") -> Value:
        """Multiply-accumulates of a clip, or of the step of a stream that predicts."""
        return self.own("macs_step" if SPECS[model].continual else "macs_clip", model, number)

    def top1(self, model: str, number: str | int) -> Value:
        """Measured on all of Kinetics-400 under protocol paper; None where there is no such row."""
        rows = self.accuracy
        span = rows["window"] if SPECS[model].continual else rows["frames"]
        wanted = (rows["dataset"] == "kinetics400") & (rows["protocol"] == "paper")
        wanted &= (rows["limit"] == 0) & (rows["model"] == model) & (span == int(number))
        found = rows.loc[wanted, "top1"].dropna()
        return float(found.iloc[0]) if len(found) else None

    def flops(self, model: str, number: str | int = "", once: bool = False) -> Value:
        """The same in the paper's counting, or with every operation counted `once`."""
        step = "flops_once_step" if once else "flops_paper_step"
        return self.own(step if SPECS[model].continual else "flops_paper_clip", model, number)


def _or_empty(rows: pd.DataFrame | None, name: str) -> pd.DataFrame:
    return pd.DataFrame(columns=TABLES[name].columns) if rows is None else rows


def entry(
    id: str,
    where: str,
    claim: str,
    published: str = "",
    ours: Sequence[Value] = (),
    *,
    status: str = "",
    shown: str = "",
    note: str = "",
    notebook: str = "03_complexity",
    command: str = "",
    source: str = "",
) -> dict[str, str]:
    """A row of the ledger, COLUMNS of text.

    Args:
        ours: one value for each number in `published`; they make the status, and are `shown`, if
            these are not given. Without any, and where one is None, the row is "not yet".
        notebook: which computes ours, or can.
        command: that does; default: the one that runs the notebook.
        source: stem of the file in results/paper.
    """
    missing = None in ours
    status = status or (verdict(NUMBER.findall(published), ours) if ours else "not yet")
    done = status not in ("not yet", "not available", "needs data")
    known = done or status == "needs data"
    return {
        "id": id,
        "where": where,
        "claim": claim,
        "published": published,
        "ours": (shown or _shown(published, ours)) if done else "",
        "status": status,
        "note": _NO_ROW if missing else note,
        "notebook": notebook if known else "",
        "command": (command or f"co3d reproduce --only {notebook[:2]}") if known else "",
        "source": source and f"{source}.csv",
    }


def needs_data(
    id: str, where: str, claim: str, published: str = "", *, command: str, **more: str
) -> dict[str, str]:
    """A row whose command is there, but not the data set or the published weights."""
    more = {"notebook": "05_kinetics400", **more}
    return entry(id, where, claim, published, status="needs data", command=command, **more)


def tally(
    id: str,
    where: str,
    claim: str,
    agree: Mapping[str, str],
    *,
    note: str = "",
    **more: str,
) -> dict[str, str]:
    """A row for many values at once, with the worst of their statuses: how many agree.

    Args:
        agree: the status of each value, by what it is of; the note names those that differ.
    """
    worst = max((list(STATUSES).index(status) for status in agree.values()), default=0)
    status = list(STATUSES)[worst]
    right = [name for name, status in agree.items() if status in ("exact", "within rounding")]
    others = ", ".join(name for name in agree if name not in right)
    note = f"not {others}" if others else note
    note = _NO_ROW if status == "not yet" else note
    printed, shown = f"{len(agree)} values", f"{len(right)} agree"
    return entry(id, where, claim, printed, status=status, shown=shown, note=note, **more)


def verdict(printed: Sequence[str], ours: Sequence[Value]) -> str:
    """The status of our values beside printed ones; "not yet" if one of ours is missing."""
    if None in ours:
        return "not yet"
    pairs = [(Decimal(text), exactly(value)) for text, value in zip(printed, ours, strict=True)]
    if all(theirs == own for theirs, own in pairs):
        return "exact"
    if all(theirs == own.quantize(theirs, ROUND_HALF_UP) for theirs, own in pairs):
        return "within rounding"
    return "measured and differs"


def exactly(value: int | float | Decimal) -> Decimal:
    """The number without any rounding."""
    return value if isinstance(value, Decimal) else Decimal(value if value % 1 else int(value))


def between(printed: Iterable[str]) -> str:
    """The smallest and the largest of printed numbers, as printed, "" without any."""
    found = sorted(filter(None, printed), key=float)
    return f"{found[0]}-{found[-1]}" if found else ""


def over(one: Value, other: Value) -> Value:
    """Their ratio, None if either is missing."""
    return None if one is None or other is None else one / other


def _shown(printed: str, ours: Sequence[Value]) -> str:
    """The printed text with our values in it: whole, or one digit finer (two after a 5)."""
    values = iter(ours)

    def put(match: re.Match) -> str:
        value, finest = exactly(next(values)), Decimal(match[0]).as_tuple().exponent - 1
        if value % 1 == 0:
            return f"{value:f}"
        text = f"{value.quantize(Decimal(1).scaleb(finest), ROUND_HALF_UP):f}"
        return text if text[-1] != "5" else f"{value.quantize(Decimal(1).scaleb(finest - 1)):f}"

    return NUMBER.sub(put, printed)

"""The ledger: every claim, figure and table of the paper beside what is computed here.

results/paper/claims.toml says what is compared; a status follows from the two values.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from types import SimpleNamespace

import pandas as pd

from ..files import write
from ..paths import repo_root
from . import published, readme, results, tables

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
_WORSE = list(STATUSES).index
_COUNTED = ("tally", "names")  # lines that say which values agree


def ledger(paper: Path | None = None, **ours: pd.DataFrame) -> pd.DataFrame:
    """All rows of the ledger, as text.

    Args:
        paper: folder of the published tables and claims.toml (default: results/paper).
        ours: the result tables of TABLES; what one lacks is "not yet" or "needs data".
    """
    paper = paper or repo_root() / "results" / "paper"
    document = tomllib.loads((paper / "claims.toml").read_text("utf-8"))
    ours = {name: results.read(name, paper) for name in TABLES} | ours  # empty ones, if not given
    frames = published.read(paper, ours, document["join"])
    abstract = frames["claims_abstract"].set_index("id")["claim"].to_dict()
    claims = [SimpleNamespace(**document["default"] | entry) for entry in document["claim"]]
    rows = [row for claim in claims for row in _lines(claim, frames[claim.table], abstract)]
    return pd.DataFrame(rows, columns=COLUMNS).drop_duplicates("id", ignore_index=True)


def _lines(
    claim: SimpleNamespace, rows: pd.DataFrame, abstract: Mapping[str, str]
) -> Iterator[dict[str, str]]:
    """The lines of the ledger that a claim stands for."""
    rows = rows.query(claim.rows) if claim.rows else rows
    if claim.models:
        rows = rows[rows["model"].isin(claim.models)]
        rows = rows.sort_values("model", key=lambda column: column.map(claim.models.index))
    for part in [rows.loc[[index]] for index in rows.index] if claim.each else [rows]:
        words = dict(abstract)
        if claim.each:
            words |= part.iloc[0][["model", "label", "prediction"]]
            words["number"] = f"{part['number'].item():.0f}"
        id, text = claim.id.format(**words), claim.claim.format(**words)
        yield {"id": id, "where": claim.where, "claim": text, **_compared(claim, part)}


def _compared(claim: SimpleNamespace, rows: pd.DataFrame) -> dict[str, str]:
    """The other columns of a line: both values, their status, and what belongs to them."""
    printed = _texts(_values(rows, claim.printed), claim.format)
    theirs, ours = _published(claim, rows, printed), _values(rows, claim.ours)
    status, ours = _missing(claim, rows, theirs, ours), ours.dropna()
    facts = _facts(claim, rows, ours)
    note, shown = claim.note.format(**facts), ""
    if claim.note_if and rows.query(claim.note_if).empty:
        note = ""
    if status == "not yet":
        note = "the result tables have no row for it yet"
    if not status:
        verdicts = _verdicts(claim, rows, theirs, printed, ours)
        status = max(verdicts.values(), key=_WORSE)
        others = [name for name in verdicts if verdicts[name] == "measured and differs"]
        if claim.reduce in _COUNTED and others:
            note = f"not {', '.join(dict.fromkeys(name for _, name in others))}"
        facts |= {"agree": len(verdicts) - len(others), "measured": len(verdicts)}
        shown = _shown(claim, rows, theirs, ours).format(**facts)
    notebook, command = claim.notebook, claim.command
    if status in ("not yet", "not available"):
        notebook = command = ""
    command = command or (notebook and f"co3d reproduce --only {notebook[:2]}")
    source = claim.source.format(table=claim.table)
    return {
        "published": theirs,
        "ours": shown,
        "status": status,
        "note": note,
        "notebook": notebook,
        "command": command,
        "source": source and f"{source}.csv",
    }


def _values(rows: pd.DataFrame, expression: str) -> pd.Series:
    """The numbers that an expression over the columns gives; none without one."""
    return rows.eval(expression).astype(float) if expression else pd.Series(dtype=float)


def _texts(values: pd.Series, form: str) -> pd.Series:
    return values.dropna().map(lambda value: f"{value:{form}}")


def _published(claim: SimpleNamespace, rows: pd.DataFrame, printed: pd.Series) -> str:
    if claim.reduce == "names":
        return _marked(rows, printed.astype(float))
    usual = f"{len(printed)} values" if claim.reduce == "tally" else ", ".join(printed)
    numbers = sorted(printed, key=float) or [""]
    models = rows["model"].nunique() if "model" in rows else 0
    facts = {"n": len(printed), "low": numbers[0], "high": numbers[-1], "models": models}
    return (claim.published or usual).format(**facts)


def _missing(claim: SimpleNamespace, rows: pd.DataFrame, theirs: str, ours: pd.Series) -> str:
    """The status of a line that lacks a value, "" if both are there."""
    if not claim.ours:
        return "needs data" if claim.command and theirs else "not available"
    partly = claim.command and claim.reduce == "tally"  # some of the values may be measured
    there = ours.notna().any() if partly else len(ours) and ours.notna().all()
    if there and set(claim.models) <= set(rows.get("model", ())):
        return ""
    return "needs data" if claim.command else "not yet"


def _facts(claim: SimpleNamespace, rows: pd.DataFrame, ours: pd.Series) -> dict[str, object]:
    """What texts can name."""
    also = ", ".join(_texts(_values(rows, claim.also), claim.also_format))
    facts: dict[str, object] = {"also": also, "low": ours.min(), "high": ours.max()}
    facts |= {"each": "", "models": 0, "device": ""}
    if "label" in rows and len(ours):
        labels = rows["label"][ours.index]
        facts["each"] = ", ".join(labels + " " + _texts(ours, ".2f"))
        facts["models"] = labels.nunique()
    if "our_device" in rows:
        facts["device"] = ", ".join(sorted(rows["our_device"].dropna().unique()))
    return facts


def _verdicts(
    claim: SimpleNamespace, rows: pd.DataFrame, theirs: str, printed: pd.Series, ours: pd.Series
) -> dict[object, str]:
    """How each of our numbers compares with its published one; of a network's, the worst."""
    if claim.devices and not set(rows["our_device"]) & set(claim.devices):
        return {"": "other device"}
    numbers = _reduced(claim, ours)
    matched = len(printed) and claim.reduce not in ("span", "max")
    texts = printed[ours.index] if matched else NUMBER.findall(theirs)
    limits = rows[claim.tolerance][ours.index] if claim.tolerance else [None] * len(numbers)
    names: Sequence = range(len(numbers))
    if claim.reduce in _COUNTED and "prediction" in rows:
        names = [*rows["prediction"][ours.index].items()]
    elif claim.reduce in _COUNTED:
        names = [("", name) for name in rows["label"][ours.index]]
    verdicts: dict[object, str] = {}
    for name, text, number, limit in zip(names, texts, numbers, limits, strict=True):
        status = verdict(text, number, limit, claim.derived)
        verdicts[name] = max(status, verdicts.get(name, status), key=_WORSE)
    return verdicts


def verdict(
    printed: str, ours: float, tolerance: float | None = None, derived: bool = False
) -> str:
    """The status of our number beside a printed, or a `derived`, one."""
    theirs, own = Decimal(printed), Decimal(ours)
    same = own.quantize(theirs, ROUND_HALF_UP) == theirs
    if tolerance is not None:
        same = abs(theirs - own) <= tolerance
    if not same:
        return "measured and differs"
    if derived:
        return "agrees with our derivation"
    return "exact" if theirs == own else "within rounding"


def _reduced(claim: SimpleNamespace, ours: pd.Series) -> list[float]:
    if claim.reduce == "span":
        return [ours.min(), ours.max()]
    return [ours.max()] if claim.reduce == "max" else list(ours)


def _shown(claim: SimpleNamespace, rows: pd.DataFrame, theirs: str, ours: pd.Series) -> str:
    """Our value as text, in which {agree} and the facts can stand."""
    if claim.reduce == "names":
        return _marked(rows, ours)
    if claim.reduce == "tally" or claim.shown:
        usual = "{agree} agree" if len(ours) == len(rows) else "{agree} of {measured} agree"
        return claim.shown or usual
    if claim.show:
        return ", ".join(_texts(ours, claim.show))
    values = iter(_reduced(claim, ours))
    return NUMBER.sub(lambda match: _finer(match[0], next(values)), theirs)


def _finer(printed: str, ours: float) -> str:
    """Our number one digit finer than the printed one, two after a 5; a whole one as it is."""
    value, digit = Decimal(ours), Decimal(printed).as_tuple().exponent - 1
    if value % 1 == 0:
        return f"{value:f}"
    text = str(value.quantize(Decimal(1).scaleb(digit), ROUND_HALF_UP))
    return text if text[-1] != "5" else str(value.quantize(Decimal(1).scaleb(digit - 1)))


def _marked(rows: pd.DataFrame, marks: pd.Series) -> str:
    """Names of the rows that are marked 1."""
    rows = rows.loc[marks.index[marks == 1]]
    return ", ".join(rows["label"] + rows["number"].map(" at {:.0f}".format))


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
    counts = statuses(table)
    rows = [(name, str(count), STATUSES[name]) for name, count in counts[counts > 0].items()]
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
    if not paper.is_dir():
        return
    table = ledger(paper=paper, **{name: results.read(name, root / "results") for name in TABLES})
    save(table, root)
    readme.refresh(root, claims=summary(table))

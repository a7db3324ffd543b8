"""Result tables: tidy CSV files with provenance in every row.

Raw numbers, one row per key, no derived columns. `write` is the only way in; a value that did not
change keeps its row, date and commit.
"""

import math
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from .. import files
from .schema import COLUMNS, TABLES, Table

_DTYPES = {str: "str", int: "Int64", float: "float64"}


def write(table: str, rows: Iterable[Mapping], folder: Path, provenance: Mapping) -> Path:
    """Insert or replace rows by key in the table's file in `folder`; returns the file.

    Raises:
        ValueError: if a row lacks a column or has an unknown one, if a value has the wrong type,
            or if two rows have one key.
    """
    schema, rows = _schema(table), list(rows)
    for row in rows:
        if wrong := set(schema.own) ^ row.keys():
            wrong = ", ".join(sorted(wrong))
            raise ValueError(f"a row of table {table!r} lacks or has the unknown column {wrong}")
    frame = pd.DataFrame([{**provenance, **row} for row in rows])
    parts = [re.sub(r"[^a-z0-9]+", "-", provenance[by].lower()).strip("-") for by in schema.split]
    path = Path(folder) / f"{'-'.join([table, *parts])}.csv"
    return _upsert(path, schema, _typed(frame.reindex(columns=schema.columns)))


def merge(new: Path, folder: Path, notebooks: Collection[str] = ()) -> Path:
    """Upsert all rows of the CSV file `new`, as they are, into the file of its name in `folder`.

    Rows there that were written by one of `notebooks`, which just ran, and not again, are dropped.
    """
    return _upsert(Path(folder) / new.name, _schema_of(new), _load(new), notebooks)


def read(table: str, folder: Path) -> pd.DataFrame:
    """All rows of a table; a blank cell is NA, in a text column "". Empty without a file.

    Raises:
        ValueError: if a file is not what `write` writes; the sentence names the file.
    """
    pattern = f"{table}-*.csv" if _schema(table).split else f"{table}.csv"
    tables = [_load(path) for path in sorted(Path(folder).glob(pattern))]
    return pd.concat(tables, ignore_index=True) if tables else _empty(_schema(table))


def combine(table: str, new: pd.DataFrame, committed: pd.DataFrame) -> pd.DataFrame:
    """The new rows, then the committed ones that they do not replace.

    By key, `limit` and `weights` aside: no table shows a model twice, with old and new weights.
    """
    schema = _schema(table)
    key = [name for name in schema.key + schema.split if name not in ("limit", "weights")]
    kept = committed[~_keys(committed, key).isin(_keys(new, key))]
    return pd.concat([new, kept], ignore_index=True)


def compare(new: Path, committed: Path, notebooks: Collection[str] | None = None) -> pd.DataFrame:
    """Every value of the tables in the folder `new` against the same tables in `committed`.

    Args:
        notebooks: only rows written by these can be missing from `new` (None: all rows).

    Returns:
        Columns table, notebook, row, column, committed, new, verdict; a verdict is equal, differs,
        within N flipped videos, differs by machine, new or missing. What should be equal is first.
    """
    records = []
    for name in sorted(path.name for path in new.glob("*.csv")):
        schema, table = _schema_of(Path(name)), Path(name).stem
        ours, theirs = (_by_key(folder / name) for folder in (new, committed))
        for key in sorted(ours.keys() | theirs.keys()):
            a, b, row = theirs.get(key), ours.get(key), " ".join(filter(None, key))
            place = (table, (b or a)["notebook"], row)
            if a and b:
                records += [
                    (*place, column, a[column], b[column], _verdict(role, column, a, b))
                    for role in ("exact", "flips", "machine")
                    for column in getattr(schema, role)
                ]
            elif b or notebooks is None or a["notebook"] in notebooks:
                records.append((*place, "", "", "", "new" if b else "missing"))
    columns = ["table", "notebook", "row", "column", "committed", "new", "verdict"]
    return pd.DataFrame(records, columns=columns, dtype="str")


def _verdict(role: str, column: str, a: Mapping[str, str], b: Mapping[str, str]) -> str:
    if a[column] == b[column]:
        return "equal"
    if role == "machine":
        return "differs by machine"
    if role == "flips" and a["n_scored"] == b["n_scored"] and a[column] and b[column]:
        flips = abs(float(a[column]) - float(b[column])) * int(a["n_scored"]) / 100
        return f"within {math.ceil(flips - 1e-6)} flipped videos"
    return "differs"


def _schema(table: str) -> Table:
    if table not in TABLES:
        raise ValueError(f"no result table is called {table!r}; there are {', '.join(TABLES)}")
    return TABLES[table]


def _schema_of(path: Path) -> Table:
    name = path.stem.split("-")[0]
    return _schema(name if name in TABLES and TABLES[name].split else path.stem)


def _upsert(path: Path, schema: Table, new: pd.DataFrame, replaced: Collection[str] = ()) -> Path:
    key = list(schema.key)
    if new.duplicated(key).any():
        raise ValueError(f"two rows for {path.name} have the same key ({', '.join(key)})")
    with files.locked(path.parent):
        old = _load(path) if path.exists() else _empty(schema)
        gone = old["notebook"].isin(replaced) & ~_keys(old, key).isin(_keys(new, key))
        rows = pd.concat([old[~gone], new])
        # A row equal to an old one is dropped, else the old row of its key.
        rows = rows.drop_duplicates(list(schema.own)).drop_duplicates(key, keep="last")
        with files.replacing(path) as part:
            rows = rows.sort_values(key, na_position="first")
            rows.to_csv(part, index=False, lineterminator="\n")
    return path


def _load(path: Path) -> pd.DataFrame:
    """The file's rows, each cell checked."""
    schema, texts = _schema_of(path), _texts(path)
    if tuple(texts) != schema.columns:
        wrong = sorted(set(texts) ^ set(schema.columns)) or ["their order"]
        raise ValueError(
            f"the header of {path.name} differs from results/README.md in {', '.join(wrong[:5])}: "
            "restore the file from git or remove it"
        )
    try:
        rows = _typed(texts)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None
    if rows.duplicated(list(schema.key)).any():
        raise ValueError(f"{path.name} holds two rows with the same key ({', '.join(schema.key)})")
    return rows


def _texts(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except ValueError as error:
        raise ValueError(f"{path.name} is not a CSV file in UTF-8: {error}") from None


def _typed(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with each column in its type; blank, None and NaN are missing, in texts "".

    Raises:
        ValueError: for a value that is no finite number, or no whole one, where one is expected.
    """
    typed = {}
    for name, column in rows.items():
        kind, _ = COLUMNS[name]
        column = column.astype(object).where(column.notna(), "")
        if kind is str:
            typed[name] = column.map(str).astype("str")
            continue
        numbers = pd.to_numeric(column.where(column != ""), errors="coerce").astype("float64")
        fits = np.isfinite(numbers) & (numbers.round() == numbers if kind is int else True)
        if (bad := column[(column != "") & ~fits]).size:
            what = "whole" if kind is int else "finite"
            raise ValueError(f"{name} is {bad.iloc[0]!r}, expected a {what} number")
        typed[name] = numbers.astype(_DTYPES[kind])
    return pd.DataFrame(typed)


def _empty(schema: Table) -> pd.DataFrame:
    dtypes = {name: _DTYPES[COLUMNS[name][0]] for name in schema.columns}
    return pd.DataFrame(columns=schema.columns).astype(dtypes)


def _by_key(path: Path) -> dict[tuple[str, ...], dict[str, str]]:
    """The rows of a file as texts; none without a file."""
    if not path.exists():
        return {}
    key = _schema_of(path).key
    return {tuple(row[name] for name in key): row for row in _texts(path).to_dict("records")}


def _keys(rows: pd.DataFrame, key: list[str]) -> pd.Series:
    texts = ["|".join(map(str, row)) for row in rows[key].itertuples(index=False)]
    return pd.Series(texts, rows.index, "str")

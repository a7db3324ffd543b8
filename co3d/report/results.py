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
    frame = pd.DataFrame([{**provenance, **row} for row in rows], columns=schema.columns)
    parts = [re.sub(r"[^a-z0-9]+", "-", provenance[by].lower()).strip("-") for by in schema.split]
    path = Path(folder) / f"{'-'.join([table, *parts])}.csv"
    return _upsert(path, _checked(frame, path))


def merge(new: Path, folder: Path, notebooks: Collection[str] = ()) -> Path:
    """Upsert all rows of the CSV file `new`, as they are, into the file of its name in `folder`.

    Rows there that were written by one of `notebooks`, which just ran, and not again, are dropped.
    """
    return _upsert(Path(folder) / new.name, _load(new), notebooks)


def read(table: str, folder: Path) -> pd.DataFrame:
    """All rows of a table; a blank cell is NA, in a text column "". Empty without a file.

    Raises:
        ValueError: if a file is not what `write` writes; the sentence names the file.
    """
    plain = Path(folder) / f"{table}.csv"  # without a file an empty table
    split = Path(folder).glob(f"{table}-*.csv") if _schema(table).split else ()
    return pd.concat([_load(path) for path in sorted(split) or [plain]], ignore_index=True)


def combine(table: str, new: pd.DataFrame, committed: pd.DataFrame) -> pd.DataFrame:
    """The new rows, then the committed ones that they do not replace.

    By key, `limit` and `weights` aside: no table shows a model twice, with old and new weights.
    """
    schema = _schema(table)
    key = [name for name in schema.key + schema.split if name not in ("limit", "weights")]
    kept = committed[~_keys(committed, key).isin(_keys(new, key))]
    return pd.concat([new, kept], ignore_index=True)


def compare(new: Path, committed: Path) -> pd.DataFrame:
    """Every value of the tables in the folder `new` against the same tables in `committed`.

    Returns:
        Columns table, notebook, row, column, committed, new, verdict; a verdict is equal, differs,
        within N flipped videos, differs by machine, new or missing. What should be equal is first.
    """
    records = []
    for name in sorted(path.name for path in new.glob("*.csv")):
        schema, table = _schema_of(Path(name)), Path(name).stem
        ours, theirs = (
            {tuple(row[part] for part in schema.key): row for row in texts.to_dict("records")}
            for texts in (_texts(new / name), _texts(committed / name))
        )
        for key in sorted(ours.keys() | theirs.keys()):
            a, b, row = theirs.get(key), ours.get(key), " ".join(filter(None, key))
            place = (table, (b or a)["notebook"], row)
            if a and b:
                records += [
                    (*place, column, a[column], b[column], _verdict(role, column, a, b))
                    for role in ("exact", "flips", "machine")
                    for column in getattr(schema, role)
                ]
            else:
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


def _upsert(path: Path, new: pd.DataFrame, replaced: Collection[str] = ()) -> Path:
    schema = _schema_of(path)
    key = list(schema.key)
    with files.locked(path.parent):
        old = _load(path)
        gone = old["notebook"].isin(replaced) & ~_keys(old, key).isin(_keys(new, key))
        rows = pd.concat([old[~gone], new])
        # A row equal to an old one is dropped, else the old row of its key.
        rows = rows.drop_duplicates(list(schema.own)).drop_duplicates(key, keep="last")
        with files.replacing(path) as part:
            rows = rows.sort_values(key, na_position="first")
            rows.to_csv(part, index=False, lineterminator="\n")
    return path


def _texts(path: Path) -> pd.DataFrame:
    """The file's cells as they are written; no rows without a file."""
    if not path.exists():
        return pd.DataFrame(columns=_schema_of(path).columns)
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except ValueError as error:
        raise ValueError(f"{path.name} is not a CSV file in UTF-8: {error}") from None


def _load(path: Path) -> pd.DataFrame:
    texts, columns = _texts(path), _schema_of(path).columns
    if tuple(texts) != columns:
        wrong = sorted(set(texts) ^ set(columns)) or ["their order"]
        raise ValueError(
            f"the header of {path.name} differs from results/README.md in {', '.join(wrong[:5])}: "
            "restore the file from git or remove it"
        )
    return _checked(texts, path)


def _checked(rows: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The rows with each column in its type; blank, None and NaN are missing, in texts "".

    Raises:
        ValueError: for a value that is no finite number, or no whole one, where one is expected,
            and for two rows with the same key.
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
            raise ValueError(f"{path.name}: {name} is {bad.iloc[0]!r}, expected a {what} number")
        typed[name] = numbers.astype("Int64") if kind is int else numbers
    typed, key = pd.DataFrame(typed), _schema_of(path).key
    if typed.duplicated(list(key)).any():
        raise ValueError(f"{path.name}: two rows have the same key ({', '.join(key)})")
    return typed


def _keys(rows: pd.DataFrame, key: list[str]) -> pd.Series:
    texts = ["|".join(map(str, row)) for row in rows[key].itertuples(index=False)]
    return pd.Series(texts, rows.index, "str")

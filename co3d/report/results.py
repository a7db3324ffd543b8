"""Result tables: tidy CSV files with provenance in every row.

Raw numbers, one row per key, no derived columns. `write` is the only way in; a value that did not
change keeps its row, date and commit. Files are read as untrusted input.
"""

import csv
import math
import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from .schema import COLUMNS, TABLES, Table


def write(table: str, rows: Iterable[Mapping], folder: Path, provenance: Mapping) -> Path:
    """Insert or replace rows by key in the table's file in `folder`; returns the file.

    Raises:
        ValueError: if a row lacks a column or has an unknown one, if a value has the wrong type,
            or if two rows have one key.
    """
    schema, lines = _schema(table), []
    for row in rows:
        problems = [f"lacks {name!r}" for name in schema.own if name not in row]
        problems += [f"has the unknown column {name!r}" for name in row if name not in schema.own]
        if problems:
            raise ValueError(f"a row of table {table!r} {' and '.join(problems)}")
        line = {**provenance, **row}
        lines.append({name: _text(name, line[name]) for name in schema.columns})
    parts = [re.sub(r"[^a-z0-9]+", "-", provenance[by].lower()).strip("-") for by in schema.split]
    return _upsert(Path(folder) / f"{'-'.join([table, *parts])}.csv", schema, lines)


def merge(new: Path, folder: Path, notebooks: Collection[str] = ()) -> Path:
    """Upsert all rows of the CSV file `new`, as they are, into the file of its name in `folder`.

    Rows there that were written by one of `notebooks`, which just ran, and not again, are dropped.
    """
    return _upsert(Path(folder) / new.name, _schema_of(new), _load(new), notebooks)


def read(table: str, folder: Path) -> pd.DataFrame:
    """All rows of a table; a blank cell is NA, in a text column "". Empty without a file.

    Raises:
        ValueError: if a file is not what `write` writes; the sentence names the line.
    """
    columns = _schema(table).columns
    pattern = f"{table}-*.csv" if _schema(table).split else f"{table}.csv"
    lines = [line for path in sorted(Path(folder).glob(pattern)) for line in _load(path)]
    kinds = {str: "str", int: "Int64", float: "float64"}
    return pd.DataFrame(
        {
            name: pd.Series([_value(name, line[name]) for line in lines], dtype=kinds[kind])
            for name, kind in ((name, COLUMNS[name][0]) for name in columns)
        }
    )


def combine(table: str, new: pd.DataFrame, committed: pd.DataFrame) -> pd.DataFrame:
    """The new rows, then the committed ones that they do not replace.

    By key, `limit` and `weights` aside: no table shows a model twice, with old and new weights.
    """
    schema = _schema(table)
    key = [name for name in schema.key + schema.split if name not in ("limit", "weights")]
    taken = set(new[key].astype(str).itertuples(index=False, name=None))
    old = committed[key].astype(str).itertuples(index=False, name=None)
    kept = committed.iloc[[n for n, row in enumerate(old) if row not in taken]]
    parts = [part for part in (new, kept) if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else new


def compare(new: Path, committed: Path, notebooks: Collection[str] | None = None) -> pd.DataFrame:
    """Every value of the tables in the folder `new` against the same tables in `committed`.

    Args:
        notebooks: only rows written by these can be missing from `new` (None: all rows).

    Returns:
        Columns table, row, column, committed, new, verdict; a verdict is equal, differs, within N
        flipped videos, differs by machine, new or missing.
    """
    records = []
    for name in sorted(path.name for path in new.glob("*.csv")):
        schema, table = _schema_of(Path(name)), Path(name).stem
        ours, theirs = (_by_key(schema, _load(folder / name)) for folder in (new, committed))
        for key in sorted(ours.keys() | theirs.keys()):
            row, a, b = " ".join(filter(None, key)), theirs.get(key), ours.get(key)
            if a is None:
                records.append((table, row, "", "", "", "new"))
            elif b is None:
                if notebooks is None or a["notebook"] in notebooks:
                    records.append((table, row, "", "", "", "missing"))
            else:
                records += [
                    (table, row, column, a[column], b[column], _verdict(role, column, a, b))
                    for role in ("exact", "flips", "machine")
                    for column in getattr(schema, role)
                ]
    columns = ["table", "row", "column", "committed", "new", "verdict"]
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


def _by_key(schema: Table, lines: list[dict[str, str]]) -> dict[tuple, dict[str, str]]:
    return {tuple(line[name] for name in schema.key): line for line in lines}


def _upsert(
    path: Path, schema: Table, lines: list[dict[str, str]], replaced: Collection[str] = ()
) -> Path:
    fresh = _by_key(schema, lines)
    if len(fresh) < len(lines):
        raise ValueError(f"two rows for {path.name} have the same key ({', '.join(schema.key)})")
    held = _by_key(schema, [line for line in _load(path) if line["notebook"] not in replaced])
    held |= {key: line for key, line in _by_key(schema, _load(path)).items() if key in fresh}
    for key, line in fresh.items():
        if key not in held or any(held[key][name] != line[name] for name in schema.own):
            held[key] = line
    ordered = sorted(
        held, key=lambda key: [_sort_key(*cell) for cell in zip(schema.key, key, strict=True)]
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, schema.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(held[key] for key in ordered)
    os.replace(part, path)
    return path


def _sort_key(name: str, cell: str) -> str | float:
    """Numbers by size, blanks first."""
    return cell if COLUMNS[name][0] is str else float(cell or "-inf")


def _load(path: Path) -> list[dict[str, str]]:
    """The file's rows as text, each cell checked; no rows without a file."""
    if not path.exists():
        return []
    schema = _schema_of(path)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *body = list(csv.reader(file, strict=True)) or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path.name} is not a CSV file in UTF-8: {error}") from None
    if tuple(header) != schema.columns:
        wrong = sorted(set(header) ^ set(schema.columns)) or ["their order"]
        raise ValueError(
            f"the header of {path.name} differs from results/README.md in {', '.join(wrong[:5])}: "
            "restore the file from git or remove it"
        )
    lines = []
    for number, cells in enumerate(body, 2):
        if len(cells) != len(header):
            raise ValueError(
                f"{path.name}, row {number}: expected {len(header)} cells, found {len(cells)}"
            )
        lines.append(dict(zip(header, cells, strict=True)))
        for name, cell in lines[-1].items():
            try:
                _value(name, cell)
            except ValueError as error:
                raise ValueError(f"{path.name}, row {number}: {error}") from None
    if len(_by_key(schema, lines)) < len(lines):
        raise ValueError(f"{path.name} holds two rows with the same key ({', '.join(schema.key)})")
    return lines


def _value(name: str, text: str) -> Any:
    """The cell as str, int or float; blank is NA."""
    kind, _ = COLUMNS[name]
    if kind is str:
        return text
    if not text:
        return pd.NA if kind is int else math.nan
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if abs(value) > 1e300 or not math.isfinite(value):
        raise ValueError(f"{name} is {text!r}, expected {_NUMBER[kind]}")
    return value


def _text(name: str, value: Any) -> str:
    """The cell for a value: shortest text that reads back as the same number; None is blank."""
    kind, _ = COLUMNS[name]
    if value is None or value is pd.NA or value != value:
        return ""
    if kind is str:
        return str(value)
    try:
        number = kind(value)
    except (TypeError, ValueError):
        number = math.nan
    if number != value or not math.isfinite(number):
        raise ValueError(f"{name} is {value!r}, expected {_NUMBER[kind]} or None")
    return repr(number)


_NUMBER = {int: "a whole number", float: "a finite number"}

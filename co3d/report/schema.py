"""The columns of all result tables: what each means, its type, and how a table uses it.

`schema.toml` holds them; results/README.md is generated from it.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path

_DATA = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
_TYPES = {"str": str, "int": int, "float": float}
COLUMNS: dict[str, tuple[type, str]] = {
    name: (_TYPES[kind], meaning) for name, (kind, meaning) in _DATA["columns"].items()
}
PROVENANCE = tuple(list(COLUMNS)[list(COLUMNS).index("commit") :])
ROLES = {
    "key": "key",
    "exact": "exact",
    "flips": "flipped videos",
    "machine": "differs by machine",
    "rest": "not compared",
}


@dataclass(frozen=True)
class Table:
    """Columns of one table by role; `compare` treats each role differently.

    A table may be `split` by columns of the provenance into files with these in their names.
    """

    about: str
    key: tuple[str, ...]
    exact: tuple[str, ...] = ()
    flips: tuple[str, ...] = ()
    machine: tuple[str, ...] = ()
    rest: tuple[str, ...] = ()
    split: tuple[str, ...] = ()

    @property
    def own(self) -> tuple[str, ...]:
        """The columns that a caller fills."""
        return self.key + self.exact + self.flips + self.machine + self.rest

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns, in file order: own, then the provenance that is not among them."""
        return self.own + tuple(name for name in PROVENANCE if name not in self.own)


TABLES = {
    name: Table(entry.pop("about"), **{role: tuple(names.split()) for role, names in entry.items()})
    for name, entry in _DATA["tables"].items()
}

_INTRODUCTION = """\
# Results

Everything measured or computed here, as tidy CSV: raw numbers, one row per key, blank
where a value does not apply. The notebooks write the tables and `co3d/report/schema.toml`
this page (`make update`), with two exceptions, which are copied here from the runs:
`scaling.csv`, which `co3d scale` writes, and `training.csv`, which only a new training
writes (`co3d reproduce --only A1 -p retrain true`). Nothing is edited by hand. An
unchanged value keeps its row and date. Published numbers are in
[paper/](paper/README.md), never mixed with these.

The columns marked *key* name a row. `make reproduce` compares the others as marked:
*exact* values are equal or not, accuracies are compared in flipped videos, times and
rounding depend on the machine.
"""


def readme() -> str:
    """The text of results/README.md: every table's key, columns and how it is compared."""
    text = _INTRODUCTION
    for name, table in TABLES.items():
        file = "-".join([name, *(f"<{column}>" for column in table.split)])
        text += f"\n## `{file}.csv`\n\n{table.about}\n\n"
        text += "| column | type | meaning | compared |\n|---|---|---|---|\n"
        for role, label in ROLES.items():
            text += "".join(_line(column, label) for column in getattr(table, role))
    text += (
        "\n## Provenance\n\nEvery row also carries:\n\n| column | type | meaning |\n|---|---|---|\n"
    )
    return text + "".join(_line(column) for column in PROVENANCE)


def _line(column: str, *more: str) -> str:
    kind, meaning = COLUMNS[column]
    return f"| {' | '.join((f'`{column}`', kind.__name__, meaning, *more))} |\n"

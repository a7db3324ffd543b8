"""co3d site: the notebooks, tables, model cards and API as HTML."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from .. import paths


@click.command()
@click.option("--out", type=click.Path(path_type=Path), metavar="FOLDER",
              help="Where it is written (default: site in the repository).")  # fmt: skip
@click.pass_context
def site(context: click.Context, out: Path | None) -> None:
    """Build the site: notebooks, tables, model cards and API as HTML.

    Runs no notebook. The pages need no network and no server: open index.html. An earlier site in
    FOLDER is replaced.
    """
    from ..report.site import build

    out = out or paths.repo_root() / "site"
    click.echo("building the site takes a minute or two")
    build(out, dict(_helps("", context.find_root().command.commands)))
    click.echo(f"open {out / 'index.html'}")


def _helps(before: str, commands: Mapping[str, click.Command]) -> Iterator[tuple[str, str]]:
    """The name and the help of each command, a group's followed by those of its commands."""
    for name, command in commands.items():
        whole = f"{before}{name}"
        context = click.Context(command, info_name=f"co3d {whole}", terminal_width=80)
        yield whole, command.get_help(context)
        yield from _helps(f"{whole} ", getattr(command, "commands", {}))

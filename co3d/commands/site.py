"""co3d site: the notebooks, figures and tables as static HTML."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from .. import paths


@click.command()
@click.option("--out", type=click.Path(path_type=Path), metavar="FOLDER",
              help="Where it is written (default: site in the repository).")  # fmt: skip
@click.pass_context
def site(context: click.Context, out: Path | None) -> None:
    """Write the committed notebooks, figures and tables as static HTML.

    Nothing is run. The pages need no network and no server: open index.html. An earlier site in
    FOLDER is replaced.
    """
    from ..report.site.build import build

    out = out or paths.repo_root() / "site"
    commands = context.find_root().command.commands
    helps = dict(_helps("", commands))
    count = build(out, helps)
    click.echo(f"{count} files in {out}; open {out / 'index.html'}")


def _helps(before: str, commands: Mapping[str, click.Command]) -> Iterator[tuple[str, str]]:
    """The name and the help of each command, a group's followed by those of its commands."""
    for name, command in commands.items():
        whole = f"{before}{name}"
        context = click.Context(command, info_name=f"co3d {whole}", terminal_width=88)
        yield whole, command.get_help(context)
        yield from _helps(f"{whole} ", getattr(command, "commands", {}))

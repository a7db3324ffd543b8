"""co3d site: the notebooks, figures and tables as static HTML."""

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
    helps = {
        name: command.get_help(click.Context(command, info_name=f"co3d {name}", terminal_width=88))
        for name, command in commands.items()
    }
    count = build(out, helps)
    click.echo(f"{count} files in {out}; open {out / 'index.html'}")

"""The command line: `co3d` or `python -m co3d`."""

import os
import sys

import click

from .commands import (
    bench,
    convert,
    download,
    evaluate,
    export,
    models,
    notebooks,
    scale,
    site,
    status,
    stream,
    train,
    verify,
)

HELP = {"help_option_names": ["-h", "--help"]}


def main(arguments: list[str] | None = None) -> None:
    """Runs a command; bad input is one line and exit code 2, Ctrl-C 130, a failed run 1."""
    try:
        result = cli(arguments, prog_name="co3d", standalone_mode=False)
        sys.stdout.flush()
        sys.exit(result if isinstance(result, int) else 0)
    except click.Abort:  # click's form of KeyboardInterrupt
        _stop("interrupted", 130)
    except BrokenPipeError:  # the reader of our output has left, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except click.ClickException as error:
        _stop(error.format_message(), error.exit_code)
    except (ValueError, TypeError, OSError) as error:
        if sys.flags.dev_mode:  # python -X dev -m co3d ... shows where it comes from
            raise
        _stop(str(error), 2)


def _stop(message: str, code: int) -> None:
    click.echo(f"co3d: {message}", err=True)
    sys.exit(code)


@click.group(invoke_without_command=True, context_settings=HELP)
@click.version_option(package_name="co3d")
@click.pass_context
def cli(context: click.Context) -> None:
    """Continual 3D CNNs: clip nets that run frame by frame. Alone: what is found here."""
    if context.invoked_subcommand is None:
        status.status()


for command in (
    *(notebooks.reproduce, notebooks.update, notebooks.lab, notebooks.quick, site.site),
    *(stream.stream, evaluate.evaluate, bench.bench, scale.scale, models.models, train.train),
    *(convert.convert, export.export, download.download, verify.verify),
):
    command.short_help = command.get_short_help_str(1000)  # whole in the list of commands
    cli.add_command(command)


if __name__ == "__main__":
    main()

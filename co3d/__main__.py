"""The command line: `co3d` or `python -m co3d`."""

import os
import sys
from pathlib import Path

import click

from . import paths
from .commands import (
    bench,
    convert,
    download,
    evaluate,
    models,
    notebooks,
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
    except Exception as error:
        from .report.notebooks import NotebookError

        if not isinstance(error, NotebookError):
            raise
        _stop(str(error), 1)


def _stop(message: str, code: int) -> None:
    click.echo(f"co3d: {message}", err=True)
    sys.exit(code)


@click.group(invoke_without_command=True, context_settings=HELP)
@click.version_option(package_name="co3d")
@click.pass_context
def cli(context: click.Context) -> None:
    """Continual 3D CNNs: clip nets that run frame by frame. Alone: what is found here."""
    if context.invoked_subcommand is None:
        _status()


def _status() -> None:
    import platform

    import torch

    from . import __version__, list_models
    from .data import synthetic
    from .report.origin import device_name
    from .zoo.checkpoints import shipped

    def line(name: str, text: object) -> None:
        click.echo(f"{name:<10}{text}")

    line("co3d", f"{__version__}, torch {torch.__version__}, Python {platform.python_version()}")
    line("device", f"cpu: {device_name()}, {torch.get_num_threads()} threads")
    for number in range(torch.cuda.device_count()):
        line("", f"cuda:{number}: {device_name(f'cuda:{number}')}")
    line("runs", _found(paths.logs_path()))
    line("cache", _found(paths.cache_path()))
    data = paths.datasets_path()
    line("datasets", _found(data) if data else "none (set DATASETS_PATH, see .env.example)")
    made = len(list(synthetic.folder().rglob("*.mp4")))
    total = sum(synthetic.SPLITS.values())
    line("data", f"synthetic-kinetics: {made} of {total} videos made (on first use)")
    weights = {name: ", ".join(shipped(name)) for name in list_models() if shipped(name)}
    line("weights", ", ".join(f"{name} ({data})" for name, data in weights.items()) or "none")
    runs = paths.logs_path().is_dir() and any(paths.logs_path().glob("*/html"))
    line("next", "co3d lab" if runs else "co3d quick, then co3d reproduce" if weights else
         "co3d train x3d_mini")  # fmt: skip


def _found(folder: Path) -> str:
    return f"{folder}{'' if folder.is_dir() else '  (not there yet)'}"


for command in (
    *(notebooks.reproduce, notebooks.update, notebooks.lab, notebooks.quick),
    *(stream.stream, evaluate.evaluate, bench.bench, models.models, train.train),
    *(convert.convert, download.download, verify.verify),
):
    cli.add_command(command)


if __name__ == "__main__":
    main()

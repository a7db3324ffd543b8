"""The command line: `co3d` or `python -m co3d`; each command imports what it needs."""

import os
import sys
from pathlib import Path

import click

from . import paths

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


ONLY = click.option("--only", multiple=True, metavar="NN", help="Notebooks that begin with NN.")


@cli.command()
@click.option("--profile", default="embedded", show_default=True, help="notebooks/<profile>.yml")
@ONLY
@click.option("-p", "pairs", nargs=2, multiple=True, metavar="NAME VALUE", help="A parameter.")
def reproduce(profile: str, only: tuple[str, ...], pairs: tuple[tuple[str, str], ...]) -> None:
    """Run the notebooks into runs/ and compare with the committed results."""
    import yaml

    from .report import notebooks

    try:
        parameters = {name: yaml.safe_load(value) for name, value in pairs}
    except yaml.YAMLError:
        raise ValueError(f"expected -p NAME VALUE with plain values, given {pairs}") from None
    notebooks.reproduce(profile, only, parameters)


@cli.command()
@ONLY
def update(only: tuple[str, ...]) -> None:
    """Run the notebooks and refresh committed results, figures and outputs."""
    from .report import notebooks

    run_dir = notebooks.update(only)
    click.echo(f"refreshed results/, figures/ and notebooks/ from {run_dir}")


@cli.command(context_settings={**HELP, "ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def lab(arguments: tuple[str, ...]) -> None:
    """Open JupyterLab on the notebooks; ARGUMENTS go to JupyterLab."""
    folder = str(paths.repo_root() / "notebooks")
    command = [sys.executable, "-m", "jupyterlab", folder, *arguments]
    os.execv(sys.executable, command)


@cli.command()
def quick() -> int:
    """One figure, and one check that a stream equals its clip net."""
    import pandas as pd

    from . import Stream, load
    from .data import synthetic
    from .report import plots, style

    model, transform = load("cox3d_mini", "synthetic-kinetics")
    video = synthetic.dataset("test", limit=1).videos[0]
    clip = transform(synthetic.decoded(video))[None]
    stream, span = Stream(model), model.receptive_field
    for n in range(clip.shape[2]):
        by_frame = stream(clip[:, :, n])
    by_clip = model(clip[:, :, -span:], pad=False).detach()
    difference = float((by_frame - by_clip).abs().max() / by_clip.abs().max())
    click.echo(f"cox3d_mini on a generated video of {clip.shape[2]} frames ({video.label}):")
    click.echo(f"last frame of the stream against the net on the last {span} frames as one clip,")
    click.echo(f"difference {difference:.1e} of the largest logit (tolerance 1e-04)")
    click.echo(f"match: {difference <= 1e-4}")

    paper = paths.repo_root() / "results" / "paper"
    tables = ("kinetics400_published", "kinetics400_context_published")
    figure = plots.published_accuracy_vs_macs(*(pd.read_csv(paper / f"{t}.csv") for t in tables))
    png = style.save(figure, "published_accuracy_vs_macs", paths.logs_path() / "quick")
    click.echo(f"figure: {png}")
    return 0 if difference <= 1e-4 else 1


@cli.command()
@click.argument("video")
@click.option("--model", "name", default="cox3d_mini", show_default=True)
@click.option("--weights", help="kinetics400, or a file (default: what comes with co3d).")
@click.option("--window", type=int, help="Span of the running average in frames.")
@click.option("--fps", type=float, help="Frames per second to feed (default: the model's own).")
@click.option("--limit-seconds", type=float, help="Stop after so many seconds of video.")
@click.option("--csv", "table", type=click.Path(path_type=Path), help="Write a row per prediction.")
@click.option("--device", default="cpu", show_default=True)
def stream(
    video: str,
    name: str,
    weights: str | None,
    window: int | None,
    fps: float | None,
    limit_seconds: float | None,
    table: Path | None,
    device: str,
) -> None:
    """Run a model over VIDEO frame by frame; a file, camera or stream address."""
    from . import load, spec
    from .data.kinetics import KINETICS400_LABELS
    from .data.synthetic import SYNTHETIC_KINETICS_LABELS
    from .data.video import Reader
    from .measure import live
    from .zoo.checkpoints import shipped

    record = spec(name)
    if not record.continual:
        raise ValueError(f"{name} needs whole clips; co{name} runs the same weights on a stream")
    if not weights and not shipped(name):
        raise ValueError(f"no weights come with {name}: give --weights kinetics400 or a file")
    if table and table.resolve() == Path(video).resolve():
        raise ValueError(f"the table would replace the video {video}: name another file")
    labels = KINETICS400_LABELS
    if record.num_classes == len(SYNTHETIC_KINETICS_LABELS):
        labels = SYNTHETIC_KINETICS_LABELS
    known = record.checkpoint(weights or "")
    if known and known.num_classes != len(labels):
        raise ValueError(
            f"co3d stream knows no names for the {known.num_classes} classes of {weights}"
        )
    model, transform = load(name, weights or next(iter(shipped(name))), window)
    try:
        model = model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {device!r} cannot be used: {error}".splitlines()[0]) from None
    fps = record.native_fps if fps is None else fps
    if not fps > 0:
        raise ValueError(f"fps must be above 0, not {fps:g}")
    with Reader(video) as reader:
        if fps != record.native_fps:
            click.echo(f"{name} was trained at {record.native_fps:g} frames per second; fed at "
                       f"{fps:g} it may be less accurate", err=True)  # fmt: skip
        if len(labels) < 400 and paths.cache_path() not in Path(video).absolute().parents:
            click.echo(
                f"{name} knows only {len(labels)} synthetic motions; for real classes: "
                "co3d stream VIDEO --model cox3d_m --weights kinetics400",
                err=True,
            )
        live.watch(
            *(reader, model, transform, labels),
            fps=fps,
            limit_s=limit_seconds,
            table=table,
        )


@cli.command()
@click.argument("names", metavar="[MODEL]...", nargs=-1)
@click.option("--window", type=int, help="Frames of the running average (default: native).")
def models(names: tuple[str, ...], window: int | None) -> int:
    """Parameters, cost and stream constants of MODELs (default: all).

    MACs are multiply-accumulates of a clip, of the largest step within a period, and the mean per
    frame. RF, padding and warm-up are in frames; the first output comes at that frame, and so
    many seconds after the start at the model's native rate. FLOPs are counted in the paper's way,
    slips included, and compared with its table, which prints two decimals in G; "once" counts every
    operation once.
    """
    from . import list_models, spec
    from .measure import sizes

    records = [spec(name) for name in names or list_models()]
    click.echo(sizes.HEAD)
    refused = 0
    for record in records:
        lengths = sorted({record.frames, *(p.frames for p in record.published)} - {None})
        for frames in [None] if record.continual else lengths:
            try:
                chosen = window if record.continual else None
                row = sizes.row(record.name, window=chosen, frames=frames)
            except ValueError as error:
                click.echo(f"co3d: {record.name}: {error}", err=True)
                refused += 1
                continue
            click.echo(sizes.line(row, record.native_fps))
    return 2 if refused else 0


@cli.command()
@click.argument("dataset", type=click.Choice(["synthetic-kinetics"]))
@click.option("--split", default="test", show_default=True,
              type=click.Choice(["train", "val", "test"]))  # fmt: skip
@click.option("--window", "windows", type=int, multiple=True, default=(16, 32, 64),
              show_default=True, help="Frames of the running average.")  # fmt: skip
@click.option("--limit", default=0, show_default=True, type=click.IntRange(min=0),
              help="First so many videos; 0 is all.")  # fmt: skip
@click.option("--csv", "table", type=click.Path(path_type=Path), help="Also write the rows here.")
def evaluate(
    dataset: str, split: str, windows: tuple[int, ...], limit: int, table: Path | None
) -> None:
    """Accuracy of x3d_mini on clips, cox3d_mini on streams, and the control over equal frames."""
    import pandas as pd

    from . import load
    from .data import synthetic
    from .measure import accuracy

    if table and (table.is_dir() or not table.parent.is_dir()):
        raise ValueError(f"cannot write {table}: name a file in an existing folder")
    regular, transform = load("x3d_mini", dataset)
    streams = [load("cox3d_mini", dataset, window=window)[0] for window in windows]
    readings = accuracy.readings(regular, streams)
    data = synthetic.dataset(split, limit=limit or None)
    fps = regular.spec.native_fps
    rows = pd.DataFrame(accuracy.evaluate(readings, data, transform, fps, limit=limit))
    shown = ["model", "mode", "window", "frames", "views", "n_expected", "n_scored"]
    shown += ["top1", "ci_low", "ci_high", "macs_per_prediction"]
    click.echo(rows[shown].to_string(index=False, float_format=lambda x: f"{x:.1f}", na_rep=""))
    if table:
        part = table.with_name(f"{table.name}.part")
        rows.to_csv(part, index=False)
        part.replace(table)


@cli.command()
@click.argument("name", metavar="MODEL")
@click.option("--seed", default=0, show_default=True)
@click.option("--epochs", type=click.IntRange(min=1),
              help="Default: as for the weights that come with co3d.")  # fmt: skip
@click.option("--limit", type=click.IntRange(min=1), help="Videos per split, for a trial.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder (default: among the runs).")
def train(name: str, seed: int, epochs: int | None, limit: int | None, out: Path | None) -> None:
    """Train a mini MODEL on synthetic-kinetics; a run that was stopped goes on where it was."""
    from dataclasses import replace

    from .train import Recipe, train

    recipe = Recipe() if epochs is None else replace(Recipe(), epochs=epochs)
    folder = out or paths.logs_path() / "train" / f"{name}-{seed}"
    curve = train(name, folder, recipe=recipe, seed=seed, limit=limit)
    click.echo(f"{folder / 'weights.safetensors'}: validation top-1 {curve[-1]['top1']:.1f} %")


@cli.command()
@click.argument("path", metavar="IN", type=click.Path(path_type=Path))
@click.argument("out", metavar="OUT.safetensors", type=click.Path(path_type=Path))
@click.option("--model", "name", required=True, metavar="NAME", help="See co3d models.")
@click.option(
    "--num-classes",
    type=click.IntRange(min=1),
    help="Default: as published with that training data.",
)
@click.option(
    "--source",
    metavar="TEXT",
    help="Where IN is from (default: as known of a file in the cache, else its name).",
)
@click.option("--training-data", metavar="TEXT", help="Such as kinetics400.")
@click.option("--licence", metavar="TEXT", help="Such as Apache-2.0.")
def convert(
    path: Path,
    out: Path,
    name: str,
    num_classes: int | None,
    source: str | None,
    training_data: str | None,
    licence: str | None,
) -> None:
    """Write the weights file IN, of PySlowFast, PyTorchVideo, torchvision or Caffe2, as ours."""
    from .zoo import checkpoints

    origin = {"source": source, "training_data": training_data, "licence": licence}
    model = checkpoints.convert(path, out, name, num_classes, **origin)
    weights = model.weights
    facts = {
        "model": f"{model.spec.weights} and co{model.spec.weights}",
        "dialect": weights.dialect,
        "keys": f"{len(model.state_dict())}, {model.classifier.out_features} classes",
        "source": weights.source,
        "trained on": weights.training_data or "not said",
        "licence": weights.licence or "not said",
        "sha256 of IN": weights.sha256,
        "sha256 of OUT": checkpoints.sha256(out),
    }
    for fact, text in (*facts.items(), *(("note", note) for note in weights.notes)):
        click.echo(f"{fact:<15}{text}")


@cli.group()
def download() -> None:
    """Fetch what is published elsewhere."""


@download.command()
@click.argument("names", metavar="[MODEL]...", nargs=-1)
@click.option("--data", help="Only the weights of this training data, such as charades.")
@click.option("--sha256", help="What the file must have; for one file.")
@click.option("--check", is_flag=True, help="Only ask every address whether it answers.")
def weights(names: tuple[str, ...], data: str | None, sha256: str | None, check: bool) -> int:
    """Fetch the published weights of MODELs (default: all) into the cache, or resume.

    The first file of a name that fits its model is pinned by its sha256 in weights.lock.json
    there; ever after it must be the same. A file that is there is verified.
    """
    import re

    from .zoo import downloads, web

    chosen, failed = downloads.published(names, data), 0
    if sha256 is not None and check:
        raise ValueError("--check reads no file: leave --sha256 away")
    if sha256 is not None and (len(chosen) != 1 or not re.fullmatch("(?i)[0-9a-f]{64}", sha256)):
        raise ValueError(
            f"expected --sha256 with 64 hexadecimal digits and one file, given {sha256!r} and "
            f"{len(chosen)} files"
        )
    for record, one in chosen:
        title = f"{record.name:<18} {one.training_data:<12}"
        try:
            if check:
                size, where = web.size(one.url, one.mebibytes), one.url
            else:
                where = downloads.fetch(record, one, sha256 or "")
                size = where.stat().st_size
            click.echo(f"{title} {'answers' if size is None else f'{size:,} bytes':>17}  {where}")
        except (ValueError, OSError) as error:
            failed = 1
            click.echo(f"co3d: {record.name} {one.training_data}: {error}", err=True)
    return failed


if __name__ == "__main__":
    main()

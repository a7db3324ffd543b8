"""co3d reproduce, update, lab, quick: the notebooks and their figures."""

import os
import sys

import click

from .. import paths

ONLY = click.option("--only", multiple=True, metavar="NN", help="Notebooks that begin with NN.")


@click.command()
@click.option("--profile", default="embedded", show_default=True, help="notebooks/<profile>.yml")
@ONLY
@click.option("-p", "pairs", nargs=2, multiple=True, metavar="NAME VALUE", help="A parameter.")
def reproduce(profile: str, only: tuple[str, ...], pairs: tuple[tuple[str, str], ...]) -> None:
    """Run the notebooks into runs/ and compare with the committed results."""
    import yaml

    from ..report import notebooks

    try:
        parameters = {name: yaml.safe_load(value) for name, value in pairs}
    except yaml.YAMLError:
        raise ValueError(f"expected -p NAME VALUE with plain values, given {pairs}") from None
    notebooks.reproduce(profile, only, parameters)


@click.command()
@ONLY
def update(only: tuple[str, ...]) -> None:
    """Run the notebooks and refresh committed results, figures and outputs."""
    from ..report import notebooks

    run_dir = notebooks.update(only)
    click.echo(f"refreshed results/, figures/ and notebooks/ from {run_dir}")


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def lab(arguments: tuple[str, ...]) -> None:
    """Open JupyterLab on the notebooks; ARGUMENTS go to JupyterLab."""
    folder = str(paths.repo_root() / "notebooks")
    command = [sys.executable, "-m", "jupyterlab", folder, *arguments]
    os.execv(sys.executable, command)


@click.command()
def quick() -> int:
    """One figure, and one check that a stream equals the same continual net run on a clip."""
    from .. import Stream, load
    from ..data import synthetic
    from ..report import plots, read, save

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

    rows = read("accuracy").query("dataset == 'synthetic-kinetics' and split == 'test'")
    figure = plots.accuracy_vs_macs(rows)
    png = save(figure, "synthetic_accuracy_vs_macs", paths.logs_path() / "quick")
    click.echo(f"figure: {png}")
    return 0 if difference <= 1e-4 else 1

"""co3d train: weights of a model from videos."""

from pathlib import Path

import click

from .. import paths


@click.command()
@click.argument("name", metavar="MODEL")
@click.option("--seed", default=0, show_default=True)
@click.option("--epochs", type=click.IntRange(min=1),
              help="Default: as for the weights that come with co3d.")  # fmt: skip
@click.option("--limit", type=click.IntRange(min=1), help="Videos per split, for a trial.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder (default: among the runs).")
def train(name: str, seed: int, epochs: int | None, limit: int | None, out: Path | None) -> None:
    """Train a mini MODEL on synthetic-kinetics; a run that was stopped goes on where it was."""
    from dataclasses import replace

    from ..train import Recipe, train

    recipe = Recipe() if epochs is None else replace(Recipe(), epochs=epochs)
    folder = out or paths.logs_path() / "train" / f"{name}-{seed}"
    curve = train(name, folder, recipe=recipe, seed=seed, limit=limit)
    click.echo(f"{folder / 'weights.safetensors'}: validation top-1 {curve[-1]['top1']:.1f} %")

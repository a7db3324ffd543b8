"""co3d train: weights of a model from videos."""

from pathlib import Path

import click

from ..train import RECIPES


@click.command()
@click.argument("name", metavar="MODEL")
@click.argument("data", default="synthetic-kinetics")
@click.option("--from", "start", help="Start from these weights with a new head (as in co3d.load).")
@click.option("--freeze", is_flag=True, help="Train only the classifier; needs --from.")
@click.option("--recipe", type=click.Choice(list(RECIPES)),
              help="Default: that of the weights that come with co3d. The slow-* recipes are the "
                   "published ones, for batches of 64 clips.")  # fmt: skip
@click.option("--epochs", type=click.IntRange(min=1), help="Default: from the recipe.")
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    help="Clips per step (default: from the recipe); scales the learning rate.",
)
@click.option("--seed", default=0, show_default=True)
@click.option("--limit", type=click.IntRange(min=1), help="Videos per split, for a trial.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Folder (default: among the runs).")
@click.option("--licence", default="", help="Licence of the weights, written into their file.")
def train(
    name: str,
    data: str,
    start: str | None,
    freeze: bool,
    recipe: str | None,
    epochs: int | None,
    batch: int | None,
    seed: int,
    limit: int | None,
    device: str,
    out: Path | None,
    licence: str,
) -> None:
    """Train MODEL on DATA. A stopped run goes on where it was.

    DATA is synthetic-kinetics (default), synthetic-charades, kinetics400, charades, or a folder
    CLASS/VIDEO or {train,val}/CLASS/VIDEO. Clips are centre crops, without random scaling or
    mirroring.
    """
    from dataclasses import replace

    from ..train import reached, recipe_for, run_folder, train
    from .options import check_device

    check_device(device)
    chosen = RECIPES[recipe or recipe_for(data)]
    chosen = chosen.with_batch(batch) if batch else chosen
    chosen = replace(chosen, epochs=epochs) if epochs else chosen
    folder = out or run_folder(name, data, seed, limit)
    # The command is the origin of the weights; paths of this machine stay out of it.
    words = ["co3d train", name, *([] if data == "synthetic-kinetics" else [Path(data).name])]
    words += ["--from", Path(start).name] if start else []
    words += ["--freeze"] if freeze else []
    words += ["--recipe", recipe] if recipe else []
    curve = train(
        *(name, data, folder),
        start=start,
        freeze=freeze,
        recipe=chosen,
        seed=seed,
        limit=limit,
        source=" ".join([*words, "--seed", str(seed)]),
        licence=licence,
        device=device,
    )
    click.echo(f"{folder / 'weights.safetensors'}: {reached(curve)}")

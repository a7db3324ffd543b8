"""co3d convert: any published layout of weights to ours."""

from pathlib import Path

import click


@click.command()
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
@click.option("--half", is_flag=True, help="Round kernels and matrices to float16, half the size.")
def convert(
    path: Path,
    out: Path,
    name: str,
    num_classes: int | None,
    source: str | None,
    training_data: str | None,
    licence: str | None,
    half: bool,
) -> None:
    """Write the weights file IN, of PySlowFast, PyTorchVideo, torchvision or Caffe2, as ours."""
    from ..zoo.checkpoints import sha256
    from ..zoo.conversion import convert

    origin = {"source": source, "training_data": training_data, "licence": licence}
    model = convert(path, out, name, num_classes, half=half, **origin)
    weights = model.weights
    facts = {
        "model": f"{model.spec.weights} and co{model.spec.weights}",
        "dialect": weights.dialect,
        "keys": f"{len(model.state_dict())}, {model.classifier.out_features} classes",
        "source": weights.source,
        "trained on": weights.training_data or "not said",
        "licence": weights.licence or "not said",
        "sha256 of IN": weights.sha256,
        "sha256 of OUT": sha256(out),
    }
    for fact, text in (*facts.items(), *(("note", note) for note in weights.notes)):
        click.echo(f"{fact:<15}{text}")

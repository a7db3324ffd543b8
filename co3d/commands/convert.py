"""co3d convert: any published layout of weights to ours."""

from dataclasses import asdict
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
    from ..zoo import create, downloads, spec
    from ..zoo.checkpoints import load_into, save, sha256

    if out.suffix != ".safetensors" or out.is_dir():
        raise ValueError(f"expected an output file that ends in .safetensors, given {out}")
    if out.resolve() == path.resolve() or (out.exists() and path.exists() and out.samefile(path)):
        raise ValueError(f"expected another file for the output, given the input {path} itself")
    record = spec(spec(name).weights)
    known = record.checkpoint(training_data or "")
    for cached in record.checkpoints:
        if path.is_file() and downloads.place(record, cached).resolve() == path.resolve():
            downloads.fetch(record, cached)  # verifies it
            source, licence, known = source or cached.url, licence or cached.licence, cached
            training_data = training_data or cached.training_data
    model = create(record.name, num_classes=num_classes or (known.num_classes if known else None))
    weights = load_into(model, path, source=source, training_data=training_data, licence=licence)
    origin = asdict(weights)
    origin["source_sha256"] = weights.source_sha256 or weights.sha256
    del origin["sha256"], origin["classes"]
    save(model, out, half=half, **origin)
    facts = {
        "model": f"{record.name} and co{record.name}",
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

"""co3d export: a model as files for ONNX Runtime or OpenVINO."""

from pathlib import Path

import click


@click.command()
@click.argument("name", metavar="MODEL")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE",
              help="FILE.onnx or FILE.xml (default: MODEL in the current folder).")  # fmt: skip
@click.option("--format", type=click.Choice(["onnx", "openvino"]),
              help="Default: from the suffix of FILE, else onnx.")  # fmt: skip
@click.option("--weights", help="Published weights such as kinetics400, a file, or none for random "
              "ones, to time (default: those that come with co3d).")  # fmt: skip
@click.option("--window", type=int, help="Frames of the running average.")
@click.option("--dense", is_flag=True, help="Predict on every frame despite temporal strides.")
@click.option("--precision", type=click.Choice(["float32", "bfloat16"]), default="float32",
              show_default=True)  # fmt: skip
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True,
              help="Streams, or clips, at a time.")  # fmt: skip
@click.option("--size", type=click.IntRange(min=1), help="Pixels (default: the model's own).")
@click.option("--check/--no-check", default=True, show_default=True,
              help="Compare the files with torch up to the first predictions.")  # fmt: skip
def export(
    name: str,
    out: Path | None,
    format: str | None,
    weights: str | None,
    window: int | None,
    dense: bool,
    precision: str,
    batch: int,
    size: int | None,
    check: bool,
) -> None:
    """Write MODEL as a file for inference on a CPU without torch's operators.

    A continual model becomes its step; with temporal strides, one graph holds the steps of all
    phases. Any other model becomes a function of clips. Weights are folded and the input shape is
    fixed. co3d.deploy.Runner runs the files.
    """
    import torch

    from .. import create, deploy, transform_for
    from ..measure import equivalence
    from ..measure.live import class_names
    from .options import loaded

    path = out or Path(f"{name}{deploy.FORMATS[format or 'onnx']}")
    if format and path.suffix != deploy.FORMATS[format]:
        raise ValueError(f"expected a file {deploy.FORMATS[format]} of {format}, given {path.name}")
    if weights == "none":
        model, labels = create(name, window, dense=dense), ()
        transform = transform_for(name)
    else:
        model, transform = loaded(name, weights, window=window, dense=dense)
        labels = class_names(model)
    size = size or model.spec.image_size
    clip = () if model.spec.continual else (model.spec.frames,)
    example = torch.zeros(batch, 3, *clip, size, size)
    options = {"precision": precision, "transform": transform, "labels": labels}
    for file in deploy.export(model, path, example, **options):
        click.echo(f"{file}  {file.stat().st_size / 1e6:.1f} MB")
    if check:
        away = equivalence.difference(model, deploy.Runner(path))
        if not away <= equivalence.EXPORTED[precision]:
            raise ValueError(f"{path} differs from {name} by {away:.1e} of its largest logit")
        click.echo(f"equals {name} to {away:.1e} of its largest logit")

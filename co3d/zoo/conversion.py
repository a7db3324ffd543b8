"""Weights files of any dialect, written as ours."""

from pathlib import Path

from torch import nn

from . import downloads
from .build import create
from .checkpoints import load_into, save
from .specs import Checkpoint, Spec, spec


def convert(
    path: Path,
    out: Path,
    name: str,
    num_classes: int | None = None,
    *,
    source: str | None = None,
    training_data: str | None = None,
    licence: str | None = None,
    half: bool = False,
) -> nn.Module:
    """Writes a weights file of any dialect as one of ours; the model comes with its `weights`.

    Args:
        num_classes: default: of the published weights of that `training_data`, else the model's.
        source, training_data, licence: default: what is known of a file in the cache of published
            weights, which is verified, else what the file says.
        half: as in `save`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if `out` is no other .safetensors file, or as `load_into`.
    """
    path, out = Path(path), Path(out)
    if out.suffix != ".safetensors" or out.is_dir():
        raise ValueError(f"expected an output file that ends in .safetensors, given {out}")
    if out.resolve() == path.resolve() or (out.exists() and path.exists() and out.samefile(path)):
        raise ValueError(f"expected another file for the output, given the input {path} itself")
    record = spec(spec(name).weights)
    cached = _cached(record, path)
    if cached:
        source, licence = source or cached.url, licence or cached.licence
        training_data = training_data or cached.training_data
    known = cached or record.checkpoint(training_data or "")
    if num_classes is None and known:
        num_classes = known.num_classes
    model = create(record.name, num_classes=num_classes)
    weights = load_into(model, path, source=source, training_data=training_data, licence=licence)
    save(
        *(model, out),
        training_data=weights.training_data,
        source=weights.source,
        licence=weights.licence,
        dialect=weights.dialect,
        notes=weights.notes,
        source_sha256=weights.source_sha256 or weights.sha256,
        scores=weights.scores,
        channel_order=weights.channel_order,
        labels=weights.labels,
        half=half,
    )
    return model


def _cached(record: Spec, path: Path) -> Checkpoint | None:
    """The published weights of a model that a file in the cache is, verified."""
    for known in record.checkpoints:
        if path.is_file() and downloads.place(record, known).resolve() == path.resolve():
            downloads.fetch(record, known)
            return known
    return None

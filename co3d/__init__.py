"""Continual 3D convolutional networks: the weights of a clip net, run frame by frame.

A companion to "Continual 3D Convolutional Neural Networks for Real-time Processing of Videos"
(ECCV 2022, https://arxiv.org/abs/2106.00050).
"""

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from .data.transforms import Transform
from .deploy import optimize
from .nn import ClipNet, Stream, StreamNet, clone, continual, stack, unstack
from .zoo import Spec, create, downloads, list_models, spec
from .zoo.checkpoints import load_into, scores, shipped

__version__ = "0.1.0"
__all__ = [
    "Spec",
    "Stream",
    "Transform",
    "clone",
    "continual",
    "create",
    "list_models",
    "load",
    "optimize",
    "report",
    "scores",
    "spec",
    "stack",
    "transform_for",
    "unstack",
    "watch",
]

SUFFIXES = (".pyth", ".pkl", ".pth", ".pt", ".safetensors")


def load(
    name: str,
    weights: str | Path,
    window: int | None = None,
    num_classes: int | None = None,
    *,
    dense: bool = False,
    new_head: bool = False,
) -> tuple[ClipNet | StreamNet, Transform]:
    """A model with trained weights, in evaluation mode, and the input transform that they expect.

    Args:
        name: one of `list_models()`; a continual net takes the weights of its regular twin.
        weights: the training data of published weights ("kinetics400", "charades"), which are
            downloaded on first use and verified ever after; or of weights that come with the
            package ("synthetic-kinetics", "synthetic-charades"; "synthetic-kinetics:1" has another
            seed); or a file in any published layout.
        num_classes: default: those of published weights, else of the model. A file with as many
            classes as other published weights of the model is taken for those;
            `model.weights.notes` says so.
        window, dense: as in `create`.
        new_head: whether to keep all but the classifier, for any number of classes or none.

    Returns:
        The model, with `model.weights` telling their origin, and the transform from uint8 RGB
        frames (T, H, W, 3) to a clip (3, T, S, S).

    Raises:
        FileNotFoundError: if there is no such file.
        ConnectionError: if published weights cannot be downloaded.
        ValueError: if nothing of that name is known, or the file is not a whole one of this model
            or not the one that was there before.
    """
    record, here, weights = spec(name), shipped(name), str(weights)
    known, path = record.checkpoint(weights), here.get(weights, Path(weights))
    if not (known or weights in here or path.suffix in SUFFIXES or path.is_file()):
        names = ", ".join([*here, *(c.training_data for c in record.checkpoints)]) or "none"
        raise ValueError(
            f"expected weights that are known of {name} ({names}) or a file {', '.join(SUFFIXES)}, "
            f"given {'the folder ' if path.is_dir() else ''}{weights!r}"
        )
    if known and num_classes is None:
        num_classes = known.num_classes
    if known and not new_head and num_classes not in (0, known.num_classes):
        raise ValueError(
            f"expected {known.num_classes} classes as {weights} has, given num_classes="
            f"{num_classes}: leave it out, or ask for a new head"
        )
    model, origin = create(name, window, num_classes, dense=dense), {}
    if known:
        path = downloads.fetch(record, known)
        origin = {"source": known.url, "licence": known.licence, "training_data": weights}
    load_into(model, path, new_head=new_head, **origin)
    return model, replace(transform_for(name), channel_order=model.weights.channel_order)


def transform_for(name: str, training_data: str = "") -> Transform:
    """The input transform of a model: its image size, mean, std and channel order.

    The order is that of the published weights of that training data, if there are any.
    """
    record = spec(name)
    order = (record.checkpoint(training_data) or record).channel_order
    return Transform(record.image_size, record.mean, record.std, order)


def __getattr__(name: str) -> Any:
    """`co3d.report` and `co3d.watch`, on first use: their imports take time."""
    if name == "report":
        return importlib.import_module(".report", __name__)
    if name == "watch":
        return importlib.import_module(".measure.live", __name__).Watch
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

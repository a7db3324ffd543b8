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
from .zoo.specs import Checkpoint

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
        weights: the data set that published weights were trained on ("kinetics400", "charades"),
            downloaded on first use and verified ever after; or that of weights that come with the
            package ("synthetic-kinetics", "synthetic-charades"; of another seed than 0
            "synthetic-kinetics:1"); or a file in any of the published layouts.
        num_classes: default: those of the weights if they are named, else of the model. A file
            with the classes of other published weights of the model is taken for those, which
            `model.weights.notes` says.
        window, dense: as in `create`.
        new_head: whether to keep all but the classifier, for any number of classes or none.

    Returns:
        The model, with `model.weights` telling their origin, and the transform from uint8 RGB
        frames (T, H, W, 3) to a clip (3, T, S, S).

    Raises:
        FileNotFoundError: if there is no such file.
        ConnectionError: if published weights are not there yet and cannot be downloaded.
        ValueError: if the file is not a whole one of this model, is not the one that was there
            before, or nothing of that name is known.
    """
    known, path = _known(name, weights)
    if known and not new_head and num_classes not in (None, 0, known.num_classes):
        raise ValueError(
            f"expected {known.num_classes} classes as {weights} has, given num_classes="
            f"{num_classes}: leave it out, or ask for a new head"
        )
    classes = known.num_classes if known and num_classes is None else num_classes
    model = create(name, window, classes, dense=dense)
    origin = {}
    if known:
        path = downloads.fetch(model.spec, known)
        origin = {"source": known.url, "licence": known.licence}
        origin["training_data"] = known.training_data
    load_into(model, path, new_head=new_head, **origin)
    return model, replace(transform_for(name), channel_order=model.weights.channel_order)


def transform_for(name: str, training_data: str = "") -> Transform:
    """The input transform of a model: its image size, mean, std and channel order.

    The order is that of the published weights of that training data, if there are such.
    """
    record = spec(name)
    known = record.checkpoint(training_data)
    order = known.channel_order if known else record.channel_order
    return Transform(record.image_size, record.mean, record.std, order)


def _known(name: str, weights: str | Path) -> tuple[Checkpoint | None, Path]:
    """Published weights of that name, else a file."""
    here, record = shipped(name), spec(name)
    if str(weights) in here:
        return None, here[str(weights)]
    if known := record.checkpoint(str(weights)):
        return known, downloads.place(record, known)
    path = Path(weights)
    if path.suffix in SUFFIXES or path.is_file():
        return None, path
    names = ", ".join([*here, *(w.training_data for w in record.checkpoints)]) or "none"
    raise ValueError(
        f"expected weights that are known of {name} ({names}) or a file {', '.join(SUFFIXES)}, "
        f"given {'the folder ' if path.is_dir() else ''}{str(weights)!r}"
    )


def __getattr__(name: str) -> Any:
    """`co3d.report` and `co3d.watch`, when they are first asked for: their imports take time."""
    if name == "report":
        return importlib.import_module(".report", __name__)
    if name == "watch":
        return importlib.import_module(".measure.live", __name__).Watch
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

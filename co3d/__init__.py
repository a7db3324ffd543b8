"""Continual 3D convolutional networks: the weights of a clip net, run frame by frame.

A companion to "Continual 3D Convolutional Neural Networks for Real-time Processing of Videos"
(ECCV 2022, https://arxiv.org/abs/2106.00050).
"""

import importlib
from pathlib import Path
from types import ModuleType

from .data.transforms import Transform
from .nn import ClipNet, Stream, StreamNet, clone, continual, stack, unstack
from .zoo import Spec, create, list_models, spec
from .zoo.checkpoints import load_into, shipped

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
    "report",
    "spec",
    "stack",
    "transform_for",
    "unstack",
]


def load(
    name: str,
    weights: str | Path,
    window: int | None = None,
    num_classes: int | None = None,
    *,
    gate: str | None = None,
    dense: bool = False,
) -> tuple[ClipNet | StreamNet, Transform]:
    """A model with trained weights, in evaluation mode, and the input transform that they expect.

    Args:
        name: one of `list_models()`; a continual net takes the weights of its regular twin.
        weights: a .safetensors file, or the data set of weights that come with the package
            ("synthetic-kinetics" for the minis).
        window, num_classes, gate, dense: as in `create`.

    Returns:
        The model, with `model.weights` telling their origin, and the transform from uint8 RGB
        frames (T, H, W, 3) to a clip (3, T, S, S).

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is not a whole one of this model, or nothing of that name is known.
    """
    model = create(name, window, num_classes, gate=gate, dense=dense)
    load_into(model, _weights_file(name, weights))
    return model, transform_for(name)


def transform_for(name: str) -> Transform:
    """The input transform of a model: its image size, mean, std and channel order."""
    record = spec(name)
    return Transform(record.image_size, record.mean, record.std, record.channel_order)


def _weights_file(name: str, weights: str | Path) -> Path:
    known = shipped(name)
    if str(weights) in known:
        return known[str(weights)]
    path = Path(weights)
    if path.suffix == ".safetensors":
        return path
    have = ", ".join(known) or "none"
    raise ValueError(
        f"expected a .safetensors file or weights that come with {name} ({have}), given "
        f"{str(weights)!r}"
    )


def __getattr__(name: str) -> ModuleType:
    """`co3d.report`, when it is first asked for: matplotlib and pandas take their time."""
    if name == "report":
        return importlib.import_module(".report", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""The training loop."""

import hashlib
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from .. import load, transform_for
from ..data.dataset import Dataset
from ..data.transforms import Transform
from ..nn import ClipNet
from ..progress import bar
from ..zoo import checkpoints, create, spec
from .clips import Clips
from .recipes import RECIPES, Recipe, recipe_for
from .run import Run
from .splits import splits
from .validation import validate

METRICS = {False: "top1", True: "map_common"}  # by whether videos have several classes


def train(
    name: str,
    data: str | Path,
    folder: Path,
    *,
    start: str | Path | None = None,
    freeze: bool = False,
    recipe: Recipe | None = None,
    seed: int = 0,
    limit: int | None = None,
    source: str = "",
    licence: str = "",
    device: str = "cpu",
    progress: bool = True,
) -> list[dict]:
    """Trains a clip net and writes `folder`/weights.safetensors.

    What is made small is the cross entropy, or, where videos have several classes, the binary
    cross entropy against the classes that are shown during the clip.

    Args:
        name: a regular model of the zoo.
        data: as in `open_set`; `splits` says what trains and what validates.
        folder: of this run; holds the checkpoint `last.pt`. A run of the same settings that was
            stopped goes on after its last whole epoch, with the same result as one in one go.
        start: weights to begin from, with a new head; None is `recipe.start`, "" none.
        freeze: whether only the classifier is trained; the statistics of the norms stay, too.
        recipe: default: that of `recipe_for`.
        seed: of weights, order and clip positions.
        limit: videos per split, for trials.
        source, licence: to be written into the weights; default: what was trained on what, and for
            the synthetic sets Apache-2.0.
        device: as torch names it; only the CPU gives the same bytes again.
        progress: whether to show bars and a line per epoch.

    Returns:
        A row per epoch: epoch, loss (training), and of the centred clips of the validation videos
        top1 or map_common (per cent; the other is None).

    Raises:
        ValueError: for a continual net (its regular twin has the weights), numbers below 1, a
            frozen body without weights, or a folder that holds a damaged run or one of other
            settings; also as `co3d.load`, `splits` and `Clips`.
        FileNotFoundError: as `co3d.load` and `splits`.
    """
    recipe = recipe or RECIPES[recipe_for(data)]
    start = recipe.start if start is None else start
    _check(name, recipe, limit, freeze, start)
    parts = splits(data, limit)
    torch.manual_seed(seed)
    model, transform, origin = _begin(name, parts[0], start)
    model.to(device).body.requires_grad_(not freeze)
    optimizer = _optimizer(recipe, model)
    settings = {"model": name, "data": parts[0].name, "freeze": freeze, "seed": seed}
    settings |= {"limit": limit, **asdict(recipe), "start": origin}
    run = Run(folder, settings, model, optimizer)
    if len(run.curve) < recipe.epochs:
        training, validation = (Clips(part, spec(name), transform, progress) for part in parts)
        run.notes = training.notes
        for epoch in range(len(run.curve), recipe.epochs):
            loss = _epoch(model, optimizer, training, recipe, [seed, epoch], freeze, progress)
            row = {"epoch": epoch + 1, "loss": loss, "top1": None, "map_common": None}
            run.keep({**row, METRICS[parts[0].multilabel]: validate(model, validation)})
            if progress:
                tqdm.write(f"epoch {epoch + 1}: loss {loss:.3f}, {reached(run.curve)}")
    source = source or f"{name} trained on {parts[0].name} from {Path(start).name or 'scratch'}"
    _save(model, run, parts[0], transform, source, licence)
    return run.curve


def _save(
    model: ClipNet, run: Run, data: Dataset, transform: Transform, source: str, licence: str
) -> None:
    """Writes the weights with all that is known of them."""
    checkpoints.save(
        model,
        run.folder / "weights.safetensors",
        training_data=data.name,
        source=source,
        licence=licence or ("Apache-2.0" if data.name.startswith("synthetic-") else ""),
        notes=run.notes,
        scores="sigmoid" if data.multilabel else "softmax",
        channel_order=transform.channel_order,
        labels=data.labels,
    )


def reached(curve: list[dict]) -> str:
    """The last validation result, for a reader."""
    names = {"top1": "top-1", "map_common": "mAP"}
    found = {name: curve[-1][key] for key, name in names.items() if curve[-1][key] is not None}
    shown = [f"{name} {value:.1f} %" for name, value in found.items()]
    return f"validation {''.join(shown) or 'videos have no classes'}"


def _check(name: str, recipe: Recipe, limit: int | None, freeze: bool, start: str | Path) -> None:
    if spec(name).continual:
        raise ValueError(
            f"expected a regular net, given {name}: train {spec(name).weights}, whose weights it "
            "uses"
        )
    numbers = [recipe.epochs, recipe.batch] + ([] if limit is None else [limit])
    if min(numbers) < 1:
        raise ValueError(
            f"expected epochs, batch and limit of 1 or more, given {', '.join(map(str, numbers))}"
        )
    if freeze and not start:
        raise ValueError("expected weights to begin from where the body is frozen, given none")


def _begin(name: str, data: Dataset, start: str | Path) -> tuple[ClipNet, Transform, str]:
    """A net for the classes of the data, its input transform, and a hash of what it begins from.

    Not that of the file: what it tells beside the weights has no fixed order.
    """
    classes = len(data.labels)
    if not start:
        return create(name, num_classes=classes), transform_for(name), ""
    model, transform = load(name, start, num_classes=classes, new_head=True)
    digest = hashlib.sha256()
    for key, value in model.body.state_dict().items():
        digest.update(key.encode() + value.numpy().tobytes())
    return model, transform, digest.hexdigest()


def _optimizer(recipe: Recipe, model: ClipNet) -> torch.optim.Optimizer:
    """Of the parameters that learn."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decay = recipe.weight_decay
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(learning, recipe.lr, momentum=0.9, weight_decay=decay)
    return torch.optim.AdamW(learning, recipe.lr, weight_decay=decay)


def _epoch(
    model: ClipNet,
    optimizer: torch.optim.Optimizer,
    clips: Clips,
    recipe: Recipe,
    key: list[int],
    freeze: bool,
    progress: bool,
) -> float:
    """One pass over the videos, a random clip of each; returns the mean loss.

    `key` is seed and epoch: all that is random depends on it, so a resumed run draws the same.
    """
    rng, epoch = np.random.default_rng(key), key[1]
    torch.manual_seed(rng.integers(2**31))
    order = rng.permutation(len(clips)).tolist()
    batches = [order[at : at + recipe.batch] for at in range(0, len(order), recipe.batch)]
    model.train(not freeze)
    losses, device = [], model.classifier.weight.device
    for step, picked in enumerate(bar(batches, f"epoch {epoch + 1}", shown=progress)):
        for group in optimizer.param_groups:
            group["lr"] = _rate(recipe, epoch + step / len(batches))
        x, y = clips.batch(picked, [clips.anywhere(n, rng) for n in picked])
        x = x.to(device)
        loss = loss_of(model(x), y.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    return float(np.mean(losses))


def loss_of(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy against class ids (B), or binary against 0 and 1 (B, classes); the mean."""
    if targets.ndim == 1:
        return F.cross_entropy(logits, targets)
    return F.binary_cross_entropy_with_logits(logits, targets)


def _rate(recipe: Recipe, epoch: float) -> float:
    warm = min(1.0, (epoch + 0.01) / max(recipe.warmup_epochs, 0.01))
    return recipe.lr * warm * 0.5 * (1 + math.cos(math.pi * epoch / recipe.epochs))

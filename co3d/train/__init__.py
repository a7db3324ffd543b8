"""Training a clip net: seeded, with a checkpoint after every epoch, resumed where it stopped."""

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from .. import load, transform_for
from ..data.video import VideoError
from ..files import replacing, write
from ..measure import metrics
from ..nn import ClipNet
from ..paths import logs_path
from ..progress import bar
from ..zoo import checkpoints, create, spec
from .clips import Clips, multi_hot, splits

__all__ = [
    "RECIPES",
    "Clips",
    "Recipe",
    "reached",
    "recipe_for",
    "run_folder",
    "splits",
    "train",
    "train_mini",
    "validate",
]


@dataclass(frozen=True)
class Recipe:
    """How to train: a cosine schedule of the learning rate after a linear warm-up.

    Attributes:
        lr: highest learning rate, for batches of `batch` clips.
        optimizer: "adamw", or "sgd" with momentum 0.9.
        start: weights that training begins from, "" for random ones.
    """

    epochs: int = 24
    batch: int = 32
    lr: float = 4e-3
    warmup_epochs: int = 2
    weight_decay: float = 0.05
    optimizer: str = "adamw"
    start: str = ""

    def with_batch(self, batch: int) -> Self:
        """The same for another batch size; scales the learning rate."""
        return replace(self, batch=batch, lr=self.lr * batch / self.batch)

    def optimizer_of(self, model: ClipNet) -> torch.optim.Optimizer:
        """For the parameters of a model that are trained."""
        learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if self.optimizer == "sgd":
            options = {"momentum": 0.9, "weight_decay": self.weight_decay}
            return torch.optim.SGD(learning, self.lr, **options)
        return torch.optim.AdamW(learning, self.lr, weight_decay=self.weight_decay)

    def rate(self, epoch: float) -> float:
        """The learning rate after so many epochs, whole or not."""
        warm = min(1.0, (epoch + 0.01) / max(self.warmup_epochs, 0.01))
        return self.lr * warm * 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))


# The mini recipes made the weights that come with co3d. The slow ones are as published, for 8 GPUs,
# as far as they are known: without warm-up, and without random scaling and mirroring of clips.
_SLOW = Recipe(196, 64, 0.1, warmup_epochs=0, weight_decay=1e-4, optimizer="sgd")
RECIPES = {
    "mini": Recipe(),
    "mini-charades": Recipe(epochs=16, lr=2e-3, start="synthetic-kinetics"),
    "slow-kinetics400": _SLOW,
    "slow-charades": replace(_SLOW, epochs=60, lr=0.25, start="kinetics400"),
}


def recipe_for(data: object) -> str:
    """The name of the default recipe for a data set."""
    return "mini-charades" if str(data) == "synthetic-charades" else "mini"


def run_folder(name: str, data: str | Path, seed: int, limit: int | None = None) -> Path:
    """The folder where a model's training on a data set is kept; trials have their own."""
    trial = f"-first-{limit}" if limit else ""
    return logs_path() / "train" / f"{name}-{Path(data).name}-{seed}{trial}"


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

    The loss is the cross entropy or, for videos with several classes, the binary cross entropy
    against the classes shown during the clip.

    Args:
        name: a regular model of the zoo.
        data, limit: as in `splits`.
        folder: of this run; a stopped one goes on after its last whole epoch, to equal weights.
        start: weights to begin from, with a new head; None is `recipe.start`, "" none.
        freeze: train only the classifier; the statistics of the norms stay, too.
        recipe: default: that of `recipe_for`.
        seed: of weights, order and clip positions.
        source, licence: of the weights; the synthetic sets give Apache-2.0.
        device: as torch names it; only the CPU gives the same bytes again.
        progress: show bars and a line per epoch.

    Returns:
        A row per epoch: epoch, loss of the training, and top1 or map_common of the centred clips of
        the validation videos (per cent; the other is None).

    Raises:
        ValueError: for a continual net, a frozen body without weights, or a folder with a damaged
            run or one of other settings.
        FileNotFoundError, ValueError: as `co3d.load`, `splits` and `Clips`.
    """
    recipe = recipe or RECIPES[recipe_for(data)]
    start = recipe.start if start is None else start
    if spec(name).continual:
        raise ValueError(f"expected a regular net, given {name}: train {spec(name).weights}")
    if freeze and not start:
        raise ValueError("expected weights to begin from where the body is frozen, given none")
    training, validation = splits(data, limit)
    torch.manual_seed(seed)
    if start:
        model, transform = load(name, start, num_classes=len(training.labels), new_head=True)
    else:
        model, transform = create(name, num_classes=len(training.labels)), transform_for(name)
    model.to(device).body.requires_grad_(not freeze)
    optimizer = recipe.optimizer_of(model)
    settings = {"model": name, "data": training.name, "freeze": freeze, "seed": seed}
    settings |= {"limit": limit, **asdict(recipe), "start": model.weights.sha256 if start else ""}
    run = _resume(folder / "last.pt", settings, model, optimizer)
    if len(run["curve"]) < recipe.epochs:
        clips = Clips(training, spec(name), transform, progress)
        held_out = Clips(validation, spec(name), transform, progress)
        _fit(model, optimizer, clips, held_out, recipe, run, folder, progress)
    checkpoints.save(
        model,
        folder / "weights.safetensors",
        training_data=training.name,
        source=source or f"{name} trained on {training.name} from {Path(start).name or 'scratch'}",
        licence=licence or ("Apache-2.0" if training.name.startswith("synthetic-") else ""),
        notes=tuple(run["notes"]),
        scores="sigmoid" if training.multilabel else "softmax",
        channel_order=transform.channel_order,
        labels=training.labels,
    )
    return run["curve"]


def train_mini(name: str, data: str, seed: int = 0, limit: int | None = None) -> list[dict]:
    """Trains a mini model on a synthetic set, as for the weights that come with co3d.

    On synthetic-charades it begins from its own weights of that seed of synthetic-kinetics, which
    have to be trained first. A finished run is not repeated.

    Returns:
        The rows of `train`.
    """
    start, words = None, ""
    if data == "synthetic-charades":
        start = run_folder(name, "synthetic-kinetics", seed, limit) / "weights.safetensors"
        words = f" {data} --from synthetic-kinetics{f':{seed}' if seed else ''}"
    source = f"co3d train {name}{words} --seed {seed}"
    options = {"seed": seed, "limit": limit, "source": source, "progress": False}
    return train(name, data, run_folder(name, data, seed, limit), start=start, **options)


@torch.inference_mode()
def validate(
    model: ClipNet, clips: Clips, shuffle: np.random.Generator | None = None
) -> float | None:
    """Top-1 accuracy on the centred clips in per cent, or for videos with several classes the mean
    average precision against the classes of the video, None if no video has any.

    `shuffle` puts the frames of each clip into random order, which shows what a net can tell
    without motion. Damaged clips are left out.
    """
    logits, targets = [], []
    for n, video in enumerate(clips.videos):
        try:
            x, y = clips.batch([n], [clips.middle(n)])
        except VideoError:  # damaged
            continue
        if shuffle is not None:
            x = x[:, :, torch.from_numpy(shuffle.permutation(x.shape[2]))]
        logits.append(model(x.to(model.classifier.weight.device))[0].cpu())
        targets.append(multi_hot(video.class_ids, y.shape[1]) if clips.data.multilabel else y[0])
    if not logits:
        raise ValueError(f"expected undamaged {clips.data.split} videos, given none")
    logits, targets = torch.stack(logits), torch.stack(targets)
    if clips.data.multilabel:
        return metrics.map_common(logits, targets)
    return 100 * metrics.top_k(logits, targets, 1) / len(targets)


def reached(curve: list[dict]) -> str:
    """The last validation result as text."""
    for key, name in (("top1", "top-1"), ("map_common", "mAP")):
        if curve[-1][key] is not None:
            return f"validation {name} {curve[-1][key]:.1f} %"
    return "validation videos have no classes"


def _resume(
    path: Path, settings: dict, model: ClipNet, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """The settings, curve and notes of a new run, or of the one at `path`, which it restores."""
    if not path.exists():
        return {"settings": settings, "curve": [], "notes": ()}
    try:
        run = torch.load(path, map_location="cpu", weights_only=True)
        weights, moments, before = run.pop("model"), run.pop("optimizer"), run["settings"]
    except Exception as error:  # whatever torch raises for a damaged file
        raise ValueError(f"{path} is not a whole checkpoint: delete it to begin anew") from error
    if before != settings:
        raise ValueError(
            f"{path} belongs to a run of other settings, {before}, expected {settings}: "
            "name another folder, or delete it"
        )
    model.load_state_dict(weights)
    optimizer.load_state_dict(moments)
    return run


def _fit(
    model: ClipNet,
    optimizer: torch.optim.Optimizer,
    clips: Clips,
    held_out: Clips,
    recipe: Recipe,
    run: dict[str, Any],
    folder: Path,
    progress: bool,
) -> None:
    """Trains for the epochs that the run lacks: writes last.pt and curve.json after each one."""
    curve, settings, run["notes"] = run["curve"], run["settings"], clips.notes
    for epoch in range(len(curve), recipe.epochs):
        model.train(not settings["freeze"])
        loss = _epoch(model, optimizer, clips, recipe, [settings["seed"], epoch], progress)
        row = {"epoch": epoch + 1, "loss": loss, "top1": None, "map_common": None}
        metric = "map_common" if clips.data.multilabel else "top1"
        curve.append({**row, metric: validate(model.eval(), held_out)})
        with replacing(folder / "last.pt") as part:
            learned = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save({**run, **learned}, part)
        write(folder / "curve.json", json.dumps(run, indent=1))
        if progress:
            tqdm.write(f"epoch {epoch + 1}: loss {loss:.3f}, {reached(curve)}")


def _epoch(
    model: ClipNet,
    optimizer: torch.optim.Optimizer,
    clips: Clips,
    recipe: Recipe,
    key: list[int],
    progress: bool,
) -> float:
    """One pass over the videos, a random clip of each; returns the mean loss.

    All that is random depends on `key`, seed and epoch, so a resumed run draws the same.
    """
    rng, epoch = np.random.default_rng(key), key[1]
    torch.manual_seed(rng.integers(2**31))
    order = rng.permutation(len(clips.videos)).tolist()
    batches = [order[at : at + recipe.batch] for at in range(0, len(order), recipe.batch)]
    losses, device = [], model.classifier.weight.device
    for step, picked in enumerate(bar(batches, f"epoch {epoch + 1}", shown=progress)):
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate(epoch + step / len(batches))
        x, y = clips.batch(picked, [clips.anywhere(n, rng) for n in picked])
        loss = loss_of(model(x.to(device)), y.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return float(np.mean(losses))


def loss_of(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy against class ids (B), or binary against 0 and 1 (B, classes); the mean."""
    if targets.ndim == 1:
        return F.cross_entropy(logits, targets)
    return F.binary_cross_entropy_with_logits(logits, targets)

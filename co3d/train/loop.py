"""Training a clip net: seeded, with a checkpoint after every epoch, resumed where it stopped."""

import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from . import transform_for
from .data import synthetic
from .data.kinetics import Dataset
from .nn import ClipNet
from .progress import bar
from .zoo import checkpoints, create, spec


@dataclass(frozen=True)
class Recipe:
    """How to train: AdamW with a cosine schedule of the learning rate after a linear warm-up."""

    epochs: int = 24
    batch: int = 32
    lr: float = 4e-3
    warmup_epochs: int = 2
    weight_decay: float = 0.05


class Clips:
    """The videos of a split, decoded once and held as uint8, labelled."""

    def __init__(self, data: Dataset, name: str, progress: bool = True) -> None:
        record = spec(name)
        self.frames, self.transform = record.frames, transform_for(name)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            decoded = pool.map(synthetic.decoded, data.videos)
            self.videos = list(bar(decoded, f"decode {data.split}", len(data.videos), progress))
        self.labels = torch.tensor([video.class_id for video in data.videos])

    def batch(self, picked: list[int], starts: list[int]) -> tuple[Tensor, Tensor]:
        """Clips (B, 3, T, S, S) of the picked videos from the given frames on, and their labels."""
        pairs = zip(picked, starts, strict=True)
        clips = [self.transform(self.videos[n][at : at + self.frames]) for n, at in pairs]
        return torch.stack(clips), self.labels[picked]

    def middle(self, n: int) -> int:
        """First frame of the centred clip of a video."""
        return (len(self.videos[n]) - self.frames) // 2


def train(
    name: str,
    folder: Path,
    *,
    recipe: Recipe | None = None,
    seed: int = 0,
    limit: int | None = None,
    progress: bool = True,
) -> list[dict]:
    """Trains a mini model on synthetic-kinetics and writes `folder`/weights.safetensors.

    Args:
        name: a regular model of the zoo.
        folder: of this run; holds the checkpoint `last.pt`. A run of the same settings that was
            stopped goes on after its last whole epoch, with the same result as one in one go.
        recipe: default `Recipe()`.
        seed: of weights, order and clip positions.
        limit: videos per split, for trials.
        progress: whether to show bars and a line per epoch.

    Returns:
        A row per epoch: epoch, loss (training), top1 (validation, centred clip, per cent).

    Raises:
        ValueError: for a continual net (its regular twin has the weights), numbers below 1, or a
            folder that holds a damaged run or one of other settings.
    """
    record, recipe = spec(name), recipe or Recipe()
    if record.continual:
        raise ValueError(
            f"expected a regular net, given {name}: train {record.weights}, whose weights it uses"
        )
    if recipe.epochs < 1 or (limit is not None and limit < 1):
        raise ValueError(f"expected epochs and limit of 1 or more, given {recipe.epochs}, {limit}")
    torch.manual_seed(seed)
    model = create(name)
    optimizer = torch.optim.AdamW(model.parameters(), recipe.lr, weight_decay=recipe.weight_decay)
    settings = {"model": name, "seed": seed, "limit": limit, **asdict(recipe)}
    curve = _resume(folder, settings, model, optimizer)
    if len(curve) < recipe.epochs:
        splits = [synthetic.dataset(split, limit=limit) for split in ("train", "val")]
        training, validation = (Clips(split, name, progress) for split in splits)
        for epoch in range(len(curve), recipe.epochs):
            loss = _epoch(model, optimizer, training, recipe, seed, epoch, progress)
            curve.append({"epoch": epoch + 1, "loss": loss, "top1": top1(model, validation)})
            _checkpoint(folder, settings, model, optimizer, curve)
            if progress:
                tqdm.write(
                    "epoch {epoch}: loss {loss:.3f}, val top-1 {top1:.1f} %".format(**curve[-1])
                )
    checkpoints.save(
        model,
        folder / "weights.safetensors",
        training_data="synthetic-kinetics",
        source=f"co3d train {name} --seed {seed}",
        licence="Apache-2.0",
    )
    return curve


def _epoch(
    model: ClipNet,
    optimizer: torch.optim.Optimizer,
    clips: Clips,
    recipe: Recipe,
    seed: int,
    epoch: int,
    progress: bool,
) -> float:
    """One pass over the videos, a random clip of each; returns the mean loss."""
    rng = np.random.default_rng([seed, epoch])  # so that a resumed run draws the same
    torch.manual_seed(rng.integers(2**31))
    order = rng.permutation(len(clips.videos)).tolist()
    batches = [order[at : at + recipe.batch] for at in range(0, len(order), recipe.batch)]
    model.train()
    losses = []
    for step, picked in enumerate(bar(batches, f"epoch {epoch + 1}", shown=progress)):
        for group in optimizer.param_groups:
            group["lr"] = _rate(recipe, epoch + step / len(batches))
        starts = [int(rng.integers(len(clips.videos[n]) - clips.frames + 1)) for n in picked]
        x, y = clips.batch(picked, starts)
        loss = F.cross_entropy(model(x.to(memory_format=torch.channels_last_3d)), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    return float(np.mean(losses))


def _rate(recipe: Recipe, epoch: float) -> float:
    warm = min(1.0, (epoch + 0.01) / max(recipe.warmup_epochs, 0.01))
    return recipe.lr * warm * 0.5 * (1 + math.cos(math.pi * epoch / recipe.epochs))


@torch.inference_mode()
def top1(model: ClipNet, clips: Clips, shuffle: np.random.Generator | None = None) -> float:
    """Per cent of videos whose centred clip is classified rightly.

    With `shuffle` the frames of each clip come in random order: what a net can tell from frames
    without their motion.
    """
    right = 0
    for n in range(len(clips.videos)):
        x, y = clips.batch([n], [clips.middle(n)])
        if shuffle is not None:
            x = x[:, :, torch.from_numpy(shuffle.permutation(x.shape[2]))]
        x = x.to(memory_format=torch.channels_last_3d)
        right += int(model(x).argmax(1).eq(y))
    return 100 * right / len(clips.videos)


def _checkpoint(folder: Path, settings: dict, model, optimizer, curve: list[dict]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / "last.pt.part"
    state = {"settings": settings, "curve": curve}
    torch.save(
        {**state, "model": model.state_dict(), "optimizer": optimizer.state_dict()},
        part,
    )
    os.replace(part, folder / "last.pt")
    log = folder / "curve.json.part"
    log.write_text(json.dumps(state, indent=1))
    os.replace(log, folder / "curve.json")


def _resume(folder: Path, settings: dict, model, optimizer) -> list[dict]:
    """Loads the checkpoint of a stopped run, if there is one; returns its curve."""
    path = folder / "last.pt"
    if not path.exists():
        return []
    try:
        state = torch.load(path, weights_only=True)
    except Exception as error:  # whatever a damaged file makes the reader say
        raise ValueError(f"{path} is not a whole checkpoint: delete it to begin anew") from error
    if state["settings"] != settings:
        raise ValueError(
            f"{path} belongs to a run of other settings, {state['settings']}, expected {settings}: "
            "name another folder, or delete it"
        )
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state["curve"]

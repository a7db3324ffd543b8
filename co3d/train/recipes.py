"""How to train, as data: the recipes of the weights that come with co3d, and published ones."""

from dataclasses import dataclass, replace
from typing import Self


@dataclass(frozen=True)
class Recipe:
    """A cosine schedule of the learning rate after a linear warm-up.

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
        """The same for another batch; the learning rate is scaled with it."""
        return replace(self, batch=batch, lr=self.lr * batch / self.batch)


# The published ones are for 8 GPUs. Of theirs only what stands here is known: no warm-up, and the
# random scaling and mirroring of training clips are not part of it.
RECIPES = {
    "mini": Recipe(),
    "mini-charades": Recipe(epochs=16, lr=2e-3, start="synthetic-kinetics"),
    "slow-kinetics400": Recipe(
        epochs=196, batch=64, lr=0.1, warmup_epochs=0, weight_decay=1e-4, optimizer="sgd"
    ),
    "slow-charades": Recipe(
        *(60, 64, 0.25, 0, 1e-4, "sgd"),
        start="kinetics400",
    ),
}


def recipe_for(data: object) -> str:
    """The name of the default recipe for a data set."""
    return "mini-charades" if str(data) == "synthetic-charades" else "mini"

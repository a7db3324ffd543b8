"""Training a clip net: seeded, with a checkpoint after every epoch, resumed where it stopped."""

from .clips import Clips
from .loop import reached, train
from .minis import train_mini
from .recipes import RECIPES, Recipe, recipe_for
from .run import run_folder
from .splits import splits
from .validation import validate

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

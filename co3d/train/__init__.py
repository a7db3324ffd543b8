"""Training a clip net: seeded, with a checkpoint after every epoch, resumed where it stopped."""

from .clips import Clips, validate
from .loop import train
from .recipes import RECIPES, Recipe, recipe_for
from .splits import splits

__all__ = ["RECIPES", "Clips", "Recipe", "recipe_for", "splits", "train", "validate"]

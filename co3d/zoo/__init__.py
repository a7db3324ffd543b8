"""The models: specs, builders, weights."""

from .build import create
from .checkpoints import Weights
from .specs import Spec, list_models, spec

__all__ = ["Spec", "Weights", "create", "list_models", "spec"]

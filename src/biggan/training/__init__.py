"""Training: a recipe, a state, two steps, one loop."""

from biggan.training.config import TrainConfig, load_recipe, shipped_recipes
from biggan.training.loop import train

__all__ = ["TrainConfig", "load_recipe", "shipped_recipes", "train"]

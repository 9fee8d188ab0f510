"""Training: a recipe, a state, two steps, one loop."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from biggan.training.config import TrainConfig, load_recipe, shipped_recipes
    from biggan.training.loop import train

__all__ = ["TrainConfig", "load_recipe", "shipped_recipes", "train"]


def __getattr__(name: str) -> Any:
    # When first used: `supervision` is built on modules from here, and the loop on both.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "loop" if name == "train" else "config"
    return getattr(import_module(f"biggan.training.{home}"), name)

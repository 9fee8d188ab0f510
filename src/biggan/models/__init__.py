"""The networks, readable beside the paper's Appendix B; one architecture a file."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch

from biggan.errors import InputError, quoted, whole_number
from biggan.models.config import DiscriminatorConfig, GeneratorConfig
from biggan.models.shared import (
    Discriminator,
    Generator,
    hub_grid,
    make_discriminator,
    make_generator,
    set_statistics_grid,
    statistics_grid,
)
from biggan.nn import initialize_orthogonal

if TYPE_CHECKING:
    from biggan.models.presets import PRESETS, get_preset

__all__ = [
    "PRESETS",
    "Discriminator",
    "DiscriminatorConfig",
    "Generator",
    "GeneratorConfig",
    "build_discriminator",
    "build_generator",
    "count_parameters",
    "get_preset",
    "hub_grid",
    "make_discriminator",
    "make_generator",
    "set_statistics_grid",
    "statistics_grid",
]


def __getattr__(name: str) -> Any:
    if name in ("PRESETS", "get_preset"):  # a generator from a file needs none
        return getattr(import_module("biggan.models.presets"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def build_generator(architecture: str | GeneratorConfig, *, seed: int = 0) -> Generator:
    """A generator with random weights, as it is before training.

    Args:
        architecture: A preset's name (`biggan models` lists them), or a configuration.
        seed: Seed of the weights.

    Returns:
        The network in training mode, on the CPU.

    Raises:
        InputError: No preset has this name.
    """
    if isinstance(architecture, str):
        from biggan.models.presets import get_preset

        architecture = get_preset(architecture).generator
    if not isinstance(architecture, GeneratorConfig):
        raise InputError(f"give a preset's name or a GeneratorConfig, not {quoted(architecture)}")
    generator = make_generator(architecture)
    initialize_orthogonal(generator, whole_number(seed, "the seed"))
    return generator


def build_discriminator(architecture: str | DiscriminatorConfig, *, seed: int = 0) -> Discriminator:
    """A discriminator with random weights, as it is before training; see `build_generator`."""
    if isinstance(architecture, str):
        from biggan.models.presets import get_preset

        architecture = get_preset(architecture).discriminator
    if not isinstance(architecture, DiscriminatorConfig):
        raise InputError(
            f"give a preset's name or a DiscriminatorConfig, not {quoted(architecture)}"
        )
    discriminator = make_discriminator(architecture)
    initialize_orthogonal(discriminator, whole_number(seed, "the seed"))
    return discriminator


def count_parameters(config: GeneratorConfig | DiscriminatorConfig) -> int:
    """The number of trainable values of a network, counted without allocating them."""
    with torch.device("meta"):
        if isinstance(config, GeneratorConfig):
            network: Generator | Discriminator = make_generator(config)
        else:
            network = make_discriminator(config)
    return sum(parameter.numel() for parameter in network.parameters())

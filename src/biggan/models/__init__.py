"""The networks, readable beside the paper's Appendix B; one architecture a file."""

from __future__ import annotations

import torch

from biggan.models.biggan import BigGANDiscriminator, BigGANGenerator
from biggan.models.biggan_deep import BigGANDeepDiscriminator, BigGANDeepGenerator
from biggan.models.config import DiscriminatorConfig, GeneratorConfig
from biggan.models.presets import PRESETS, get_preset
from biggan.nn import initialize_orthogonal

Generator = BigGANGenerator | BigGANDeepGenerator
Discriminator = BigGANDiscriminator | BigGANDeepDiscriminator

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
    "make_discriminator",
    "make_generator",
]


def make_generator(config: GeneratorConfig) -> Generator:
    """The network of a configuration, its weights not yet set."""
    family = BigGANGenerator if config.family == "biggan" else BigGANDeepGenerator
    return family(config)


def make_discriminator(config: DiscriminatorConfig) -> Discriminator:
    """The network of a configuration, its weights not yet set."""
    family = BigGANDiscriminator if config.family == "biggan" else BigGANDeepDiscriminator
    return family(config)


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
        architecture = get_preset(architecture).generator
    generator = make_generator(architecture)
    initialize_orthogonal(generator, seed)
    return generator


def build_discriminator(architecture: str | DiscriminatorConfig, *, seed: int = 0) -> Discriminator:
    """A discriminator with random weights, as it is before training.

    Args:
        architecture: A preset's name (`biggan models` lists them), or a configuration.
        seed: Seed of the weights.

    Returns:
        The network in training mode, on the CPU.

    Raises:
        InputError: No preset has this name.
    """
    if isinstance(architecture, str):
        architecture = get_preset(architecture).discriminator
    discriminator = make_discriminator(architecture)
    initialize_orthogonal(discriminator, seed)
    return discriminator


def count_parameters(config: GeneratorConfig | DiscriminatorConfig) -> int:
    """The number of trainable values of a network, counted without allocating them."""
    with torch.device("meta"):
        if isinstance(config, GeneratorConfig):
            network: Generator | Discriminator = make_generator(config)
        else:
            network = make_discriminator(config)
    return sum(parameter.numel() for parameter in network.parameters())

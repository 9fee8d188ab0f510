"""The table [fine_tuning] of a recipe, and freezing: first layers stay as they were loaded.

Of the discriminator this is FreezeD (Mo et al. 2020, https://arxiv.org/abs/2002.10964).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from biggan.errors import require
from biggan.models import Discriminator, DiscriminatorConfig, Generator, GeneratorConfig
from biggan.nn import ConditionalBatchNorm2d
from biggan.weights.files import Kind

ClassTransfer = Literal["nearest", "mean", "random"]


@dataclass(frozen=True)
class FineTuningConfig:
    """Where training starts, if not from random weights."""

    generator: str = ""
    """What `biggan.load` takes; empty for random. The recipe's generator gets its shape."""
    discriminator: str = ""
    """What holds a discriminator; empty for random. The recipe's one gets its shape."""
    classes: ClassTransfer = "nearest"
    """What a class starts as: the source's of the nearest name, the mean of all, or random."""
    freeze_generator: int = 0
    """Stages of the generator, from the noise and the linear layer on, that stay as loaded."""
    freeze_discriminator: int = 0
    """Blocks of the discriminator (BigGAN-deep: pairs of them), from the image on, that stay so."""

    def __post_init__(self) -> None:
        for name in ("generator", "discriminator"):
            key, frozen = f"fine_tuning.freeze_{name}", getattr(self, f"freeze_{name}")
            require(frozen >= 0, f"{key} must be 0 or above")
            needs = f"{key} needs fine_tuning.{name}: frozen random weights would never be trained"
            require(frozen == 0 or name in self.sources, needs)

    @property
    def sources(self) -> dict[Kind, str]:
        """The networks that start from loaded weights, and from which."""
        networks: tuple[Kind, ...] = ("generator", "discriminator")
        return {network: getattr(self, network) for network in networks if getattr(self, network)}


def trainable(network: Generator | Discriminator, frozen: int) -> list[nn.Parameter]:
    """The parameters that training moves, in the order of the bare network.

    Without a shared embedding the class tables of frozen stages are among them: those of new
    classes have to be learned. The stem is part of the first block, attention of the stage or block
    that it follows. To freeze more than there is is an InputError.
    """
    config = network.config
    check_depth(config, frozen)
    fixed = {id(p) for layer in _first_layers(network, frozen) for p in layer.parameters()}
    if isinstance(config, GeneratorConfig) and config.num_classes and not config.shared_embedding:
        fixed -= {id(layer.weight) for _, layer in condition_layers(network)}
    return [parameter for parameter in network.parameters() if id(parameter) not in fixed]


def require_gradients(network: Generator | Discriminator, frozen: int) -> None:
    """Let gradients flow only into what training moves; see `trainable`."""
    network.requires_grad_(False)
    for parameter in trainable(network, frozen):
        parameter.requires_grad_(True)


def check_depth(config: GeneratorConfig | DiscriminatorConfig, frozen: int) -> None:
    """Refuse to freeze more than there is."""
    if isinstance(config, GeneratorConfig):
        network, parts, number = "generator", "stages", len(config.stage_resolutions)
    else:
        network, parts, number = "discriminator", "blocks", config.num_blocks
    require(
        frozen <= number,
        f"fine_tuning.freeze_{network} is {frozen}, but the {network} has {number} {parts}",
    )


def condition_layers(network: Any) -> Iterator[tuple[str, nn.Linear]]:
    """The layers of a generator that see a condition, by name."""
    for name, module in network.named_modules():
        if isinstance(module, ConditionalBatchNorm2d):
            yield from ((f"{name}.gain", module.gain), (f"{name}.bias", module.bias))
    if network.config.family == "biggan-deep":
        yield "linear", network.linear


def _first_layers(network: Any, frozen: int) -> Iterator[nn.Module]:
    config: Any = network.config
    if frozen:
        yield from (part for name, part in network.named_children() if name in ("linear", "stem"))
    yield from network.blocks[: frozen * (2 if config.family == "biggan-deep" else 1)]
    stages = "stage_resolutions" if isinstance(config, GeneratorConfig) else "down_resolutions"
    if config.attention_resolution in getattr(config, stages)[:frozen]:
        yield network.attention

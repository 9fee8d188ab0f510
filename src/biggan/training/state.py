"""The state of a training run: the one thing that is saved."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from biggan.models import Discriminator, Generator, build_discriminator, build_generator
from biggan.training.config import TrainConfig
from biggan.training.randomness import Purpose, derive_seed


@dataclass
class TrainState:
    """Networks, their moving average, optimizers, and how far the run is."""

    generator: Generator
    discriminator: Discriminator
    ema: Generator
    """The moving average of the generator; its BatchNorm statistics are the generator's own."""
    g_optimizer: torch.optim.Adam
    d_optimizer: torch.optim.Adam
    step: int
    """Generator updates done."""

    @classmethod
    def create(cls, config: TrainConfig, device: torch.device) -> Self:
        """The state before the first step."""
        generator_seed = derive_seed(config.seed, Purpose.GENERATOR_WEIGHTS)
        discriminator_seed = derive_seed(config.seed, Purpose.DISCRIMINATOR_WEIGHTS)
        generator = build_generator(config.generator, seed=generator_seed).to(device)
        discriminator = build_discriminator(config.discriminator, seed=discriminator_seed).to(
            device
        )
        ema = copy.deepcopy(generator).eval().requires_grad_(False)
        return cls(
            generator,
            discriminator,
            ema,
            _adam(generator, config, config.optimizer.g_lr),
            _adam(discriminator, config, config.optimizer.d_lr),
            step=0,
        )

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the state, by name."""
        named: dict[str, Tensor] = {}
        for prefix, network in self._networks():
            named |= {f"{prefix}.{name}": value for name, value in network.state_dict().items()}
        for prefix, network, optimizer in self._optimizers():
            for name, parameter in network.named_parameters():
                for key, value in optimizer.state.get(parameter, {}).items():
                    named[f"{prefix}.{name}.{key}"] = value
        return named

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `tensors` gave."""
        for prefix, network in self._networks():
            network.load_state_dict(_under(prefix, tensors))
        for prefix, network, optimizer in self._optimizers():
            saved = _under(prefix, tensors)
            state = optimizer.state_dict()
            # Adam numbers its parameters in the order in which it was given them.
            state["state"] = {
                index: _under(name, saved)
                for index, (name, _) in enumerate(network.named_parameters())
                if f"{name}.step" in saved
            }
            optimizer.load_state_dict(state)

    def _networks(self) -> Iterator[tuple[str, nn.Module]]:
        yield "generator", self.generator
        yield "discriminator", self.discriminator
        yield "ema", self.ema

    def _optimizers(self) -> Iterator[tuple[str, nn.Module, torch.optim.Adam]]:
        yield "g_optimizer", self.generator, self.g_optimizer
        yield "d_optimizer", self.discriminator, self.d_optimizer


def _adam(network: nn.Module, config: TrainConfig, learning_rate: float) -> torch.optim.Adam:
    settings = config.optimizer
    return torch.optim.Adam(
        network.parameters(),
        lr=learning_rate,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        fused=True,
    )


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {name[len(start) :]: t for name, t in tensors.items() if name.startswith(start)}

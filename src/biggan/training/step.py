"""One update of each network."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from biggan.data import ImageDataset
from biggan.nn import hold_power_iteration
from biggan.training.config import TrainConfig
from biggan.training.losses import discriminator_hinge_loss, generator_hinge_loss
from biggan.training.orthogonal_regularization import (
    add_orthogonal_gradient,
    regularized_weights,
)
from biggan.training.randomness import Purpose, random_generator
from biggan.training.state import TrainState

Metrics = dict[str, Tensor]
"""Scalars of one update, left on the device: reading them would wait for it."""


def discriminator_step(
    state: TrainState,
    real: tuple[Tensor, Tensor],
    latents: tuple[Tensor, Tensor],
    config: TrainConfig,
) -> Metrics:
    """Update the discriminator on one global batch.

    Args:
        state: Changed in place.
        real: Images (N, C, R, R) in [-1, 1] and their labels (N,).
        latents: Noise (N, z_dim) and labels (N,) for as many generated images.
        config: The recipe.

    Returns:
        `d_loss`; `d_real` and `d_fake`, the mean logits.
    """
    state.discriminator.requires_grad_(True)
    state.d_optimizer.zero_grad()
    total: Metrics = {}
    for i in range(config.accumulation):
        images, labels = _micro_batch(real, i, config)
        z, fake_labels = _micro_batch(latents, i, config)
        with _power_iteration(i, state.generator), torch.no_grad():
            fakes = state.generator(z, fake_labels)
        with _power_iteration(i, state.discriminator):
            # One pass over both: half the launches, and one power iteration for both.
            logits = state.discriminator(
                torch.cat([images, fakes]), torch.cat([labels, fake_labels])
            )
        real_logits, fake_logits = logits.split(len(images))
        loss = discriminator_hinge_loss(real_logits, fake_logits) / config.accumulation
        loss.backward()
        _accumulate(total, "d_loss", loss)
        _accumulate(total, "d_real", real_logits.mean() / config.accumulation)
        _accumulate(total, "d_fake", fake_logits.mean() / config.accumulation)
    state.d_optimizer.step()
    return total


def generator_step(
    state: TrainState, latents: tuple[Tensor, Tensor], config: TrainConfig
) -> Metrics:
    """Update the generator on one global batch.

    Args:
        state: Changed in place.
        latents: Noise (N, z_dim) and labels (N,).
        config: The recipe.

    Returns:
        `g_loss`, and `orthogonal` where that regularization is on.
    """
    state.discriminator.requires_grad_(False)
    state.g_optimizer.zero_grad()
    total: Metrics = {}
    for i in range(config.accumulation):
        z, labels = _micro_batch(latents, i, config)
        with _power_iteration(i, state.generator):
            fakes = state.generator(z, labels)
        with _power_iteration(i, state.discriminator):
            logits = state.discriminator(fakes, labels)
        loss = generator_hinge_loss(logits) / config.accumulation
        loss.backward()
        _accumulate(total, "g_loss", loss)
    if config.orthogonal > 0:
        weights = regularized_weights(state.generator)
        total["orthogonal"] = add_orthogonal_gradient(weights, config.orthogonal)
    state.g_optimizer.step()
    return total


def draw_latents(
    config: TrainConfig, dataset: ImageDataset, purpose: Purpose, *position: int
) -> tuple[Tensor, Tensor]:
    """Noise and labels for a global batch of generated images.

    Args:
        config: The recipe.
        dataset: Whose classes, and whose labels with `label_sampling = "empirical"`.
        purpose: What the images are for.
        position: Where in the run they are for it.

    Returns:
        Noise N(0, I) (batch_size, z_dim) and labels (batch_size,), on the CPU.
    """
    random = random_generator(config.seed, purpose, *position)
    z = torch.randn(config.batch_size, config.generator.z_dim, generator=random)
    return z, draw_labels(config, dataset, random, config.batch_size)


def draw_labels(
    config: TrainConfig, dataset: ImageDataset, random: torch.Generator, num: int
) -> Tensor:
    """Labels (num,) of generated images, uniform over classes or as in the data."""
    if config.label_sampling == "empirical":
        return dataset.labels[torch.randint(len(dataset.labels), (num,), generator=random)]
    return torch.randint(max(config.generator.num_classes, 1), (num,), generator=random)


def _micro_batch(
    batch: tuple[Tensor, Tensor], index: int, config: TrainConfig
) -> tuple[Tensor, Tensor]:
    size = config.micro_batch_size
    part = slice(index * size, (index + 1) * size)
    return batch[0][part], batch[1][part]


def _power_iteration(index: int, network: nn.Module) -> AbstractContextManager[None]:
    """One power iteration an update: all micro-batches see the same normalized weights."""
    return nullcontext() if index == 0 else hold_power_iteration(network)


def _accumulate(total: Metrics, name: str, value: Tensor) -> None:
    value = value.detach()
    total[name] = total[name] + value if name in total else value

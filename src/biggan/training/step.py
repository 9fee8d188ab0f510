"""One update of each network."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from biggan.data import TrainingData
from biggan.distributed import hold_gradients, over_all_processes
from biggan.fine_tuning import require_gradients
from biggan.nn import hold_power_iteration
from biggan.stability.r1 import add_r1_gradient
from biggan.stability.spectrum import SpectrumBound
from biggan.training.adaptive_augmentation import AdaptiveAugmentation
from biggan.training.augmentation import augmented
from biggan.training.config import TrainConfig
from biggan.training.losses import discriminator_hinge_loss, generator_hinge_loss
from biggan.training.orthogonal_regularization import (
    add_orthogonal_gradient,
    regularized_weights,
)
from biggan.training.perturbation import UNPERTURBED, Perturbation, joined
from biggan.training.randomness import Purpose, random_generator
from biggan.training.state import TrainState

Metrics = dict[str, Tensor]
"""Scalars of one update, left on the device: reading them would wait for it."""


def discriminator_step(
    state: TrainState,
    real: tuple[Tensor, Tensor],
    latents: tuple[Tensor, Tensor],
    config: TrainConfig,
    augmentation: tuple[Tensor | None, Tensor | None] = (None, None),
    perturbation: tuple[Perturbation, Perturbation] = (UNPERTURBED, UNPERTURBED),
    outputs: list[tuple[Tensor, Tensor]] | None = None,
) -> Metrics:
    """Update the discriminator on one global batch.

    Args:
        state: Changed in place.
        real: This process's share of the batch (`distributed.own_share`), which is all of it for
            one process: images (N, C, R, R) in [-1, 1] and their labels (N,).
        latents: Noise (N, z_dim) and labels (N,) for as many generated images.
        config: The recipe.
        augmentation: Random numbers (`draw_augmentation`) for the real and for the generated
            images, where the recipe augments.
        perturbation: Noise and dropout (`draw_perturbation`) for the real and for the generated
            images.
        outputs: Where to append the logits (N, 1) of each micro-batch's real and generated images,
            for whoever watches.

    Returns:
        `d_loss`; `d_real` and `d_fake`, the mean logits; over this process's share. `lecam`; `r1`,
        the mean squared gradient; `d_spectrum`, that penalty; and `augmentation`, ADA's
        probability, where they are on.
    """
    require_gradients(state.discriminator, config.fine_tuning.freeze_discriminator)
    state.d_optimizer.zero_grad()
    total: Metrics = {}
    for i in range(config.accumulation):
        shown = _shown(state, real, latents, config, augmentation, perturbation, i)
        holds = i > 0
        if config.r1.gamma > 0:
            with (
                _power_iteration(state.discriminator, holds=holds),
                hold_gradients(state.parallel_discriminator),
            ):
                weight = config.r1.gamma / 2 / config.accumulation
                r1 = add_r1_gradient(state.discriminator, *shown.real[:2], weight, shown.real[2])
            _accumulate(total, "r1", r1 / config.accumulation)
            holds = True
        with (
            _power_iteration(state.discriminator, holds=holds),
            _gradient_exchange(i, state.parallel_discriminator, config),
        ):
            real_logits, fake_logits = _judge(state.parallel_discriminator, shown, config)
            if outputs is not None:
                outputs.append((real_logits.detach(), fake_logits.detach()))
            loss = (
                discriminator_hinge_loss(real_logits, fake_logits, config.loss.margin)
                / config.accumulation
            )
            if config.lecam.strength > 0 and state.step >= config.lecam.start:
                penalty = state.lecam(real_logits, fake_logits) / config.accumulation
                loss = loss + config.lecam.strength * penalty
                _accumulate(total, "lecam", penalty)
            loss.backward()
        _accumulate_outputs(total, loss, real_logits, fake_logits, config)
    _update(state.d_optimizer, state.d_spectrum, total, "d_spectrum")
    signs = total.pop("signs")
    if config.lecam.strength > 0:
        means = over_all_processes(torch.stack([total["d_real"], total["d_fake"]]), average=True)
        state.lecam.observe(*means)
    if isinstance(state.augmentation, AdaptiveAugmentation):
        state.augmentation.observe(over_all_processes(signs), config.batch_size)
        total["augmentation"] = state.augmentation.probability.clone()
    return total


@torch.no_grad()
def frozen_discriminator_step(
    state: TrainState,
    real: tuple[Tensor, Tensor],
    latents: tuple[Tensor, Tensor],
    config: TrainConfig,
    augmentation: tuple[Tensor | None, Tensor | None] = (None, None),
    perturbation: tuple[Perturbation, Perturbation] = (UNPERTURBED, UNPERTURBED),
    outputs: list[tuple[Tensor, Tensor]] | None = None,
) -> Metrics:
    """What a discriminator that an intervention froze would lose, without an update.

    Args:
        state: Only what forward passes move is changed: power iteration, BatchNorm's averages.
        real: See `discriminator_step`.
        latents: Likewise.
        config: Likewise.
        augmentation: Likewise.
        perturbation: Likewise.
        outputs: Likewise.

    Returns:
        `d_loss`, the hinge loss alone; `d_real` and `d_fake`.
    """
    total: Metrics = {}
    for i in range(config.accumulation):
        shown = _shown(state, real, latents, config, augmentation, perturbation, i)
        with _power_iteration(state.discriminator, holds=i > 0):
            logits = _judge(state.discriminator, shown, config)
        if outputs is not None:
            outputs.append(logits)
        loss = discriminator_hinge_loss(*logits, config.loss.margin) / config.accumulation
        _accumulate_outputs(total, loss, *logits, config)
    del total["signs"]
    return total


def generator_step(
    state: TrainState,
    latents: tuple[Tensor, Tensor],
    config: TrainConfig,
    augmentation: Tensor | None = None,
    perturbation: Perturbation = UNPERTURBED,
) -> Metrics:
    """Update the generator on one global batch.

    Args:
        state: Changed in place.
        latents: This process's share: noise (N, z_dim) and labels (N,).
        config: The recipe.
        augmentation: Random numbers (`draw_augmentation`) for the images, where the recipe
            augments.
        perturbation: Noise and dropout (`draw_perturbation`) for the images.

    Returns:
        `g_loss` over this process's share; `orthogonal` and `g_spectrum` where those
        regularizations are on.
    """
    state.discriminator.requires_grad_(False)
    state.g_optimizer.zero_grad()
    total: Metrics = {}
    for i in range(config.accumulation):
        z, labels, numbers = _micro_batch((*latents, augmentation), i, config)
        perturbed = perturbation.part(i, config.accumulation)
        with (
            _power_iteration(state.generator, holds=i > 0),
            _power_iteration(state.discriminator, holds=i > 0),
            _gradient_exchange(i, state.parallel_generator, config),
        ):
            with _autocast(z, config):
                fakes = state.parallel_generator(z, labels)
                seen = perturbed.on(augmented(state.augmentation, fakes, numbers))
                logits = state.discriminator(seen, labels, perturbed.mask)
            loss = generator_hinge_loss(logits) / config.accumulation
            loss.backward()
        _accumulate(total, "g_loss", loss)
    if config.orthogonal > 0:
        weights = regularized_weights(state.generator)
        total["orthogonal"] = add_orthogonal_gradient(weights, config.orthogonal)
    _update(state.g_optimizer, state.g_spectrum, total, "g_spectrum")
    return total


def draw_latents(
    config: TrainConfig, dataset: TrainingData, purpose: Purpose, *position: int
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
    config: TrainConfig, dataset: TrainingData, random: torch.Generator, num: int
) -> Tensor:
    """Labels (num,) of generated images, uniform over classes or as in the data."""
    if config.label_sampling == "empirical" and dataset.num_classes:
        ends = torch.tensor(dataset.histogram()).cumsum(0)  # as if all images were sorted by class
        images = torch.randint(int(ends[-1]), (num,), generator=random)
        return torch.searchsorted(ends, images, right=True)
    return torch.randint(max(config.generator.num_classes, 1), (num,), generator=random)


class _Shown(NamedTuple):
    """What the discriminator sees of a micro-batch: images (N, C, R, R), labels (N,), dropout."""

    real: tuple[Tensor, Tensor, Tensor | None]
    fake: tuple[Tensor, Tensor, Tensor | None]


def _shown(
    state: TrainState,
    real: tuple[Tensor, Tensor],
    latents: tuple[Tensor, Tensor],
    config: TrainConfig,
    augmentation: tuple[Tensor | None, Tensor | None],
    perturbation: tuple[Perturbation, Perturbation],
    index: int,
) -> _Shown:
    """Generate a micro-batch, and bring it and the real one before the discriminator."""
    images, labels, real_numbers = _micro_batch((*real, augmentation[0]), index, config)
    z, fake_labels, fake_numbers = _micro_batch((*latents, augmentation[1]), index, config)
    of_real, of_fakes = (part.part(index, config.accumulation) for part in perturbation)
    with (
        _power_iteration(state.generator, holds=index > 0),
        torch.no_grad(),
        _autocast(z, config),
    ):
        fakes = state.generator(z, fake_labels)
    images = of_real.on(augmented(state.augmentation, images, real_numbers))
    fakes = of_fakes.on(augmented(state.augmentation, fakes, fake_numbers))
    return _Shown((images, labels, of_real.mask), (fakes, fake_labels, of_fakes.mask))


def _judge(discriminator: nn.Module, shown: _Shown, config: TrainConfig) -> tuple[Tensor, Tensor]:
    """The logits of the real and of the generated images."""
    (images, labels, mask), (fakes, fake_labels, fake_mask) = shown
    # One pass over both: half the launches, and one power iteration for both.
    with _autocast(images, config):
        logits = discriminator(
            torch.cat([images, fakes]), torch.cat([labels, fake_labels]), joined(mask, fake_mask)
        )
    real_logits, fake_logits = logits.split(len(images))
    return real_logits, fake_logits


def _update(
    optimizer: torch.optim.Optimizer, spectrum: SpectrumBound | None, total: Metrics, name: str
) -> None:
    """One step of an optimizer, between the two halves of a bound on singular values."""
    if spectrum is not None and (penalty := spectrum.before_update()) is not None:
        total[name] = penalty
    optimizer.step()
    if spectrum is not None:
        spectrum.after_update()


def _micro_batch(
    batch: tuple[Tensor, Tensor, Tensor | None], index: int, config: TrainConfig
) -> tuple[Tensor, Tensor, Tensor | None]:
    values, labels, numbers = batch
    size = len(values) // config.accumulation
    part = slice(index * size, (index + 1) * size)
    return values[part], labels[part], None if numbers is None else numbers[part]


def _autocast(inputs: Tensor, config: TrainConfig) -> AbstractContextManager[None]:
    """Convolutions and matrix products in the recipe's precision; the layers see to the rest."""
    if config.precision == "float32":
        return nullcontext()
    return torch.autocast(inputs.device.type, torch.bfloat16)


def _power_iteration(network: nn.Module, *, holds: bool) -> AbstractContextManager[None]:
    """One power iteration an update: all later passes see the same normalized weights."""
    return hold_power_iteration(network) if holds else nullcontext()


def _gradient_exchange(
    index: int, network: nn.Module, config: TrainConfig
) -> AbstractContextManager[None]:
    """One exchange an update: the last micro-batch's backward pass averages the sum of all."""
    last = index == config.accumulation - 1
    return nullcontext() if last else hold_gradients(network)


def _accumulate_outputs(
    total: Metrics, loss: Tensor, real_logits: Tensor, fake_logits: Tensor, config: TrainConfig
) -> None:
    _accumulate(total, "d_loss", loss)
    _accumulate(total, "d_real", real_logits.mean() / config.accumulation)
    _accumulate(total, "d_fake", fake_logits.mean() / config.accumulation)
    _accumulate(total, "signs", real_logits.sign().sum())


def _accumulate(total: Metrics, name: str, value: Tensor) -> None:
    value = value.detach()
    total[name] = total[name] + value if name in total else value

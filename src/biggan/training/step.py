"""One update of each network.

All random numbers of an update are drawn here, from (seed, purpose, step), for the whole global
batch; each process takes its share of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from biggan.devices import to_device
from biggan.distributed import hold_gradients, over_all_processes, own_share
from biggan.fine_tuning.freezing import require_gradients
from biggan.nn import hold_power_iteration
from biggan.training.augmentation import Draws
from biggan.training.config import TrainConfig
from biggan.training.randomness import Purpose, random_generator
from biggan.training.regularization import (
    add_orthogonal_gradient,
    add_r1_gradient,
    regularized_weights,
)
from biggan.training.singular_values import SpectrumBound
from biggan.training.state import TrainState

Metrics = dict[str, Tensor]
"""Scalars of one update, left on the device: reading them would wait for it."""

_REAL, _GENERATED = 0, 1  # part of the position of random numbers: never change them


def discriminator_hinge_loss(
    real_logits: Tensor, fake_logits: Tensor, margin: float = 1.0
) -> Tensor:
    """E[relu(margin - D(x, y))] + E[relu(margin + D(G(z, y), y))] of logits (N, 1) and (M, 1).

    Lim and Ye 2017, https://arxiv.org/abs/1705.02894.
    """
    return F.relu(margin - real_logits).mean() + F.relu(margin + fake_logits).mean()


def generator_hinge_loss(fake_logits: Tensor) -> Tensor:
    """-E[D(G(z, y), y)] of logits (N, 1)."""
    return -fake_logits.mean()


def discriminator_step(
    state: TrainState, real: tuple[Tensor, Tensor], config: TrainConfig, update: int = 0
) -> Metrics:
    """Update the discriminator on one global batch, the `update`-th of the step.

    `real` is this process's share of it: images (N, C, R, R) in [-1, 1] and their labels (N,).

    Returns:
        `d_loss`, and `d_real` and `d_fake`, the mean logits, of this process's share; where they
        are on `lecam`, `r1` (the mean squared gradient), `d_spectrum`, `augmentation` (ADA's p).
    """
    require_gradients(state.discriminator, config.fine_tuning.freeze_discriminator)
    state.d_optimizer.zero_grad()
    state.logits = []
    total: Metrics = {}
    for i, (shown, fakes) in enumerate(_micro_batches(state, real, config, update)):
        holds = i > 0
        if config.r1.gamma > 0:
            weight = config.r1.gamma / 2 / config.accumulation
            with (
                _power_iteration(state.discriminator, holds=holds),
                hold_gradients(state.parallel_discriminator),
            ):
                r1 = add_r1_gradient(state.discriminator, *shown, weight=weight)
            _accumulate(total, "r1", r1 / config.accumulation)
            holds = True
        with (
            _power_iteration(state.discriminator, holds=holds),
            _gradient_exchange(i, state.parallel_discriminator, config),
        ):
            logits = _logits(state.parallel_discriminator, shown, fakes, config)
            loss = discriminator_hinge_loss(*logits, config.loss.margin) / config.accumulation
            if config.lecam.strength > 0 and state.step >= config.lecam.start:
                penalty = state.lecam(*logits) / config.accumulation
                loss = loss + config.lecam.strength * penalty
                _accumulate(total, "lecam", penalty)
            loss.backward()
        _record(total, state, loss, logits, config.accumulation)
    _update(state.d_optimizer, state.d_spectrum, total, "d_spectrum")
    if config.lecam.strength > 0:
        means = over_all_processes(torch.stack([total["d_real"], total["d_fake"]]), average=True)
        state.lecam.observe(*means)
    if (ada := state.augmentation.ada) is not None:
        signs = torch.stack([real_logits.sign().sum() for real_logits, _ in state.logits]).sum()
        ada.observe(over_all_processes(signs), config.batch_size)
        total["augmentation"] = ada.probability.clone()
    return total


@torch.no_grad()
def frozen_step(
    state: TrainState, real: tuple[Tensor, Tensor], config: TrainConfig, update: int = 0
) -> Metrics:
    """`discriminator_step` without the update, for a discriminator that an intervention froze.

    Only what forward passes move is changed: power iteration, BatchNorm's averages. `d_loss` is the
    hinge loss alone.
    """
    state.logits = []
    total: Metrics = {}
    for i, (shown, fakes) in enumerate(_micro_batches(state, real, config, update)):
        with _power_iteration(state.discriminator, holds=i > 0):
            logits = _logits(state.discriminator, shown, fakes, config)
        loss = discriminator_hinge_loss(*logits, config.loss.margin) / config.accumulation
        _record(total, state, loss, logits, config.accumulation)
    return total


def generator_step(state: TrainState, config: TrainConfig, update: int = 1) -> Metrics:
    """Update the generator on one global batch, after `update` updates or losses of D in the step.

    Returns:
        `g_loss` of this process's share; `orthogonal` and `g_spectrum` where they are on.
    """
    state.discriminator.requires_grad_(False)
    state.g_optimizer.zero_grad()
    total: Metrics = {}
    latents = _latents(state, config, Purpose.GENERATOR_STEP, state.step)
    draws = _draws(state, config, update, _GENERATED)
    for i in range(config.accumulation):
        z, labels = (_part(t, i, config) for t in latents)
        own_draws = draws.map(partial(_part, index=i, config=config))
        with (
            _power_iteration(state.generator, holds=i > 0),
            _power_iteration(state.discriminator, holds=i > 0),
            _gradient_exchange(i, state.parallel_generator, config),
        ):
            with _autocast(z, config):
                seen = state.augmentation(state.parallel_generator(z, labels), own_draws)
                logits = state.discriminator(seen, labels, own_draws.mask)
            loss = generator_hinge_loss(logits) / config.accumulation
            loss.backward()
        _accumulate(total, "g_loss", loss)
    if config.orthogonal > 0:
        weights = regularized_weights(state.generator).values()
        total["orthogonal"] = add_orthogonal_gradient(weights, config.orthogonal)
    _update(state.g_optimizer, state.g_spectrum, total, "g_spectrum")
    return total


@torch.no_grad()
def update_ema(state: TrainState, config: TrainConfig) -> None:
    """Move the average of the generator, from which the paper samples, towards the generator.

    Parameters are averaged; buffers (BatchNorm's moving averages, power iteration's vectors) are
    copied, for an average of them belongs to no network, and computed anew by `export.finish`.
    """
    decay = config.ema.decay if state.step >= config.ema.start else 0.0
    averages: list[Tensor] = list(state.ema.parameters())
    values: list[Tensor] = list(state.generator.parameters())
    torch._foreach_lerp_(averages, values, 1 - decay)
    torch._foreach_copy_(list(state.ema.buffers()), list(state.generator.buffers()))


def draw_latents(
    config: TrainConfig, class_counts: Sequence[int], purpose: Purpose, *position: int
) -> tuple[Tensor, Tensor]:
    """Noise N(0, I) (batch_size, z_dim) and labels (batch_size,) of a global batch, on the CPU.

    `class_counts` are the images of each class in the data, for `label_sampling = "empirical"`.
    """
    random = random_generator(config.seed, purpose, *position)
    z = torch.randn(config.batch_size, config.generator.z_dim, generator=random)
    return z, draw_labels(config, class_counts, random, config.batch_size)


def draw_labels(
    config: TrainConfig, class_counts: Sequence[int], random: torch.Generator, num: int
) -> Tensor:
    """Labels (num,) of generated images, uniform over classes or as in the data."""
    if config.label_sampling == "empirical" and class_counts:
        ends = torch.tensor(class_counts).cumsum(0)  # as if all images were sorted by class
        images = torch.randint(int(ends[-1]), (num,), generator=random)
        return torch.searchsorted(ends, images, right=True)
    return torch.randint(max(config.generator.num_classes, 1), (num,), generator=random)


class _Shown(NamedTuple):
    """What the discriminator is shown of a micro-batch."""

    images: Tensor
    labels: Tensor
    mask: Tensor | None


def _micro_batches(
    state: TrainState, real: tuple[Tensor, Tensor], config: TrainConfig, update: int
) -> Iterator[tuple[_Shown, _Shown]]:
    """The real and the generated images of every micro-batch, as the discriminator sees them."""
    latents = _latents(state, config, Purpose.DISCRIMINATOR_STEP, state.step, update)
    draws = [_draws(state, config, update, kind) for kind in (_REAL, _GENERATED)]
    for i in range(config.accumulation):
        images, labels, z, fake_labels = (_part(t, i, config) for t in (*real, *latents))
        of_real, of_fakes = (d.map(partial(_part, index=i, config=config)) for d in draws)
        with _power_iteration(state.generator, holds=i > 0), torch.no_grad(), _autocast(z, config):
            fakes = state.generator(z, fake_labels)
        images, fakes = state.augmentation(images, of_real), state.augmentation(fakes, of_fakes)
        yield _Shown(images, labels, of_real.mask), _Shown(fakes, fake_labels, of_fakes.mask)


def _latents(
    state: TrainState, config: TrainConfig, purpose: Purpose, *position: int
) -> tuple[Tensor, Tensor]:
    """This process's share of noise and labels for an update."""
    z, labels = draw_latents(config, state.class_counts, purpose, *position)
    return _own(z, state, config), _own(labels, state, config)


def _draws(state: TrainState, config: TrainConfig, update: int, kind: int) -> Draws:
    """This process's share of the augmentation's random numbers for an update."""
    draws = state.augmentation.draw(config.batch_size, config.seed, state.step, update, kind)
    return draws.map(lambda tensor: _own(tensor, state, config))


def _own(tensor: Tensor, state: TrainState, config: TrainConfig) -> Tensor:
    return to_device(own_share(tensor, config.accumulation), state.device)


def _part(tensor: Tensor, index: int, config: TrainConfig) -> Tensor:
    """A micro-batch of a batch."""
    return tensor.chunk(config.accumulation)[index]


def _logits(
    discriminator: nn.Module, real: _Shown, fakes: _Shown, config: TrainConfig
) -> tuple[Tensor, Tensor]:
    """The logits of real and of generated images."""
    # One pass over both: half the launches, and one power iteration for both.
    images, labels = (torch.cat(pair) for pair in zip(real[:2], fakes[:2], strict=True))
    mask = None
    if real.mask is not None and fakes.mask is not None:
        mask = torch.cat([real.mask, fakes.mask])
    with _autocast(images, config):
        logits = discriminator(images, labels, mask)
    real_logits, fake_logits = logits.split(len(real.images))
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


def _record(
    total: Metrics, state: TrainState, loss: Tensor, logits: tuple[Tensor, Tensor], parts: int
) -> None:
    """Add a micro-batch's loss and outputs to those of the update."""
    real, fake = logits
    state.logits.append((real.detach(), fake.detach()))
    _accumulate(total, "d_loss", loss)
    _accumulate(total, "d_real", real.mean() / parts)
    _accumulate(total, "d_fake", fake.mean() / parts)


def _accumulate(total: Metrics, name: str, value: Tensor) -> None:
    value = value.detach()
    total[name] = total[name] + value if name in total else value

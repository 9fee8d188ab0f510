"""One update, against the same update written out."""

import copy
import dataclasses

import pytest
import torch
from torch.nn import functional as F

from biggan.nn import StandingBatchNorm2d, hold_power_iteration
from biggan.training.randomness import Purpose
from biggan.training.state import TrainState
from biggan.training.step import discriminator_step, draw_latents, generator_step


@pytest.fixture
def state(config):
    return TrainState.create(config, torch.device("cpu"))


def batches(config, dataset):
    real = (
        torch.rand(config.batch_size, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    )
    labels = torch.arange(config.batch_size) % 2
    return (real, labels), draw_latents(config, dataset, Purpose.DISCRIMINATOR_STEP, 0)


def gradients(network):
    return {name: p.grad for name, p in network.named_parameters()}


def test_adam_has_the_recipes_settings(config, state):
    for optimizer, rate in ((state.g_optimizer, 5e-5), (state.d_optimizer, 2e-4)):
        (group,) = optimizer.param_groups
        assert (group["lr"], group["betas"], group["eps"]) == (rate, (0.0, 0.999), 1e-8)


def test_discriminator_gradients_are_those_of_the_hinge_loss(config, dataset, state):
    (real, labels), (z, fake_labels) = batches(config, dataset)
    twin = copy.deepcopy(state)
    fakes = twin.generator(z, fake_labels).detach()
    twin.discriminator.requires_grad_(True)
    real_logits = twin.discriminator(real, labels)
    with hold_power_iteration(twin.discriminator):
        fake_logits = twin.discriminator(fakes, fake_labels)
    loss = F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()
    loss.backward()
    metrics = discriminator_step(state, (real, labels), (z, fake_labels), config)
    torch.testing.assert_close(metrics["d_loss"], loss.detach())
    torch.testing.assert_close(
        gradients(state.discriminator), gradients(twin.discriminator), rtol=1e-4, atol=1e-4
    )
    assert all(p.grad is None for p in state.generator.parameters())


def test_generator_gradients_are_those_of_its_loss_and_the_regularization(config, dataset, state):
    config = dataclasses.replace(config, orthogonal=0.01)
    _, (z, labels) = batches(config, dataset)
    twin = copy.deepcopy(state)
    loss = -twin.discriminator(twin.generator(z, labels), labels).mean()
    penalty = torch.zeros(())
    for name, parameter in twin.generator.named_parameters():
        if parameter.ndim >= 2 and "class_embedding" not in name:
            matrix = parameter.flatten(1)
            gram = matrix @ matrix.T
            penalty = penalty + 0.01 * (gram - gram.diag().diag()).square().sum()
    (loss + penalty).backward()
    metrics = generator_step(state, (z, labels), config)
    torch.testing.assert_close(metrics["g_loss"], loss.detach())
    torch.testing.assert_close(metrics["orthogonal"], penalty.detach(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(
        gradients(state.generator), gradients(twin.generator), rtol=1e-4, atol=1e-6
    )


def freeze_batch_norm(generator):
    """Statistics that do not depend on the batch, so that its parts can be compared with it."""
    for layer in generator.modules():
        if isinstance(layer, StandingBatchNorm2d):
            layer.eval()


@pytest.mark.parametrize("accumulation", [2, 4])
def test_accumulated_micro_batches_equal_the_whole(config, dataset, state, accumulation):
    (real, labels), (z, fake_labels) = batches(config, dataset)
    real, latents = (real.double(), labels), (z.double(), fake_labels)
    for network in (state.generator, state.discriminator):
        network.double()
    freeze_batch_norm(state.generator)
    split = copy.deepcopy(state)
    split_config = dataclasses.replace(config, accumulation=accumulation)
    for step_state, step_config in ((state, config), (split, split_config)):
        discriminator_step(step_state, real, latents, step_config)
        generator_step(step_state, latents, step_config)
    torch.testing.assert_close(
        gradients(split.discriminator), gradients(state.discriminator), rtol=1e-9, atol=1e-9
    )
    torch.testing.assert_close(
        gradients(split.generator), gradients(state.generator), rtol=1e-9, atol=1e-9
    )
    for layer, other in zip(state.generator.buffers(), split.generator.buffers(), strict=True):
        torch.testing.assert_close(layer, other)


def test_labels_uniform_or_as_in_the_data(config, dataset):
    skewed = dataclasses.replace(dataset, labels=torch.ones_like(dataset.labels))
    uniform = draw_latents(config, skewed, Purpose.GENERATOR_STEP, 0)[1]
    assert set(uniform.tolist()) == {0, 1}
    empirical = dataclasses.replace(config, label_sampling="empirical")
    assert set(draw_latents(empirical, skewed, Purpose.GENERATOR_STEP, 0)[1].tolist()) == {1}


def test_randomness_depends_on_seed_purpose_and_step_alone(config, dataset):
    def noise(*position, purpose=Purpose.GENERATOR_STEP, **changes):
        changed = dataclasses.replace(config, **changes)
        return draw_latents(changed, dataset, purpose, *position)[0]

    torch.manual_seed(1)
    first = noise(5)
    torch.manual_seed(2)
    assert torch.equal(noise(5), first)
    for other in (noise(6), noise(5, purpose=Purpose.DISCRIMINATOR_STEP), noise(5, seed=1)):
        assert not torch.equal(other, first)

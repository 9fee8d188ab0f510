"""One update of each network against the same update written out, with every addition to it."""

import copy
import dataclasses
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from biggan.distributed import averages
from biggan.nn import SpectralNormConv2d, StandingBatchNorm2d, hold_power_iteration
from biggan.training.config import TrainConfig
from biggan.training.randomness import Purpose
from biggan.training.state import TrainState
from biggan.training.step import (
    Metrics,
    discriminator_hinge_loss,
    discriminator_step,
    draw_latents,
    generator_hinge_loss,
    generator_step,
    update_ema,
)
from runs import ADDITIONS, BOUNDS, CPU, assert_same_tensors, float64, recipe


def state_of(config: TrainConfig) -> TrainState:
    """A state whose power iteration is not at its end, as it is from orthogonal weights."""
    state = TrainState.create(config, CPU)
    random = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for network in (state.generator, state.discriminator):
            for parameter in network.parameters():
                noise = torch.randn(parameter.shape, generator=random, dtype=parameter.dtype)
                parameter *= 1 + 0.2 * noise
    state.lecam.observe(torch.tensor(0.3), torch.tensor(-0.2))
    return state


def real_batch(config: TrainConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch of real images."""
    random = torch.Generator().manual_seed(0)
    images = torch.rand(config.batch_size, 3, 8, 8, generator=random) * 2 - 1
    return images, torch.arange(config.batch_size) % 2


def both_steps(state: TrainState, config: TrainConfig) -> Metrics:
    metrics = discriminator_step(state, real_batch(config), config)
    return metrics | generator_step(state, config)


def gradients(network: nn.Module) -> dict[str, torch.Tensor | None]:
    return {name: p.grad for name, p in network.named_parameters()}


def fixed_batch_norm(state: TrainState) -> TrainState:
    """Statistics that do not depend on the batch, so that its parts can be compared with it."""
    for layer in state.generator.modules():
        if isinstance(layer, StandingBatchNorm2d):
            layer.eval()
    return state


def test_losses_by_hand() -> None:
    real, fake = torch.tensor([[2.0], [0.5], [-1.0]]), torch.tensor([[-3.0], [0.5]])
    # relu(1 - real): 0, 0.5, 2; relu(1 + fake): 0, 1.5
    assert discriminator_hinge_loss(real, fake).item() == pytest.approx(2.5 / 3 + 1.5 / 2)
    # relu(2 - real): 0, 1.5, 3; relu(2 + fake): 0, 2.5
    assert discriminator_hinge_loss(real, fake, 2).item() == pytest.approx(4.5 / 3 + 2.5 / 2)
    assert generator_hinge_loss(torch.tensor([[2.0], [-5.0]])).item() == pytest.approx(1.5)


def test_adam_has_the_recipes_settings() -> None:
    state = TrainState.create(recipe(), CPU)
    for optimizer, rate in ((state.g_optimizer, 5e-5), (state.d_optimizer, 2e-4)):
        (group,) = optimizer.param_groups
        assert (group["lr"], group["betas"], group["eps"]) == (rate, (0.0, 0.999), 1e-8)


@pytest.mark.parametrize("changes", [{}, ADDITIONS], ids=["plain", "all"])
def test_a_discriminator_update(changes: dict[str, Any]) -> None:
    config = recipe(**changes)
    with float64():
        state = fixed_batch_norm(state_of(config))
        twin = copy.deepcopy(state)
        images, labels = real_batch(config)
        z, fake_labels = draw_latents(config, (), Purpose.DISCRIMINATOR_STEP, 0, 0)
        of_real, of_fakes = (twin.augmentation.draw(8, config.seed, 0, 0, kind) for kind in (0, 1))
        fakes = twin.augmentation(twin.generator(z, fake_labels).detach(), of_fakes)
        seen = twin.augmentation(images, of_real).requires_grad_()
        twin.discriminator.begin_forward()
        with hold_power_iteration(twin.discriminator), sdpa_kernel(SDPBackend.MATH):
            real_logits = twin.discriminator(seen, labels, of_real.mask)
            fake_logits = twin.discriminator(fakes, fake_labels, of_fakes.mask)
        margin = config.loss.margin
        hinge = F.relu(margin - real_logits).mean() + F.relu(margin + fake_logits).mean()
        (gradient,) = torch.autograd.grad(real_logits.sum(), seen, create_graph=True)
        r1 = gradient.square().sum() / len(images)
        lecam = F.relu(real_logits + 0.2).square().mean()
        lecam = lecam + F.relu(0.3 - fake_logits).square().mean()
        loss = hinge + config.lecam.strength * lecam
        (loss + config.r1.gamma / 2 * r1).backward()
        metrics = discriminator_step(state, (images, labels), config)
    torch.testing.assert_close(metrics["d_loss"], loss.detach())
    torch.testing.assert_close(metrics["d_real"], real_logits.mean().detach())
    if changes:
        torch.testing.assert_close(metrics["r1"], r1.detach())
        torch.testing.assert_close(metrics["lecam"], lecam.detach())
        assert not torch.equal(seen, images)
    else:
        assert metrics.keys() == {"d_loss", "d_real", "d_fake"}
        assert torch.equal(seen, images)
    torch.testing.assert_close(gradients(state.discriminator), gradients(twin.discriminator))
    for name, buffer in twin.discriminator.named_buffers():  # one power iteration, not two
        torch.testing.assert_close(state.discriminator.get_buffer(name), buffer)
    assert all(p.grad is None for p in state.generator.parameters())
    torch.testing.assert_close(torch.cat([r for r, _ in state.logits]), real_logits.detach())


@pytest.mark.parametrize("changes", [{}, ADDITIONS], ids=["plain", "all"])
def test_a_generator_update(changes: dict[str, Any]) -> None:
    config = recipe(**changes, orthogonal=0.01)
    with float64():
        state = state_of(config)
        twin = copy.deepcopy(state)
        z, labels = draw_latents(config, (), Purpose.GENERATOR_STEP, 0)
        draws = twin.augmentation.draw(8, config.seed, 0, 1, 1)
        seen = twin.augmentation(twin.generator(z, labels), draws)
        loss = -twin.discriminator(seen, labels, draws.mask).mean()
        penalty = torch.zeros(())
        for name, parameter in twin.generator.named_parameters():
            if parameter.ndim >= 2 and "class_embedding" not in name:
                matrix = parameter.flatten(1)
                gram = matrix @ matrix.T
                penalty = penalty + 0.01 * (gram - gram.diag().diag()).square().sum()
        (loss + penalty).backward()
        metrics = generator_step(state, config)
    torch.testing.assert_close(metrics["g_loss"], loss.detach())
    torch.testing.assert_close(metrics["orthogonal"], penalty.detach())
    torch.testing.assert_close(gradients(state.generator), gradients(twin.generator))


@pytest.mark.parametrize("accumulation", [2, 4])
def test_accumulated_micro_batches_equal_the_whole(accumulation: int) -> None:
    config = recipe(**ADDITIONS, spectrum=BOUNDS)
    with float64():
        whole = fixed_batch_norm(state_of(config))
        parts = copy.deepcopy(whole)
        expected = averages(both_steps(whole, config))
        found = averages(both_steps(parts, dataclasses.replace(config, accumulation=accumulation)))
    assert found == pytest.approx(expected, rel=1e-6)
    assert {"r1", "lecam", "d_spectrum", "orthogonal"} <= found.keys()
    for name in ("discriminator", "generator"):
        pair = [gradients(getattr(state, name)) for state in (parts, whole)]
        torch.testing.assert_close(*pair, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(parts.tensors(), whole.tensors(), rtol=1e-7, atol=1e-7)


def test_lecam_waits_for_its_start() -> None:
    config = recipe(lecam={"strength": 2.0, "start": 1})
    state = TrainState.create(config, CPU)
    metrics = both_steps(state, config)
    assert "lecam" not in metrics
    torch.testing.assert_close(state.lecam.real, metrics["d_real"])
    torch.testing.assert_close(state.lecam.fake, metrics["d_fake"])
    state.step = 1
    assert both_steps(state, config)["lecam"] > 0


def test_ada_counts_the_signs_of_the_real_images() -> None:
    config = recipe(augmentation={"kind": "ada"}, accumulation=2)
    state, fresh = TrainState.create(config, CPU), TrainState.create(config, CPU)
    metrics = both_steps(state, config)
    assert metrics["augmentation"] == 0
    signs = fresh.discriminator(*real_batch(config)).sign().sum()
    # Half of it was seen with the same weights in another micro-batch; at p = 0 unchanged.
    assert state.augmentation.ada is not None
    torch.testing.assert_close(state.augmentation.ada.sign_sum, signs.detach())
    assert state.augmentation.ada.num_images == 8


def test_a_clamped_generator_is_clamped_after_its_update() -> None:
    config = recipe(spectrum=BOUNDS)
    state = TrainState.create(config, CPU)
    generator_step(state, config)
    for name, weight in state.generator.named_parameters():
        if weight.ndim >= 2 and "class_embedding" not in name:
            values = torch.linalg.svdvals(weight.detach().flatten(1))
            assert values[0] <= 0.9 * (1 + 1e-3), name
    assert not [n for n in TrainState.create(recipe(), CPU).tensors() if "spectrum" in n]


def test_labels_uniform_or_as_in_the_data() -> None:
    def labels(config: TrainConfig) -> set[int]:
        return set(draw_latents(config, (0, 9), Purpose.GENERATOR_STEP, 0)[1].tolist())

    assert labels(recipe()) == {0, 1}
    assert labels(recipe(label_sampling="empirical")) == {1}
    config = recipe(label_sampling="empirical")
    state = TrainState.create(config, CPU, class_counts=(9, 0))
    embedding = state.discriminator.head.embedding.weight
    generator_step(state, config)
    both_steps(state, config)
    # The real images have both labels, the generated ones the first alone.
    assert embedding.grad is not None
    assert embedding.grad[0].abs().sum() > embedding.grad[1].abs().sum()


def test_latents_depend_on_seed_purpose_and_step_alone() -> None:
    def noise(
        *position: int, purpose: Purpose = Purpose.GENERATOR_STEP, **changes: Any
    ) -> torch.Tensor:
        return draw_latents(recipe(**changes), (), purpose, *position)[0]

    torch.manual_seed(1)
    first = noise(5)
    torch.manual_seed(2)
    assert torch.equal(noise(5), first)
    for other in (noise(6), noise(5, purpose=Purpose.DISCRIMINATOR_STEP), noise(5, seed=1)):
        assert not torch.equal(other, first)


def test_what_stays_in_float32() -> None:
    config = recipe(precision="bfloat16")
    state = TrainState.create(config, CPU)
    types: dict[str, torch.dtype] = {}

    def note(name: str) -> Any:
        return lambda module, inputs, output: types.setdefault(name, output.dtype) and None

    for network in (state.generator, state.discriminator):
        network.register_forward_hook(note(type(network).__name__))
        for name, module in network.named_modules():
            if isinstance(module, SpectralNormConv2d | StandingBatchNorm2d):
                module.register_forward_hook(note(name))
    metrics = both_steps(state, config)
    assert types["BigGANGenerator"] == types["BigGANDiscriminator"] == torch.float32
    assert types["blocks.0.conv2"] == types["blocks.0.bn1"] == torch.bfloat16
    assert all(value.dtype == torch.float32 for value in metrics.values())
    assert all(value.dtype == torch.float32 for value in state.tensors().values())
    layer: Any = state.generator.blocks[0].conv2
    with torch.autocast("cpu", torch.bfloat16):
        normalized = layer.normalized_weight()
    sigma = layer.u @ (layer.weight.detach().flatten(1) @ layer.v)
    torch.testing.assert_close(normalized, layer.weight / sigma, rtol=1e-6, atol=1e-7)


def test_losses_in_bfloat16_stay_close_and_r1_is_the_same() -> None:
    """benchmarks/precision.py follows them over 200 steps."""
    curves = []
    for precision in ("float32", "bfloat16"):
        config = recipe(precision=precision, r1={"gamma": 1.0}, orthogonal=0.0)
        state = TrainState.create(config, CPU)
        rows = []
        for _ in range(3):
            metrics = both_steps(state, config)
            rows.append(torch.stack([metrics[name] for name in ("r1", "d_loss", "g_loss")]))
            state.step += 1
        curves.append(torch.stack(rows))
    full, low = curves
    assert (full - low).abs().max() < 0.1
    assert full[0, 0] == low[0, 0]
    assert not torch.equal(full[:, 1:], low[:, 1:])


def test_recomputed_activations_change_no_bit() -> None:
    results = []
    for recomputed in (False, True):
        config = recipe(checkpoint_activations=recomputed, **ADDITIONS)
        state = state_of(config)
        assert state.discriminator.recompute == state.generator.recompute == recomputed
        both_steps(state, config)
        results.append(state.tensors())
    assert_same_tensors(*results)


def test_the_average_follows_the_weights_and_copies_buffers() -> None:
    config = recipe(ema={"decay": 0.9, "start": 5})
    state = state_of(config)
    names = dict(state.generator.named_parameters())
    for step, share in ((4, 1.0), (5, 0.1)):  # before its start it is a copy
        state.step = step
        before = {name: value.clone() for name, value in state.ema.named_parameters()}
        with torch.no_grad():
            for value in (*state.generator.parameters(), *state.generator.buffers()):
                value.add_(1)
        update_ema(state, config)
        for name, value in names.items():
            expected = before[name] + share * (value.detach() - before[name])
            torch.testing.assert_close(state.ema.get_parameter(name), expected)
        for name, value in state.generator.named_buffers():
            assert torch.equal(state.ema.get_buffer(name), value), name

"""Remedies within the training step: each against the step written out; together, through a run."""

import copy
import dataclasses

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from biggan.distributed import averages, own_share
from biggan.nn import StandingBatchNorm2d, hold_power_iteration
from biggan.training import run_export, train
from biggan.training.config import TrainConfig
from biggan.training.losses import discriminator_hinge_loss
from biggan.training.perturbation import Perturbation, draw_perturbation, noise_std
from biggan.training.plan import make_plan
from biggan.training.randomness import Purpose
from biggan.training.state import TrainState
from biggan.training.step import discriminator_step, draw_latents, generator_step
from several_processes import launch
from tiny import ONE_STAGE, TINY_RECIPE

CPU = torch.device("cpu")
ALL = {
    "r1": {"gamma": 2.0},
    "dropout": {"keep": 0.8},
    "instance_noise": {"std": 0.2, "until": 100},
    "loss": {"margin": 1.5},
    "spectrum": {"generator": "clamp", "discriminator": "regularize", "bound": 0.9},
}


def recipe(**changes):
    return TrainConfig.from_dict({**TINY_RECIPE, **changes}).fitted(2)


def batches(config, dataset, dtype=torch.float64):
    random = torch.Generator().manual_seed(0)
    images = torch.rand(config.batch_size, 3, 32, 32, generator=random, dtype=dtype) * 2 - 1
    labels = torch.arange(config.batch_size) % 2
    z, fake_labels = draw_latents(config, dataset, Purpose.DISCRIMINATOR_STEP, 0)
    return (images, labels), (z.to(dtype), fake_labels)


def perturbations(config, dtype=torch.float64):
    drawn = [draw_perturbation(config, 0, 0, kind) for kind in (0, 1)]
    return tuple(
        Perturbation(*(None if t is None else t.to(dtype) for t in (p.noise, p.mask)))
        for p in drawn
    )


def state_in_float64(config):
    torch.set_default_dtype(torch.float64)
    try:
        state = TrainState.create(config, CPU)
    finally:
        torch.set_default_dtype(torch.float32)
    random = torch.Generator().manual_seed(5)
    with torch.no_grad():  # so that power iteration is not at its end, as from orthogonal weights
        for network in (state.generator, state.discriminator):
            for parameter in network.parameters():
                parameter *= 1 + 0.2 * torch.randn(parameter.shape, generator=random)
    for layer in state.generator.modules():
        if isinstance(layer, StandingBatchNorm2d):
            layer.eval()  # so that parts of a batch can be compared with the whole
    return state


def gradients(network):
    return {name: p.grad for name, p in network.named_parameters()}


def test_the_margin_by_hand():
    real, fake = torch.tensor([[0.5], [2.5]]), torch.tensor([[-1.0], [-3.0], [0.0]])
    # relu(2 - real): 1.5, 0; relu(2 + fake): 1, 0, 2
    loss = discriminator_hinge_loss(real, fake, margin=2.0)
    assert loss.item() == pytest.approx(1.5 / 2 + 3 / 3)


def test_a_discriminator_update_with_all_of_them(dataset):
    config = recipe(**{**ALL, "spectrum": {}})
    real, latents = batches(config, dataset)
    of_real, of_fakes = perturbations(config)
    state = state_in_float64(config)
    twin = copy.deepcopy(state)

    fakes = twin.generator(*latents).detach() + of_fakes.noise
    images = (real[0] + of_real.noise).requires_grad_()
    twin.discriminator.begin_forward()
    with hold_power_iteration(twin.discriminator), sdpa_kernel(SDPBackend.MATH):
        real_logits = twin.discriminator(images, real[1], of_real.mask)
        fake_logits = twin.discriminator(fakes, latents[1], of_fakes.mask)
    hinge = F.relu(1.5 - real_logits).mean() + F.relu(1.5 + fake_logits).mean()
    (gradient,) = torch.autograd.grad(real_logits.sum(), images, create_graph=True)
    r1 = gradient.square().sum() / len(images)
    (hinge + 2.0 / 2 * r1).backward()

    metrics = discriminator_step(state, real, latents, config, perturbation=(of_real, of_fakes))
    torch.testing.assert_close(metrics["d_loss"], hinge.detach())
    torch.testing.assert_close(metrics["r1"], r1.detach())
    torch.testing.assert_close(gradients(state.discriminator), gradients(twin.discriminator))
    for name, buffer in twin.discriminator.named_buffers():  # one power iteration, not two
        torch.testing.assert_close(state.discriminator.get_buffer(name), buffer)


def test_the_generator_is_judged_through_noise_and_dropout(dataset):
    config = recipe(**ALL, orthogonal=0.0)
    _, latents = batches(config, dataset)
    perturbation, _ = perturbations(config)
    state = state_in_float64(config)
    twin = copy.deepcopy(state)
    images = twin.generator(*latents) + perturbation.noise
    (-twin.discriminator(images, latents[1], perturbation.mask).mean()).backward()
    generator_step(state, latents, config, perturbation=perturbation)
    torch.testing.assert_close(gradients(state.generator), gradients(twin.generator))


@pytest.mark.parametrize("accumulation", [2, 4])
def test_accumulated_micro_batches_equal_the_whole(dataset, accumulation):
    config = recipe(**ALL)
    real, latents = batches(config, dataset)
    drawn = perturbations(config)
    state = state_in_float64(config)
    split = copy.deepcopy(state)
    found = []
    for each, parts in ((state, 1), (split, accumulation)):
        changed = dataclasses.replace(config, accumulation=parts)
        metrics = discriminator_step(each, real, latents, changed, perturbation=drawn)
        metrics |= generator_step(each, latents, changed, perturbation=drawn[1])
        found.append({name: value.item() for name, value in metrics.items()})
    assert found[0] == pytest.approx(found[1], rel=1e-9)
    assert {"r1", "d_spectrum"} <= found[0].keys()
    for network in ("discriminator", "generator"):
        torch.testing.assert_close(
            gradients(getattr(split, network)),
            gradients(getattr(state, network)),
            rtol=1e-9,
            atol=1e-9,
        )


def test_a_clamped_generator_is_clamped_after_its_update(dataset):
    config = recipe(**ALL)
    state = TrainState.create(config, CPU)
    generator_step(state, batches(config, dataset, torch.float32)[1], config)
    for name, weight in state.generator.named_parameters():
        if weight.ndim >= 2 and "class_embedding" not in name:
            values = torch.linalg.svdvals(weight.detach().flatten(1))
            assert values[0] <= 0.9 * (1 + 1e-3), name


def test_masks_keep_their_share_and_the_mean():
    config = recipe(dropout={"keep": 0.8}, batch_size=1000)
    mask = draw_perturbation(config, 3, 0, 1).mask
    assert mask.shape == (1000, 16)
    assert set(mask.unique().tolist()) == {0.0, 1.25}
    assert mask.mean().item() == pytest.approx(1, abs=0.02)


def test_noise_fades():
    config = recipe(instance_noise={"std": 0.4, "until": 100})
    assert [noise_std(config, step) for step in (0, 25, 100, 500)] == [0.4, 0.4 * 0.75, 0, 0]
    assert noise_std(recipe(instance_noise={"std": 0.4}), 10**6) == 0.4
    noise = draw_perturbation(config, 50, 0).noise
    assert noise.shape == (8, 3, 32, 32)
    assert noise.std().item() == pytest.approx(0.2, rel=0.02)
    assert draw_perturbation(config, 100, 0) == Perturbation(None, None)


def test_they_depend_on_seed_and_place_alone():
    config = recipe(**ALL)

    def drawn(*place, **changes):
        return draw_perturbation(dataclasses.replace(config, **changes), *place)

    torch.manual_seed(1)
    first = drawn(5, 0, 1)
    torch.manual_seed(2)
    for part in ("noise", "mask"):
        value = getattr(first, part)
        assert torch.equal(getattr(drawn(5, 0, 1), part), value)
        for other in (drawn(6, 0, 1), drawn(5, 1, 1), drawn(5, 0, 0), drawn(5, 0, 1, seed=1)):
            assert not torch.equal(getattr(other, part), value)


@pytest.fixture
def quick_exports(monkeypatch):
    monkeypatch.setattr(run_export, "HUB_GRID", (1.0,))
    monkeypatch.setattr(run_export, "COARSE_GRID", (1.0,))


def final_tensors(folder):
    return load_file(sorted((folder / "checkpoints").iterdir())[-1])


def test_a_run_with_all_of_them_resumes_to_the_bit(dataset, tmp_path, quick_exports, monkeypatch):
    # Matrices of this size are iterated on: those vectors must be found again.
    monkeypatch.setattr("biggan.stability.spectrum.WHOLE", 8)
    config = recipe(**ALL, total_steps=4)
    for stops in ([4], [1, 3, 4]):
        for stop in stops:
            changed = dataclasses.replace(config, total_steps=stop)
            train(changed, dataset, tmp_path / str(len(stops)), device=CPU, progress=False)
    found, expected = (final_tensors(tmp_path / name) for name in ("3", "1"))
    assert [name for name in expected if name.startswith("g_spectrum.")]
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_without_them_nothing_of_them_is_saved():
    state = TrainState.create(recipe(), CPU)
    assert not [name for name in state.tensors() if "spectrum" in name]


def test_bfloat16_leaves_the_penalty_alone(dataset):
    found = []
    for precision in ("float32", "bfloat16"):
        config = recipe(r1={"gamma": 1.0}, precision=precision)
        state = TrainState.create(config, CPU)
        torch.manual_seed(0)
        state.discriminator.begin_forward()
        real, latents = batches(config, dataset, torch.float32)
        found.append(discriminator_step(state, real, latents, config)["r1"])
    assert torch.equal(*found)


def steps_of_all(dataset):
    """Losses and state after steps of this process, among however many."""
    config = recipe(**ALL, accumulation=2)
    state = state_in_float64(config)
    losses = []
    for _ in range(3):
        real, latents = batches(config, dataset)
        drawn = perturbations(config)
        real, latents = (tuple(own_share(t, 2) for t in pair) for pair in (real, latents))
        drawn = tuple(p.own_share(config, CPU) for p in drawn)
        metrics = discriminator_step(state, real, latents, config, perturbation=drawn)
        metrics |= generator_step(state, latents, config, perturbation=drawn[1])
        state.step += 1
        losses.append(averages(metrics))
    return losses, state.tensors()


def test_two_processes_are_as_one(dataset):
    losses, tensors = steps_of_all(dataset)
    for found_losses, found_tensors in launch(steps_of_all, 2, dataset):
        for step, expected in zip(found_losses, losses, strict=True):
            assert step == pytest.approx(expected, rel=1e-6, abs=1e-6)
        for name, value in tensors.items():
            torch.testing.assert_close(found_tensors[name], value, rtol=1e-8, atol=1e-8)


def plan_of(**changes):
    return make_plan(recipe(**ONE_STAGE, **changes), 16)


def test_a_plan_knows_what_they_cost():
    plain, penalized = plan_of(), plan_of(r1={"gamma": 1.0})
    # A forward pass of the real half, its gradient, and the gradients of both.
    assert 1.4 < penalized.d_update_flops / plain.d_update_flops < 2.5
    assert penalized.g_update_flops == plain.g_update_flops
    assert penalized.d_peak_bytes > plain.d_peak_bytes
    assert penalized.d_activations_bytes >= plain.d_activations_bytes
    clamped = plan_of(spectrum={"generator": "clamp"})
    assert clamped.g_update_flops > plain.g_update_flops


def test_a_plan_follows_interventions():
    plan = plan_of(total_steps=6)
    changes = [{"step": 2, "d_steps": 5}, {"step": 4, "freeze": "generator"}]
    changed = plan_of(total_steps=6, interventions=changes)
    assert plan.images_seen == 6 * 2 * 8
    assert changed.images_seen == (2 * 2 + 4 * 5) * 8
    assert changed.run_flops == 24 * plan.d_update_flops + 4 * plan.g_update_flops

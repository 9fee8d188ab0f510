"""Augmentation and LeCam within the updates: what they reach, and that a run with them resumes."""

import dataclasses
import json

import pytest
import torch

from biggan.distributed import own_share
from biggan.training import train
from biggan.training.augmentation import augmented, build_augmentation, draw_augmentation
from biggan.training.randomness import Purpose
from biggan.training.settings import AugmentationConfig, LeCamConfig
from biggan.training.state import TrainState
from biggan.training.step import discriminator_step, draw_latents, generator_step

CPU = torch.device("cpu")


def with_kind(config, kind, **changes):
    return dataclasses.replace(config, augmentation=AugmentationConfig(kind=kind), **changes)


def shown(network):
    """All images that a network is shown, from now on."""
    seen = []
    network.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].detach()))
    return seen


def updates(config, dataset):
    state = TrainState.create(config, CPU)
    random = torch.Generator().manual_seed(0)
    real = (torch.rand(8, 3, 32, 32, generator=random), torch.arange(8) % 2)
    latents = draw_latents(config, dataset, Purpose.DISCRIMINATOR_STEP, 0)
    numbers = [draw_augmentation(state.augmentation, config, 0, 0, i) for i in range(3)]
    seen = shown(state.discriminator)
    metrics = discriminator_step(state, real, latents, config, (numbers[0], numbers[1]))
    metrics |= generator_step(state, latents, config, numbers[2])
    return state, real, numbers, seen, metrics


def test_off_by_default(config, dataset):
    state, (images, _), numbers, seen, metrics = updates(config, dataset)
    assert state.augmentation is None
    assert numbers == [None] * 3
    assert torch.equal(seen[0][:8], images)
    assert not {"augmentation", "lecam"} & metrics.keys()


def test_all_that_the_discriminator_sees_is_augmented(config, dataset):
    config = with_kind(config, "diffaugment")
    plain = updates(dataclasses.replace(config, augmentation=AugmentationConfig()), dataset)
    state, (images, _), numbers, seen, _ = updates(config, dataset)
    fakes = plain[3][0][8:]
    expected = [
        augmented(state.augmentation, images, numbers[0]),
        augmented(state.augmentation, fakes, numbers[1]),
    ]
    torch.testing.assert_close(seen[0], torch.cat(expected))
    assert not torch.equal(expected[0], images)
    # The generator's images differ by then: its update saw another discriminator. In the number of
    # pixels that translation and cutout set to exactly 0 the augmentation shows.
    assert (seen[1] == 0).sum() > 100 * (plain[3][1] == 0).sum() + 100


def test_micro_batches_take_their_own_numbers(config, dataset):
    whole = with_kind(config, "diffaugment")
    halves = dataclasses.replace(whole, accumulation=2)
    seen_whole, seen_halves = updates(whole, dataset)[3], updates(halves, dataset)[3]
    torch.testing.assert_close(
        torch.cat([seen_halves[0][:4], seen_halves[1][:4]]), seen_whole[0][:8]
    )


def test_numbers_depend_on_their_position_and_on_nothing_else(config):
    config = with_kind(config, "ada")
    augmentation = build_augmentation(config)
    first = draw_augmentation(augmentation, config, 3, 1, 0)
    assert torch.equal(first, draw_augmentation(augmentation, config, 3, 1, 0))
    for other in ((4, 1, 0), (3, 0, 0), (3, 1, 1)):
        assert not torch.equal(first, draw_augmentation(augmentation, config, *other))
    assert torch.equal(own_share(first), first)


def test_ada_counts_the_signs_of_the_real_images(config, dataset):
    config = with_kind(config, "ada", accumulation=2)
    state, (images, labels), *_ = updates(config, dataset)
    fresh = TrainState.create(config, CPU)
    signs = fresh.discriminator(images, labels).sign().sum()
    # Half of it was seen with the same weights in another micro-batch; at p = 0 unchanged.
    torch.testing.assert_close(state.augmentation.sign_sum, signs.detach())
    assert state.augmentation.num_images == 8


def test_lecam_waits_for_its_start_and_then_adds_to_the_loss(config, dataset):
    config = dataclasses.replace(config, lecam=LeCamConfig(strength=2.0, start=0))
    state, real, _, _, metrics = updates(config, dataset)
    assert metrics["lecam"] == 0  # nothing had been observed
    torch.testing.assert_close(state.lecam.real, metrics["d_real"])
    torch.testing.assert_close(state.lecam.fake, metrics["d_fake"])
    latents = draw_latents(config, dataset, Purpose.DISCRIMINATOR_STEP, 1)
    later = dataclasses.replace(config, lecam=LeCamConfig(strength=2.0, start=1))
    metrics = discriminator_step(state, real, latents, later)
    assert "lecam" not in metrics
    state.step = 1
    metrics = discriminator_step(state, real, latents, later)
    assert metrics["lecam"] > 0


@pytest.mark.parametrize("kind", ["ada", "diffaugment"])
def test_a_run_resumes_to_the_bit(config, dataset, tmp_path, kind):
    config = with_kind(
        config, kind, total_steps=4, checkpoint_every=2, lecam=LeCamConfig(0.1, start=1)
    )
    if kind == "ada":  # fast enough that p moves within the run
        config = dataclasses.replace(
            config, augmentation=AugmentationConfig("ada", target=-0.9, images=64)
        )
    whole = train(config, dataset, tmp_path / "whole", device=CPU)
    train(dataclasses.replace(config, total_steps=2), dataset, tmp_path / "parts", device=CPU)
    resumed = train(config, dataset, tmp_path / "parts", device=CPU)
    expected, found = whole.tensors(), resumed.tensors()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    lines = (tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["lecam"] > 0
    if kind == "ada":
        assert found["augmentation.probability"] > 0

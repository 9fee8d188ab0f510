"""bfloat16 beside float32, and activation checkpointing within a run."""

import dataclasses

import torch

from biggan.nn import SpectralNormConv2d, StandingBatchNorm2d
from biggan.training import train
from biggan.training.randomness import Purpose
from biggan.training.state import TrainState
from biggan.training.step import discriminator_step, draw_latents, generator_step

CPU = torch.device("cpu")


def losses(config, dataset, steps):
    state = TrainState.create(config, CPU)
    rows = []
    for step in range(steps):
        start = step * config.batch_size
        indices = torch.arange(start, start + config.batch_size) % len(dataset)
        real = dataset.images[indices].float() / 127.5 - 1, dataset.labels[indices]
        latents = draw_latents(config, dataset, Purpose.DISCRIMINATOR_STEP, step)
        metrics = discriminator_step(state, real, latents, config)
        metrics |= generator_step(state, latents, config)
        rows.append(torch.stack([metrics["d_loss"], metrics["g_loss"]]))
    return torch.stack(rows), state


def test_what_stays_in_float32(config, dataset):
    config = dataclasses.replace(config, precision="bfloat16")
    state = TrainState.create(config, CPU)
    types = {}

    def note(name):
        return lambda module, inputs, output: types.setdefault(name, output.dtype) and None

    for network in (state.generator, state.discriminator):
        network.register_forward_hook(note(type(network).__name__))
        for name, module in network.named_modules():
            if isinstance(module, SpectralNormConv2d | StandingBatchNorm2d):
                module.register_forward_hook(note(name))
    _, (z, labels) = None, draw_latents(config, dataset, Purpose.DISCRIMINATOR_STEP, 0)
    real = torch.rand(8, 3, 32, 32), torch.arange(8) % 2
    metrics = discriminator_step(state, real, (z, labels), config)
    metrics |= generator_step(state, (z, labels), config)
    assert types["BigGANGenerator"] == types["BigGANDiscriminator"] == torch.float32
    assert types["blocks.0.conv2"] == types["blocks.1.bn1"] == torch.bfloat16
    assert all(value.dtype == torch.float32 for value in metrics.values())
    assert all(value.dtype == torch.float32 for value in state.tensors().values())
    layer = state.generator.blocks[0].conv2
    with torch.autocast("cpu", torch.bfloat16):
        normalized = layer.normalized_weight()
    sigma = layer.u @ (layer.weight.detach().flatten(1) @ layer.v)
    torch.testing.assert_close(normalized, layer.weight / sigma, rtol=1e-6, atol=1e-7)


def test_loss_curves_stay_together(config, dataset):
    """benchmarks/precision.py follows them over 200 steps."""
    config = dataclasses.replace(config, orthogonal=0.0)
    full = losses(config, dataset, 4)[0]
    low = losses(dataclasses.replace(config, precision="bfloat16"), dataset, 4)[0]
    assert (full - low).abs().max() < 0.1
    assert not torch.equal(full, low)


def test_recomputed_activations_change_no_bit_of_a_run(config, dataset, tmp_path):
    config = dataclasses.replace(config, total_steps=2)
    plain = train(config, dataset, tmp_path / "plain", device=CPU)
    recomputing = dataclasses.replace(config, checkpoint_activations=True)
    other = train(recomputing, dataset, tmp_path / "recomputing", device=CPU)
    assert other.discriminator.recompute and other.generator.recompute  # noqa: PT018
    for name, value in plain.tensors().items():
        assert torch.equal(value, other.tensors()[name]), name

"""Every preset: its published parameter count, and that it runs and learns."""

import dataclasses

import pytest
import torch

import biggan
from biggan.models import (
    PRESETS,
    DiscriminatorConfig,
    GeneratorConfig,
    build_discriminator,
    build_generator,
    count_parameters,
)
from tiny import DEEP, TINY, TINY_DISCRIMINATOR

# PAPER.md's sources: the paper's own counts, and those of the published weights
COUNTS = {
    "biggan-128": (70_433_988, 87_982_370),
    "biggan-256": (82_097_604, 99_225_890),
    "biggan-512": (82_468_068, 99_401_282),
    "biggan-deep-128": (50_244_484, 34_590_210),
    "biggan-deep-256": (55_736_708, 38_247_426),
    "biggan-deep-512": (56_019_780, 38_301_122),
    "biggan-64": (70_377_348, 45_511_970),
    "biggan-32": (9_416_196, 2_415_170),
}
# The last convolution of the published deep generators, the noise of the published biggan-512.
PUBLISHED_COUNTS = {
    "biggan-deep-128": ({"rgb_channels": 128}, 50_388_609),
    "biggan-deep-256": ({"rgb_channels": 128}, 55_880_833),
    "biggan-deep-512": ({"rgb_channels": 128}, 56_163_905),
    "biggan-512": ({"z_dim": 128}, 82_296_804),
}


def test_parameter_counts():
    for name, (generator, discriminator) in COUNTS.items():
        assert count_parameters(PRESETS[name].generator) == generator, name
        assert count_parameters(PRESETS[name].discriminator) == discriminator, name
    for name, (changes, count) in PUBLISHED_COUNTS.items():
        changed = dataclasses.replace(PRESETS[name].generator, **changes)
        assert count_parameters(changed) == count, name
    baseline = PRESETS["sagan-128"]  # the 81 million of Table 1
    both = map(count_parameters, (baseline.generator, baseline.discriminator))
    assert sum(both) == 81_465_670


def assert_trains(generator_config, discriminator_config, num=1):
    """Images through both networks and back: the right shapes, and a gradient everywhere.

    In eval mode, where BatchNorm does not cancel the biases before it.
    """
    generator = build_generator(generator_config).eval()
    discriminator = build_discriminator(discriminator_config).eval()
    for network in (generator, discriminator):
        if network.config.attention_resolution:
            torch.nn.init.constant_(network.attention.gamma, 0.5)
    labels = torch.full((num,), max(generator_config.num_classes - 1, 0))
    random = torch.Generator().manual_seed(0)
    images = generator(torch.randn(num, generator_config.z_dim, generator=random), labels)
    size = generator_config.resolution
    assert images.shape == (num, generator_config.image_channels, size, size)
    assert images.abs().max() <= 1
    logits = discriminator(images, labels)
    assert logits.shape == (num, 1)
    logits.square().sum().backward()
    for network in (generator, discriminator):
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_runs_and_every_weight_gets_a_gradient(name):
    # a deep block's narrowest layers have an eighth of these channels; too few may all be dead
    changes = {"channels": 16 if "deep" in name else 8, "num_classes": 5}
    assert_trains(
        PRESETS[name].generator.updated(changes), PRESETS[name].discriminator.updated(changes)
    )


def test_unknown_preset_names_the_known_ones():
    with pytest.raises(biggan.InputError, match="biggan-deep-512"):
        biggan.build_generator("biggan-1024")


@pytest.mark.parametrize("name", ["biggan-32", "biggan-deep-128", "sagan-128"])
def test_building_leaves_the_global_stream_of_random_numbers_alone(name):
    preset = PRESETS[name]
    small = {"channels": 16, "num_classes": 3}
    before = torch.random.get_rng_state()
    build_generator(preset.generator.updated(small))
    build_discriminator(preset.discriminator.updated(small))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("image_channels", [1, 3])
@pytest.mark.parametrize("num_classes", [0, 5])
@pytest.mark.parametrize("family", ["biggan", "biggan-deep"])
def test_greyscale_and_unconditional_networks(family, num_classes, image_channels):
    shared = {"num_classes": num_classes, "image_channels": image_channels, "channels": 32}
    deep = {**DEEP, "channels": 32, "z_dim": 12} if family == "biggan-deep" else {}
    assert_trains(
        GeneratorConfig.from_dict(TINY | deep | shared),
        DiscriminatorConfig.from_dict(TINY_DISCRIMINATOR | shared | {"family": family}),
        num=8,
    )


def test_a_network_of_something_else_is_refused():
    config = PRESETS["biggan-32"].generator
    for build, architecture in ((build_generator, 32), (build_discriminator, config)):
        with pytest.raises(biggan.InputError, match="give a preset's name or a"):
            build(architecture)
    with pytest.raises(biggan.InputError, match="the seed must be a whole number, not 'x'"):
        build_generator("biggan-32", seed="x")

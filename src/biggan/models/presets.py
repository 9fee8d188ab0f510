"""The named architectures.

The six that share their names with DeepMind's published weights have the shapes of the paper's
Tables 4 to 9 at the widths of its final models. `sagan-128` is the baseline of its Table 1;
`biggan-64` and `biggan-32` are the small ones that later work settled on, for ImageNet at 64 px and
for CIFAR-10.
"""

from __future__ import annotations

from dataclasses import dataclass

from biggan.errors import InputError, quoted
from biggan.models.config import DiscriminatorConfig, Family, GeneratorConfig


@dataclass(frozen=True)
class Preset:
    """A generator, the discriminator it is trained against, and what the pair is."""

    generator: GeneratorConfig
    discriminator: DiscriminatorConfig
    description: str


def _preset(
    description: str,
    *,
    family: Family = "biggan",
    resolution: int,
    channels: int,
    z_dim: int,
    generator_widths: tuple[int, ...],
    generator_attention: int = 64,
    discriminator_widths: tuple[int, ...],
    discriminator_attention: int = 64,
    down_blocks: int,
    num_classes: int = 1000,
    shared_embedding: bool = True,
    skip_z: bool = True,
) -> Preset:
    return Preset(
        GeneratorConfig(
            family=family,
            resolution=resolution,
            channels=channels,
            widths=generator_widths,
            z_dim=z_dim,
            num_classes=num_classes,
            attention_resolution=generator_attention,
            shared_embedding=shared_embedding,
            skip_z=skip_z,
        ),
        DiscriminatorConfig(
            family=family,
            resolution=resolution,
            channels=channels,
            widths=discriminator_widths,
            down_blocks=down_blocks,
            num_classes=num_classes,
            attention_resolution=discriminator_attention,
        ),
        description,
    )


PRESETS: dict[str, Preset] = {
    "biggan-128": _preset(
        "BigGAN, Table 4",
        resolution=128,
        channels=96,
        z_dim=120,
        generator_widths=(16, 16, 8, 4, 2, 1),
        discriminator_widths=(1, 2, 4, 8, 16, 16),
        down_blocks=5,
    ),
    "biggan-256": _preset(
        "BigGAN, Table 5",
        resolution=256,
        channels=96,
        z_dim=140,
        generator_widths=(16, 16, 8, 8, 4, 2, 1),
        generator_attention=128,
        discriminator_widths=(1, 2, 4, 8, 8, 16, 16),
        down_blocks=6,
    ),
    "biggan-512": _preset(
        "BigGAN, Table 6 (z of 160; the published module has 128)",
        resolution=512,
        channels=96,
        z_dim=160,
        generator_widths=(16, 16, 8, 8, 4, 2, 1, 1),
        discriminator_widths=(1, 1, 2, 4, 8, 8, 16, 16),
        down_blocks=7,
    ),
    "biggan-deep-128": _preset(
        "BigGAN-deep, Table 7",
        family="biggan-deep",
        resolution=128,
        channels=128,
        z_dim=128,
        generator_widths=(16, 16, 8, 4, 2, 1),
        discriminator_widths=(1, 2, 4, 8, 16, 16),
        down_blocks=5,
    ),
    "biggan-deep-256": _preset(
        "BigGAN-deep, Table 8",
        family="biggan-deep",
        resolution=256,
        channels=128,
        z_dim=128,
        generator_widths=(16, 16, 8, 8, 4, 2, 1),
        discriminator_widths=(1, 2, 4, 8, 8, 16, 16),
        down_blocks=6,
    ),
    "biggan-deep-512": _preset(
        "BigGAN-deep, Table 9",
        family="biggan-deep",
        resolution=512,
        channels=128,
        z_dim=128,
        generator_widths=(16, 16, 8, 8, 4, 2, 1, 1),
        discriminator_widths=(1, 1, 2, 4, 8, 8, 16, 16),
        down_blocks=7,
    ),
    "sagan-128": _preset(
        "SA-GAN, the paper's baseline: Table 1, row 1",
        resolution=128,
        channels=64,
        z_dim=128,
        generator_widths=(16, 16, 8, 4, 2, 1),
        discriminator_widths=(1, 2, 4, 8, 16, 16),
        down_blocks=5,
        shared_embedding=False,
        skip_z=False,
    ),
    "biggan-64": _preset(
        "BigGAN at 64 px, ImageNet",
        resolution=64,
        channels=96,
        z_dim=120,
        generator_widths=(16, 16, 8, 4, 2),
        generator_attention=32,
        discriminator_widths=(1, 2, 4, 8, 16),
        discriminator_attention=32,
        down_blocks=4,
    ),
    "biggan-32": _preset(
        "BigGAN at 32 px, CIFAR-10",
        resolution=32,
        channels=96,
        z_dim=80,
        generator_widths=(4, 4, 4, 4),
        generator_attention=16,
        discriminator_widths=(2, 2, 2, 2),
        discriminator_attention=16,
        down_blocks=2,
        num_classes=10,
    ),
}


def get_preset(name: str) -> Preset:
    """Look up a preset.

    Raises:
        InputError: The name is not one of them.
    """
    if name not in PRESETS:
        raise InputError(f"no architecture is named {quoted(name)}; there are {', '.join(PRESETS)}")
    return PRESETS[name]

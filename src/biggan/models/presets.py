"""The named architectures.

The six that share their names with DeepMind's published weights have the shapes of the paper's
Tables 4 to 9 at the widths of its final models. `sagan-128` is the baseline of its Table 1;
`biggan-64` and `biggan-32` are the small ones that later work settled on, for ImageNet at 64 px and
for CIFAR-10.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from biggan.errors import InputError, quoted
from biggan.models.config import DiscriminatorConfig, GeneratorConfig


@dataclass(frozen=True)
class Preset:
    """A generator, the discriminator it is trained against, and what the pair is."""

    generator: GeneratorConfig
    discriminator: DiscriminatorConfig
    description: str


def _preset(
    description: str, generator: dict[str, Any], discriminator: dict[str, Any], both: dict[str, Any]
) -> Preset:
    """A pair by the settings of each and of both."""
    both = {"family": "biggan", "num_classes": 1000, **both}
    configs = GeneratorConfig(**generator, **both), DiscriminatorConfig(**discriminator, **both)
    return Preset(*configs, description)


PRESETS: dict[str, Preset] = {
    "biggan-128": _preset(
        "BigGAN, Table 4",
        {"widths": (16, 16, 8, 4, 2, 1), "z_dim": 120},
        {"widths": (1, 2, 4, 8, 16, 16), "down_blocks": 5},
        {"resolution": 128, "channels": 96},
    ),
    "biggan-256": _preset(
        "BigGAN, Table 5",
        {"widths": (16, 16, 8, 8, 4, 2, 1), "z_dim": 140, "attention_resolution": 128},
        {"widths": (1, 2, 4, 8, 8, 16, 16), "down_blocks": 6},
        {"resolution": 256, "channels": 96},
    ),
    "biggan-512": _preset(
        "BigGAN, Table 6 (z of 160; the published module has 128)",
        {"widths": (16, 16, 8, 8, 4, 2, 1, 1), "z_dim": 160},
        {"widths": (1, 1, 2, 4, 8, 8, 16, 16), "down_blocks": 7},
        {"resolution": 512, "channels": 96},
    ),
    "biggan-deep-128": _preset(
        "BigGAN-deep, Table 7",
        {"widths": (16, 16, 8, 4, 2, 1), "z_dim": 128},
        {"widths": (1, 2, 4, 8, 16, 16), "down_blocks": 5},
        {"family": "biggan-deep", "resolution": 128, "channels": 128},
    ),
    "biggan-deep-256": _preset(
        "BigGAN-deep, Table 8",
        {"widths": (16, 16, 8, 8, 4, 2, 1), "z_dim": 128},
        {"widths": (1, 2, 4, 8, 8, 16, 16), "down_blocks": 6},
        {"family": "biggan-deep", "resolution": 256, "channels": 128},
    ),
    "biggan-deep-512": _preset(
        "BigGAN-deep, Table 9",
        {"widths": (16, 16, 8, 8, 4, 2, 1, 1), "z_dim": 128},
        {"widths": (1, 1, 2, 4, 8, 8, 16, 16), "down_blocks": 7},
        {"family": "biggan-deep", "resolution": 512, "channels": 128},
    ),
    "sagan-128": _preset(
        "SA-GAN, the paper's baseline: Table 1, row 1",
        {"widths": (16, 16, 8, 4, 2, 1), "z_dim": 128, "shared_embedding": False, "skip_z": False},
        {"widths": (1, 2, 4, 8, 16, 16), "down_blocks": 5},
        {"resolution": 128, "channels": 64},
    ),
    "biggan-64": _preset(
        "BigGAN at 64 px, ImageNet",
        {"widths": (16, 16, 8, 4, 2), "z_dim": 120, "attention_resolution": 32},
        {"widths": (1, 2, 4, 8, 16), "down_blocks": 4, "attention_resolution": 32},
        {"resolution": 64, "channels": 96},
    ),
    "biggan-32": _preset(
        "BigGAN at 32 px, CIFAR-10",
        {"widths": (4, 4, 4, 4), "z_dim": 80, "attention_resolution": 16},
        {"widths": (2, 2, 2, 2), "down_blocks": 2, "attention_resolution": 16},
        {"resolution": 32, "channels": 96, "num_classes": 10},
    ),
}


def get_preset(name: str) -> Preset:
    """Look up a preset by its name."""
    if name not in PRESETS:
        raise InputError(f"no architecture is named {quoted(name)}; there are {', '.join(PRESETS)}")
    return PRESETS[name]

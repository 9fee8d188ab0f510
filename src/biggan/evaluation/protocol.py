"""Everything besides the images that decides a figure, chosen before they are made."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import Any

import torch

from biggan._version import __version__
from biggan.latents import NoiseKind
from biggan.metrics.extractor import FeatureExtractor


@dataclass(frozen=True)
class Protocol:
    """How many images are made, and of what noise.

    Attributes:
        num: Images; the paper takes 50,000.
        seed: Of the noise. Classes take turns.
        noise: What truncation means.
        batch_size: Images at once; None for what suits the device.
    """

    num: int = 50_000
    seed: int = 0
    noise: NoiseKind = "hub"
    batch_size: int | None = None


def describe_extractor(extractor: FeatureExtractor) -> dict[str, Any]:
    """What an evaluation says of its extractor."""
    return {
        "name": extractor.name,
        "sha256": extractor.sha256,
        "resize": extractor.resize,
        "dim": extractor.dim,
    }


def versions() -> dict[str, str]:
    """The software that took part."""
    return {
        "biggan": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }

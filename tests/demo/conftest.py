"""A generator small enough for a page to be quick, with random weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from biggan import Gan, GeneratorConfig, build_generator
from biggan.weights.files import Description

if TYPE_CHECKING:
    from collections.abc import Callable

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@pytest.fixture(scope="session")
def make_gan() -> Callable[..., Gan]:
    """Makes a generator with the digits as its classes, 16 pixels a side, unless told otherwise."""
    return _make_gan


def _make_gan(class_names: tuple[str, ...] = DIGITS, resolution: int = 16) -> Gan:
    stages = {8: 1, 16: 2, 128: 5}[resolution]
    config = GeneratorConfig(
        family="biggan",
        resolution=resolution,
        channels=2,
        widths=(1,) * (stages + 1),
        z_dim=2 * (stages + 1),
        num_classes=len(class_names),
        attention_resolution=0,
        class_dim=4,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = build_generator(config).eval()
    return Gan(generator, Description("tiny", class_names, "a test", "CC0"), "0" * 64)

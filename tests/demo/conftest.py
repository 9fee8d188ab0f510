"""A generator small enough for a page to be quick, with random weights."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
import torch

from biggan import Gan, GeneratorConfig, build_generator
from biggan.weights.files import Description

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from PIL import Image

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


class GatedGan(Gan):
    """Draws a picture, or a frame of a video, for each that is let through; counts them."""

    def __init__(self, gan: Gan) -> None:
        super().__init__(gan.generator, gan.description, gan.sha256)
        self.drawn = 0
        self._gate = threading.Semaphore(0)

    def let_through(self, pictures: int) -> None:
        self._gate.release(pictures)

    def draw(self, recipes: Any) -> Iterator[Image.Image]:
        return self._gated(super().draw(recipes))

    def draw_video(self, recipe: Any) -> Iterator[list[Image.Image]]:
        return self._gated(super().draw_video(recipe))

    def _gated(self, pictures: Iterator[Any]) -> Iterator[Any]:
        for picture in pictures:
            self._gate.acquire(timeout=20)
            self.drawn += 1
            yield picture


@pytest.fixture
def gated() -> GatedGan:
    return GatedGan(_make_gan())

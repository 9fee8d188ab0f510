"""What the discriminator sees: images augmented and with noise, its features with dropout.

Everything that is done to real and generated images on their way through the discriminator is drawn
and applied here. Augmentation is for small data; instance noise and dropout are remedies that the
paper or others tried against collapse (docs/remedies.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from biggan.errors import quoted, require
from biggan.models import DiscriminatorConfig
from biggan.training.randomness import Purpose, random_generator

if TYPE_CHECKING:
    from biggan.training.adaptive_augmentation import AdaptiveAugmentation
    from biggan.training.diffaugment import DiffAugment

AugmentationKind = Literal["none", "diffaugment", "ada"]

_DIFFAUGMENT = ("color", "translation", "cutout")


@dataclass(frozen=True)
class AugmentationConfig:
    """Augmentation of all that the discriminator sees, for small data; off by default."""

    kind: AugmentationKind = "none"
    """`none`; `diffaugment`, always (Zhao et al. 2020); or `ada`, as often as the discriminator's
    confidence calls for (Karras et al. 2020)."""
    policy: str = "color,translation,cutout"
    """What DiffAugment does, in this order; a part of it may be left out."""
    target: float = 0.6
    """ADA: E[sign(D(real))] to hold; 0.6 means that D finds four of five real images real."""
    images: int = 500_000
    """ADA: real images over which the probability may move from 0 to 1."""

    def __post_init__(self) -> None:
        require(
            self.kind in get_args(AugmentationKind),
            f"augmentation.kind must be one of {', '.join(get_args(AugmentationKind))}",
        )
        parts = self.policy.split(",")
        fits = set(parts) <= set(_DIFFAUGMENT) and len(set(parts)) == len(parts)
        require(
            fits or self.kind != "diffaugment",
            f"augmentation.policy lists some of {', '.join(_DIFFAUGMENT)}, each once and without "
            f"spaces, not {quoted(self.policy)}",
        )
        require(-1 < self.target < 1, "augmentation.target must be between -1 and 1")
        require(self.images >= 1, "augmentation.images must be at least 1")


@dataclass(frozen=True)
class InstanceNoiseConfig:
    """Gaussian noise on all that the discriminator sees (Soenderby et al. 2017)."""

    std: float = 0.0
    """Standard deviation at the start, where pixels are in [-1, 1]; 0 for none."""
    until: int = 0
    """Step at which it has fallen to 0, linearly; 0 for a constant."""

    def __post_init__(self) -> None:
        require(0 <= self.std < math.inf, "instance_noise.std must be 0 or above")
        require(self.until >= 0, "instance_noise.until must be 0 or above")

    def std_at(self, step: int) -> float:
        """The standard deviation after so many steps."""
        remaining = 1 - step / self.until if self.until > 0 else 1.0
        return self.std * max(0.0, remaining)


@dataclass(frozen=True)
class DropoutConfig:
    """Dropout on what the discriminator's last layer sees (Appendix F)."""

    keep: float = 1.0
    """Probability of keeping a feature; 1 for no dropout, the paper's is 0.8."""

    def __post_init__(self) -> None:
        require(0 < self.keep <= 1, "dropout.keep must be above 0 and at most 1")


@dataclass(frozen=True)
class Draws:
    """Random numbers for the augmentation of N images; None for what is off."""

    numbers: Tensor | None = None
    """Those of DiffAugment or ADA, a row for each image."""
    noise: Tensor | None = None
    """Added to the images after that: (N, C, R, R)."""
    mask: Tensor | None = None
    """Multiplies the features that the last layer sees: (N, features), 0 or 1 / keep."""

    def map(self, change: Callable[[Tensor], Tensor]) -> Draws:
        """The same with every tensor changed."""
        tensors = (self.numbers, self.noise, self.mask)
        return Draws(*(None if t is None else change(t) for t in tensors))


class Augmentation:
    """What is done to images on their way through the discriminator.

    Args:
        config: The augmentation.
        noise: The instance noise.
        dropout: The dropout.
        shape: Of the discriminator.
    """

    def __init__(
        self,
        config: AugmentationConfig,
        noise: InstanceNoiseConfig,
        dropout: DropoutConfig,
        shape: DiscriminatorConfig,
    ) -> None:
        self._noise, self._dropout, self._shape = noise, dropout, shape
        self.transform: DiffAugment | AdaptiveAugmentation | None = None
        """DiffAugment or ADA, whose state belongs into a checkpoint; None for neither."""
        self.ada: AdaptiveAugmentation | None = None
        """The transform if it is ADA."""
        if config.kind == "diffaugment":
            from biggan.training.diffaugment import DiffAugment

            self.transform = DiffAugment(config.policy)
        elif config.kind == "ada":
            from biggan.training.adaptive_augmentation import AdaptiveAugmentation

            self.ada = AdaptiveAugmentation(shape.resolution, config.target, config.images)
            self.transform = self.ada

    def draw(self, num: int, seed: int, step: int, *position: int) -> Draws:
        """Draw the random numbers for a global batch of images, on the CPU.

        Args:
            num: How many images.
            seed: The run's.
            step: Where in the run.
            position: Where in the step the images are, and which of them they are.
        """
        shape, numbers, noise, mask = self._shape, None, None, None
        if self.transform is not None:
            random = random_generator(seed, Purpose.AUGMENTATION, step, *position)
            numbers = self.transform.draw(num, random)
        std = self._noise.std_at(step)
        if std > 0:
            random = random_generator(seed, Purpose.INSTANCE_NOISE, step, *position)
            size = (num, shape.image_channels, shape.resolution, shape.resolution)
            noise = std * torch.randn(size, generator=random)
        keep = self._dropout.keep
        if keep < 1:
            random = random_generator(seed, Purpose.DROPOUT, step, *position)
            features = shape.channels * shape.widths[-1]
            mask = (torch.rand(num, features, generator=random) < keep).float() / keep
        return Draws(numbers, noise, mask)

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """Images (N, C, R, R) as the discriminator sees them, by random numbers for them."""
        if self.transform is not None:
            # In float32 whatever the networks compute in: positions need more than 8 bits.
            with torch.autocast(images.device.type, enabled=False):
                images = self.transform(images, draws.numbers)
        return images if draws.noise is None else images + draws.noise

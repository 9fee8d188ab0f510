"""Random disturbances of the discriminator: noise on its images, dropout on its features.

Both are remedies that the paper or others tried against collapse (docs/remedies.md). The numbers
are drawn on the CPU for the whole global batch, as a pure function of the seed and the place in the
run (`randomness`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from biggan.distributed import own_share
from biggan.training.batches import to_device
from biggan.training.config import TrainConfig
from biggan.training.randomness import Purpose, random_generator


@dataclass(frozen=True)
class Perturbation:
    """What is done to images, and to their features, on their way through the discriminator."""

    noise: Tensor | None = None
    """Added to the images: (N, C, R, R); None for none."""
    mask: Tensor | None = None
    """Multiplies the features that the last layer sees: (N, features), 0 or 1 / keep; None for
    none."""

    def part(self, index: int, parts: int) -> Perturbation:
        """That of the index-th of so many micro-batches."""
        return Perturbation(_part(self.noise, index, parts), _part(self.mask, index, parts))

    def on(self, images: Tensor) -> Tensor:
        """Images (N, C, R, R) with the noise."""
        return images if self.noise is None else images + self.noise

    def own_share(self, config: TrainConfig, device: torch.device) -> Perturbation:
        """This process's share of a global batch's, on its device."""
        noise, mask = (
            None if t is None else to_device(own_share(t, config.accumulation), device)
            for t in (self.noise, self.mask)
        )
        return Perturbation(noise, mask)


UNPERTURBED = Perturbation()


def draw_perturbation(config: TrainConfig, step: int, *position: int) -> Perturbation:
    """Draw what disturbs a global batch of images.

    Args:
        config: The recipe.
        step: Where in the run: noise fades.
        position: Where in the step the images are, and which of them they are.

    Returns:
        On the CPU.
    """
    shape, noise, mask = config.discriminator, None, None
    std = noise_std(config, step)
    if std > 0:
        random = random_generator(config.seed, Purpose.INSTANCE_NOISE, step, *position)
        image = (shape.image_channels, shape.resolution, shape.resolution)
        noise = std * torch.randn(config.batch_size, *image, generator=random)
    keep = config.dropout.keep
    if keep < 1:
        random = random_generator(config.seed, Purpose.DROPOUT, step, *position)
        features = shape.channels * shape.widths[-1]
        kept = torch.rand(config.batch_size, features, generator=random) < keep
        mask = kept.float() / keep
    return Perturbation(noise, mask)


def noise_std(config: TrainConfig, step: int) -> float:
    """The standard deviation of instance noise when so many steps are done."""
    settings = config.instance_noise
    remaining = 1 - step / settings.until if settings.until > 0 else 1.0
    return settings.std * max(0.0, remaining)


def joined(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """Two batches' masks as one batch's."""
    return None if first is None or second is None else torch.cat([first, second])


def _part(values: Tensor | None, index: int, parts: int) -> Tensor | None:
    if values is None:
        return None
    size = len(values) // parts
    return values[index * size : (index + 1) * size]

"""What a run does to images before its discriminator sees them."""

from __future__ import annotations

import torch
from torch import Tensor

from biggan.training.adaptive_augmentation import AdaptiveAugmentation
from biggan.training.config import TrainConfig
from biggan.training.diffaugment import DiffAugment
from biggan.training.randomness import Purpose, random_generator

Augmenter = DiffAugment | AdaptiveAugmentation


def build_augmentation(config: TrainConfig) -> Augmenter | None:
    """The augmentation that a recipe asks for, in its first state; None for none."""
    if config.augmentation.kind == "diffaugment":
        return DiffAugment(config.augmentation.policy)
    if config.augmentation.kind == "ada":
        return AdaptiveAugmentation(config.augmentation, config.generator.resolution)
    return None


def draw_augmentation(
    augmentation: Augmenter | None, config: TrainConfig, *position: int
) -> Tensor | None:
    """Random numbers that augment a global batch of images.

    Args:
        augmentation: Whose numbers; None for none.
        config: The recipe.
        position: Where in the run the images are, and which of them they are.

    Returns:
        (batch_size, numbers for an image) on the CPU, or None without augmentation.
    """
    if augmentation is None:
        return None
    random = random_generator(config.seed, Purpose.AUGMENTATION, *position)
    return augmentation.draw(config.batch_size, random)


def augmented(augmentation: Augmenter | None, images: Tensor, numbers: Tensor | None) -> Tensor:
    """Images (N, C, R, R) as the discriminator sees them: unchanged without augmentation."""
    if augmentation is None:
        return images
    assert numbers is not None, "an augmentation needs the numbers that were drawn for it"
    # In float32 whatever the networks compute in: positions of pixels need more than 8 bits.
    with torch.autocast(images.device.type, enabled=False):
        result: Tensor = augmentation(images, numbers)
        return result

"""What the discriminator sees: images augmented and with noise, its features with dropout.

Everything that is done to real and generated images on their way through the discriminator is drawn
and applied here. Instance noise and dropout are remedies that the paper or others tried against
collapse (docs/remedies.md). Augmentation is for small data: ADA (`adaptive_augmentation`) or
DiffAugment (Zhao et al. 2020, "Differentiable Augmentation for Data-Efficient GAN Training",
https://arxiv.org/abs/2006.10738), with the strengths of its image experiments:

    color        brightness + U(-0.5, 0.5); then saturation * U(0, 2), about each pixel's mean over
                 channels; then contrast * U(0.5, 1.5), about the image's mean
    translation  by up to an eighth of the side each way, in whole pixels, zeros moving in
    cutout       a square of half the side becomes 0; its centre is anywhere in the image

The generator's gradient comes back through it. Randomness is drawn apart from its use, as one row
of numbers per image: a process draws those of the whole global batch and applies any part of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from biggan.errors import quoted, require
from biggan.models import DiscriminatorConfig
from biggan.training.randomness import Purpose, random_generator

if TYPE_CHECKING:
    from biggan.training.adaptive_augmentation import AdaptiveAugmentation

_DIFFAUGMENT = ("color", "translation", "cutout")
_COLUMNS = 7  # brightness, saturation, contrast; shift down, right; cutout's row, column
_TRANSLATION = 1 / 8  # of the side
_CUTOUT = 1 / 2


@dataclass(frozen=True)
class AugmentationConfig:
    """Augmentation of all that the discriminator sees, for small data; off by default."""

    kind: Literal["none", "diffaugment", "ada"] = "none"
    """`none`; `diffaugment`, always (Zhao et al. 2020); or `ada`, as often as the discriminator's
    confidence calls for (Karras et al. 2020)."""
    policy: str = "color,translation,cutout"
    """What DiffAugment does, in this order; a part of it may be left out."""
    target: float = 0.6
    """ADA: E[sign(D(real))] to hold; 0.6 means that D finds four of five real images real."""
    images: int = 500_000
    """ADA: real images over which the probability may move from 0 to 1."""

    def __post_init__(self) -> None:
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
    """Random numbers for N images; None for what is off."""

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
    """What is done to images on their way through a discriminator of some shape."""

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
            self.transform = DiffAugment(config.policy)
        elif config.kind == "ada":
            from biggan.training.adaptive_augmentation import AdaptiveAugmentation

            self.ada = AdaptiveAugmentation(shape.resolution, config.target, config.images)
            self.transform = self.ada

    def draw(self, num: int, seed: int, step: int, *position: int) -> Draws:
        """Draw the random numbers for a global batch of images, on the CPU.

        `position` is where in the step the images are, and which of them they are.
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


class DiffAugment(nn.Module):
    """Augments images by a policy: some of `color`, `translation` and `cutout`, in this order."""

    def __init__(self, policy: str = "color,translation,cutout") -> None:
        super().__init__()
        self.policy = tuple(policy.split(","))

    @staticmethod
    def draw(num_images: int, random: torch.Generator) -> Tensor:
        """Numbers uniform in [0, 1), (num_images, 7), on the CPU, whatever the policy."""
        return torch.rand(num_images, _COLUMNS, generator=random)

    def forward(self, images: Tensor, numbers: Tensor) -> Tensor:
        """Images (N, C, R, R) of the same type, by numbers (N, 7); colours may leave [-1, 1]."""
        resolution = images.shape[-1]
        furthest = _round_half_up(_TRANSLATION * resolution)
        # A square of even side lies between pixels, of which there is one border more.
        centres = resolution + 1 - _round_half_up(_CUTOUT * resolution) % 2
        color, moves, cutout = numbers.split([3, 2, 2], dim=1)
        for part in self.policy:
            if part == "color":
                images = change_colors(images, color)
            elif part == "translation":
                down, right = (_whole(move, 2 * furthest + 1) - furthest for move in moves.T)
                images = translate(images, down, right)
            else:
                assert part == "cutout"
                row, column = (_whole(number, centres) for number in cutout.T)
                images = cut_out(images, row, column)
        return images


def change_colors(images: Tensor, numbers: Tensor) -> Tensor:
    """Change brightness, saturation and contrast by uniform numbers (N, 3) in [0, 1).

    In float32 at least; grey images, (N, 1, R, R), have no saturation.
    """
    dtype = torch.promote_types(images.dtype, torch.float32)
    # each (N, 1, 1, 1)
    brightness, saturation, contrast = numbers.to(dtype)[:, :, None, None, None].unbind(dim=1)
    changed = images.to(dtype) + (brightness - 0.5)
    if images.shape[1] > 1:
        grey = changed.mean(dim=1, keepdim=True)
        changed = grey + (changed - grey) * (2 * saturation)
    mean = changed.mean(dim=(1, 2, 3), keepdim=True)
    return (mean + (changed - mean) * (contrast + 0.5)).to(images.dtype)


def translate(images: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Move each image by whole pixels (N,), int64, negative for up or left; zeros move in."""
    resolution = images.shape[-1]
    along = torch.arange(resolution, device=images.device)
    rows, columns = along - down[:, None], along - right[:, None]  # where from, (N, R)
    from_rows, from_columns = (index.clamp(0, resolution - 1) for index in (rows, columns))
    outside = (rows != from_rows)[:, :, None] | (columns != from_columns)[:, None, :]
    moved = take_pixels(images, from_rows[:, :, None], from_columns[:, None, :])
    return moved.masked_fill(outside[:, None], 0)


def cut_out(images: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Set a square of half the side to 0, as far as it is inside the images (N, C, R, R).

    `row` and `column` (N,) are of the pixel at its centre, or behind the centre for an even side.
    """
    resolution = images.shape[-1]
    side = _round_half_up(_CUTOUT * resolution)
    along = torch.arange(resolution, device=images.device)

    def covered(centre: Tensor) -> Tensor:
        first = centre[:, None] - side // 2
        return (along >= first) & (along < first + side)  # (N, R)

    square = covered(row)[:, :, None] & covered(column)[:, None, :]
    return images.masked_fill(square[:, None], 0)


def take_pixels(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Make images (N, C, R, R) of other images' pixels.

    `rows` and `columns` say where to take each pixel from: int64, broadcast to (N, R, R).
    """
    channels, resolution = images.shape[1], images.shape[-1]
    sources = (rows * resolution + columns).expand(-1, resolution, resolution)
    sources = sources.flatten(1)[:, None].expand(-1, channels, -1)
    return images.flatten(2).gather(2, sources).view(images.shape)


def _whole(number: Tensor, count: int) -> Tensor:
    """One of 0 ... count - 1, all alike, from a uniform number in [0, 1)."""
    # The largest number, 1 - 2**-24, times a whole one is never rounded up to it.
    return (number * count).long()


def _round_half_up(value: float) -> int:
    """The nearest whole number, the upper of two."""
    return int(value + 0.5)

"""DiffAugment: augmentation of everything that the discriminator sees, for small data.

Zhao et al. 2020, "Differentiable Augmentation for Data-Efficient GAN Training",
https://arxiv.org/abs/2006.10738, with the strengths of its image experiments:

    color        brightness + U(-0.5, 0.5); then saturation * U(0, 2), about each pixel's mean over
                 channels; then contrast * U(0.5, 1.5), about the image's mean
    translation  by up to an eighth of the side each way, in whole pixels, zeros moving in
    cutout       a square of half the side becomes 0; its centre is anywhere in the image

Real and generated images go through it alike, and the generator's gradient comes back through it.

Randomness is drawn apart from its use, as one row of numbers per image: a process can draw
those of the whole global batch and apply any part of them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_COLUMNS = 7  # brightness, saturation, contrast; shift down, right; cutout's row, column
_TRANSLATION = 1 / 8  # of the side
_CUTOUT = 1 / 2


class DiffAugment(nn.Module):
    """Augments images by a policy. It has no state.

    Args:
        policy: Some of `color`, `translation` and `cutout`, separated by commas, in the order in
            which to do them.
    """

    def __init__(self, policy: str = "color,translation,cutout") -> None:
        super().__init__()
        self.policy = tuple(policy.split(","))

    @staticmethod
    def draw(num_images: int, random: torch.Generator) -> Tensor:
        """The random numbers for so many images.

        Returns:
            Uniform in [0, 1), (num_images, 7), on the CPU. The policy does not change them.
        """
        return torch.rand(num_images, _COLUMNS, generator=random)

    def forward(self, images: Tensor, numbers: Tensor) -> Tensor:
        """Augment images.

        Args:
            images: (N, C, R, R) in [-1, 1].
            numbers: What `draw` gave for them, (N, 7), on their device.

        Returns:
            (N, C, R, R) of the same type; colours may leave [-1, 1].
        """
        color, translation, cutout = numbers.split([3, 2, 2], dim=1)
        for part in self.policy:
            if part == "color":
                images = change_colors(images, color)
            elif part == "translation":
                images = _translate_randomly(images, translation)
            else:
                assert part == "cutout"
                images = _cut_out_randomly(images, cutout)
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
        changed = _scale_about(changed.mean(dim=1, keepdim=True), changed, 2 * saturation)
    mean = changed.mean(dim=(1, 2, 3), keepdim=True)
    return _scale_about(mean, changed, contrast + 0.5).to(images.dtype)


def translate(images: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Move each image by whole pixels; zeros move in.

    Args:
        images: (N, C, R, R).
        down: Pixels (N,), int64, negative for up.
        right: Pixels (N,), int64, negative for left.

    Returns:
        (N, C, R, R).
    """
    resolution = images.shape[-1]
    along = torch.arange(resolution, device=images.device)
    rows, columns = along - down[:, None], along - right[:, None]  # where from, (N, R)
    outside = _outside(rows, resolution)[:, :, None] | _outside(columns, resolution)[:, None, :]
    last = resolution - 1
    moved = take_pixels(images, rows.clamp(0, last)[:, :, None], columns.clamp(0, last)[:, None, :])
    return moved.masked_fill(outside[:, None], 0)


def cut_out(images: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Set a square of half the side to 0, as far as it is inside the image.

    Args:
        images: (N, C, R, R).
        row: Of the pixel at the square's centre, or below the centre for an even side; (N,).
        column: The same across.

    Returns:
        (N, C, R, R).
    """
    resolution = images.shape[-1]
    side = _cutout_side(resolution)
    along = torch.arange(resolution, device=images.device)

    def covered(centre: Tensor) -> Tensor:
        first = centre[:, None] - side // 2
        return (along >= first) & (along < first + side)  # (N, R)

    square = covered(row)[:, :, None] & covered(column)[:, None, :]
    return images.masked_fill(square[:, None], 0)


def take_pixels(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Make images of other images' pixels.

    Args:
        images: (N, C, R, R).
        rows: For each pixel, the row to take it from; int64, broadcast to (N, R, R).
        columns: The same for columns.

    Returns:
        (N, C, R, R).
    """
    channels, resolution = images.shape[1], images.shape[-1]
    sources = (rows * resolution + columns).expand(-1, resolution, resolution)
    sources = sources.flatten(1)[:, None].expand(-1, channels, -1)
    return images.flatten(2).gather(2, sources).view(images.shape)


def _translate_randomly(images: Tensor, numbers: Tensor) -> Tensor:
    furthest = _round_half_up(_TRANSLATION * images.shape[-1])
    down, right = (_whole(number, 2 * furthest + 1) - furthest for number in numbers.unbind(dim=1))
    return translate(images, down, right)


def _cut_out_randomly(images: Tensor, numbers: Tensor) -> Tensor:
    resolution = images.shape[-1]
    # A square of even side lies between pixels, of which there is one border more.
    centres = resolution + 1 - _cutout_side(resolution) % 2
    row, column = (_whole(number, centres) for number in numbers.unbind(dim=1))
    return cut_out(images, row, column)


def _scale_about(centre: Tensor, values: Tensor, factor: Tensor) -> Tensor:
    return centre + (values - centre) * factor


def _cutout_side(resolution: int) -> int:
    return _round_half_up(_CUTOUT * resolution)


def _whole(number: Tensor, count: int) -> Tensor:
    """One of 0 ... count - 1, all alike, from a uniform number in [0, 1)."""
    # The largest number, 1 - 2**-24, times a whole one is never rounded up to it.
    return (number * count).long()


def _outside(index: Tensor, resolution: int) -> Tensor:
    return (index < 0) | (index >= resolution)


def _round_half_up(value: float) -> int:
    """The nearest whole number, the upper of two."""
    return int(value + 0.5)

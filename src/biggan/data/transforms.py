"""From a picture of any size to the square that a network trains on."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def fit_square(image: Image.Image, resolution: int) -> Image.Image:
    """Cut the middle square out of a picture and scale it.

    The paper crops along the long edge and scales by area; here Lanczos shrinks (Pillow widens the
    filter by the factor, so it does not alias) because it keeps edges that area averaging blurs,
    as the later GAN datasets do. Bicubic enlarges. A square of the right size is not resampled:
    its pixels stay as they are.

    Args:
        image: A picture in mode L or RGB.
        resolution: The side of the result in pixels.

    Returns:
        A square picture in the same mode.
    """
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    if image.size != (side, side):
        image = image.crop((left, top, left + side, top + side))
    if side == resolution:
        return image
    shrinks = side > resolution
    resampling = Image.Resampling.LANCZOS if shrinks else Image.Resampling.BICUBIC
    return image.resize((resolution, resolution), resampling)


def to_array(image: Image.Image) -> NDArray[np.uint8]:
    """The pixels of a picture in mode L or RGB as uint8 (C, H, W)."""
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[np.newaxis] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)

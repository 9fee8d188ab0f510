"""The built-in dataset: scikit-learn's 1797 handwritten digits.

They come with a package, so that training can be tried, tested and taught without a download.
"""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from biggan.data.decoding import MODES
from biggan.data.transforms import fit_square, to_array
from biggan.errors import InputError

CLASS_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def load_digits(resolution: int, channels: int) -> tuple[Tensor, Tensor]:
    """Draw the digits at a resolution.

    Args:
        resolution: The side in pixels; the originals have 8 and are enlarged bicubically.
        channels: 1 for grey, 3 for the same in each colour.

    Returns:
        uint8 images (1797, channels, resolution, resolution) and int64 labels (1797,).

    Raises:
        InputError: scikit-learn is not installed.
    """
    try:
        from sklearn import datasets
    except ImportError as error:
        raise InputError(
            "the built-in digits need scikit-learn: pip install 'biggan[train]'"
        ) from error
    bunch = datasets.load_digits()
    levels = np.round(bunch.images * (255 / 16)).astype(np.uint8)  # (1797, 8, 8), from 0..16
    pictures = [fit_square(Image.fromarray(digit), resolution) for digit in levels]
    images = np.stack([to_array(picture.convert(MODES[channels])) for picture in pictures])
    return torch.from_numpy(images), torch.from_numpy(bunch.target.astype(np.int64))

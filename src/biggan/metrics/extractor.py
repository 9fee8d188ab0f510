"""What a feature extractor is, and how images are resized for it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F


class Features(NamedTuple):
    """What a network makes of N images."""

    features: Tensor
    """float32 (N, dim), whose distances are compared."""
    logits: Tensor
    """float32 (N, num_classes); their softmax is the distribution over classes."""


class FeatureExtractor(Protocol):
    """A trained classifier whose penultimate layer gives the features.

    Attributes:
        name: As it stands beside every figure, such as "TF-Inception 2015-12-05".
        sha256: Digest of its weights file.
        resize: How images of another size are brought to the network's.
        channels: Of the images it takes: 1 for grey, 3 for colour.
        dim: Width of the features.
        num_classes: Width of the logits.
    """

    name: str
    sha256: str
    resize: str
    channels: int
    dim: int
    num_classes: int

    def extract(self, images: Tensor) -> Features:
        """Extract the features of images, uint8 (N, channels, H, W), of any size.

        Image k's features do not depend on the other images.
        """


def reproducible_convolutions() -> AbstractContextManager[None]:
    """On a GPU: the same algorithm each time, and float32 in full."""
    return torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )


def resize_like_pillow(images: Tensor, side: int) -> Tensor:
    """Resize images as Pillow does floats with BICUBIC: antialiased, clipped, not rounded.

    Args:
        images: (N, C, H, W) in [0, 255].
        side: Of the result, in pixels.

    Returns:
        float32 (N, C, side, side) in [0, 255].
    """
    resized = F.interpolate(
        images.float(), (side, side), mode="bicubic", align_corners=False, antialias=True
    )
    return resized.clamp(0, 255)  # bicubic interpolation overshoots at edges


def resize_like_tensorflow(images: Tensor, side: int) -> Tensor:
    """Resize images as `ResizeBilinear` does in TensorFlow 1, without aligned corners.

    Pixel i of the result lies at i * H / side, between two pixels of the image or at its last.

    Args:
        images: (N, C, H, W), of integers or floats.
        side: Of the result, in pixels.

    Returns:
        (N, C, side, side), in the images' own precision if they are floats, else float32: rounded
        as TensorFlow rounds, to the last bit.
    """
    for axis in (3, 2):  # rows first, as TensorFlow: sums of floats depend on the order
        length = images.shape[axis]
        place = torch.arange(side, dtype=torch.float32, device=images.device) * (length / side)
        before = place.long()
        after = (before + 1).clamp(max=length - 1)
        weight = (place - before) if axis == 3 else (place - before)[:, None]
        left, right = images.index_select(axis, before), images.index_select(axis, after)
        if not images.is_floating_point():
            left, right = left.float(), right.float()
        images = left + (right - left) * weight
    return images

"""What a feature extractor is, and how images are resized for it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from biggan.errors import InputError


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


def check_images(images: Tensor, channels: int, network: str) -> None:
    """Refuse images that an extractor does not take."""
    if images.dtype != torch.uint8 or images.ndim != 4:
        found = f"{images.dtype} {tuple(images.shape)}"
        raise ValueError(f"expected uint8 images (N, {channels}, H, W), got {found}")
    if images.shape[1] != channels:
        raise InputError(
            f"{network} needs images with {channels} channels, not {images.shape[1]}: load the "
            "images that way"
        )


def reproducible_convolutions() -> AbstractContextManager[None]:
    """On a GPU: the same algorithm each time, and float32 in full."""
    return torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )


def resize_like_pillow(images: Tensor, side: int) -> Tensor:
    """Resize images in [0, 255] as Pillow does floats with BICUBIC: antialiased, not rounded."""
    resized = F.interpolate(
        images.float(), (side, side), mode="bicubic", align_corners=False, antialias=True
    )
    return resized.clamp(0, 255)  # bicubic interpolation overshoots at edges


def resize_like_tensorflow(images: Tensor, side: int) -> Tensor:
    """Resize images as `ResizeBilinear` does in TensorFlow 1, without aligned corners.

    Pixel i of the result lies at i * H / side, between two pixels of the image or at its last.
    Rounding is TensorFlow's, to the last bit; integers become float32.
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

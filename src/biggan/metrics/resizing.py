"""Bringing images to a network's size, as other software does: figures depend on it."""

import torch
from torch import Tensor
from torch.nn import functional as F


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
    for axis in (3, 2):  # along each row first, as TensorFlow: sums of floats depend on the order
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

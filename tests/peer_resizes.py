"""Resizes of other software, written out or asked of it."""

import numpy as np
import torch
from PIL import Image


def resized_as_tensorflow(images, side):
    """Of (N, C, H, W) in float32 throughout: the kernel of TensorFlow 1's ResizeBilinear."""
    f = np.float32
    before, after, weight = [], [], []
    for length in images.shape[2:]:
        place = np.arange(side, dtype=f) * (f(length) / f(side))
        before.append(np.floor(place).astype(int))
        after.append(np.minimum(before[-1] + 1, length - 1))
        weight.append(place - before[-1].astype(f))
    (top, left), (bottom, right), (dy, dx) = before, after, weight
    a, b, c, d = (
        images[..., rows[:, None], columns].astype(f)
        for rows, columns in ((top, left), (top, right), (bottom, left), (bottom, right))
    )
    above, below = a + (b - a) * dx, c + (d - c) * dx
    return torch.from_numpy(above + (below - above) * dy[:, None])


def resized_as_pillow(images, side):
    """Of uint8 (N, C, H, W), each channel as a picture of floats: clean-fid's way."""
    channels = [
        Image.fromarray(channel.numpy().astype(np.float32)).resize(
            (side, side), Image.Resampling.BICUBIC
        )
        for channel in images.flatten(0, 1)
    ]
    resized = torch.from_numpy(np.stack([np.array(channel) for channel in channels]))
    return resized.reshape(*images.shape[:2], side, side).clamp(0, 255)

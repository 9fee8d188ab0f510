"""Changes of resolution, and their exact fusion with the 3x3 convolution beside them.

Upsampling to the nearest neighbour and then convolving 3x3 reads every input pixel 36 times for 16
distinct products; so does convolving and then averaging 2x2. Both equal one 4x4 convolution of
stride 2 whose kernel is made of sums of the 3x3 kernel's entries, at 16 multiplications. The sums
are linear, so gradients flow through them, and the result differs by rounding alone.

On one axis, with the kernel (a, b, c):

    output 2i   of up+conv reads  x[i-1] a + x[i] (b+c)
    output 2i+1 of up+conv reads  x[i] (a+b) + x[i+1] c      -> transposed kernel (c, b+c, a+b, a)
    conv+pool averages 2i, 2i+1:  (a, a+b, b+c, c) / 2 on x[2i-1] ... x[2i+2]
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# Below this many pixels a side the 4x4 kernels' own cost outweighs what they save: measured on two
# CPU cores, forward and backward (benchmarks/resampling.py).
_FUSE_FROM = 16

_UPSAMPLE = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 1.0], [1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
_POOL = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 1.0, 1.0], [0.0, 0.0, 1.0]]) / 2


def upsample(x: Tensor) -> Tensor:
    """Double the resolution of x (N, C, H, W), each pixel becoming a 2x2 square."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def average_pool(x: Tensor) -> Tensor:
    """Halve the resolution of x (N, C, H, W), each 2x2 square becoming its mean."""
    return F.avg_pool2d(x, 2)


def upsample_convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Upsample, then convolve 3x3.

    Args:
        x: (N, C, H, W).
        weight: (out, C, 3, 3).
        bias: (out,) or None.

    Returns:
        (N, out, 2H, 2W), equal to `conv2d(upsample(x), weight, bias, padding=1)`.
    """
    if 2 * min(x.shape[2:]) < _FUSE_FROM:
        return F.conv2d(upsample(x), weight, bias, padding=1)
    kernel = _widen(weight, _UPSAMPLE).transpose(0, 1)  # (C, out, 4, 4)
    return F.conv_transpose2d(x, kernel, bias, stride=2, padding=1)


def convolve_average_pool(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve 3x3, then average over 2x2 squares.

    Args:
        x: (N, C, H, W), H and W even.
        weight: (out, C, 3, 3).
        bias: (out,) or None.

    Returns:
        (N, out, H/2, W/2), equal to `average_pool(conv2d(x, weight, bias, padding=1))`.
    """
    if min(x.shape[2:]) < _FUSE_FROM:
        return average_pool(F.conv2d(x, weight, bias, padding=1))
    return F.conv2d(x, _widen(weight, _POOL), bias, stride=2, padding=1)


def _widen(weight: Tensor, sums: Tensor) -> Tensor:
    """Apply a (4, 3) matrix of sums to both axes of a kernel: (.., 3, 3) to (.., 4, 4)."""
    sums = sums.to(weight)
    return sums @ weight @ sums.mT

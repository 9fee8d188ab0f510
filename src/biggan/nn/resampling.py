"""Changes of resolution, and their exact fusion with the 3x3 convolution beside them.

Upsampling to the nearest neighbour and then convolving 3x3 takes 36 multiplications per input pixel
and pair of channels; so does convolving and then averaging 2x2, per output pixel. Nine are enough:

    nearest upsampling  = zeros between the pixels, then sums over 2x2 squares
    averaging 2x2       = means over all 2x2 squares, then every other one of them

and sums over squares commute with convolutions. So the convolution runs between the two halves,
where only every fourth pixel counts: as a transposed convolution of stride 2 before the sums, or as
a convolution of stride 2 after the means. The result differs by rounding alone, at the borders too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from biggan.nn.convolution import convolve, transposed_convolve


def upsample(x: Tensor) -> Tensor:
    """Double the resolution of x (N, C, H, W), each pixel becoming a 2x2 square."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def average_pool(x: Tensor) -> Tensor:
    """Halve the resolution of x (N, C, H, W), each 2x2 square becoming its mean."""
    return F.avg_pool2d(x, 2)


def upsample_convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Upsample x (N, C, H, W), then convolve 3x3 with a weight (out, C, 3, 3).

    Equal to `conv2d(upsample(x), weight, bias, padding=1)`, (N, out, 2H, 2W).
    """
    # (N, out, 2H + 1, 2W + 1). Each output sums four of its pixels: a quarter of the bias each.
    large = transposed_convolve(x, weight, None if bias is None else bias / 4, stride=2)
    return _Squares.apply(large, 0, 1)


def convolve_average_pool(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve x (N, C, H, W) 3x3 with a weight (out, C, 3, 3), then average over 2x2 squares.

    Equal to `average_pool(conv2d(x, weight, bias, padding=1))`, (N, out, H/2, W/2); H and W are
    even.
    """
    means = _Squares.apply(x, 1, 4)  # (N, C, H + 1, W + 1)
    return convolve(means, weight, bias, stride=2, padding=0)


def sum_squares(x: Tensor) -> Tensor:
    """Sums over all 2x2 squares of pixels: x (N, C, H, W) into (N, C, H - 1, W - 1)."""
    return F.avg_pool2d(x, 2, 1, divisor_override=1)


class _Squares(torch.autograd.Function):
    """Sums over all 2x2 squares of pixels, divided: with padding 1 the adjoint of padding 0.

    `avg_pool2d` alone would keep its input for the backward pass, which needs nothing of it.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, padding: int, divisor: int) -> Tensor:
        ctx.padding, ctx.divisor = padding, divisor
        return F.avg_pool2d(x, 2, 1, padding, divisor_override=divisor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _Squares.apply(gradients[0], 1 - ctx.padding, ctx.divisor), None, None

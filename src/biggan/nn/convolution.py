"""Convolutions, by the algorithm that suits their size.

On a CPU 3x3 kernels of many channels are convolved by Winograd's algorithm, a quarter of the
multiplications (`winograd.py`).

A library's direct convolution is made for images larger than kernels. Deep in these networks it is
the other way round: 4x4 or 8x8 positions meet kernels of 1536 x 1536 x 3 x 3, and on a CPU its
gradient of the weight runs at a fifth of the speed of a matrix product. There the input's windows
are laid out as rows and the convolution *is* a matrix product, forward and backward.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from biggan.nn.matrix_product import linear
from biggan.nn.winograd import WinogradConvolution

_WINOGRAD_CHANNELS = 192  # from here on the transforms cost less than they save,
_WINOGRAD_POSITIONS = 1024  # if so many pixels share the transform of the kernel
_LARGE_KERNEL = 1 << 22  # values: for those the library's strided convolutions are slow,
_FEW_POSITIONS = 4096  # and up to here windows laid out as rows take little memory


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, stride: int = 1, padding: int
) -> Tensor:
    """Convolve, equal to `conv2d` but for rounding, differentiable any number of times.

    Maps x (N, C, H, W) by a weight (out, C, k, k) and a bias (out,) or None to (N, out, H', W')
    with H' = (H + 2 * padding - k) // stride + 1.
    """
    size = weight.shape[-1]
    if size == 3 and stride == padding == 1 and suits_winograd(weight, x):
        return WinogradConvolution.apply(x, weight, bias, False)
    height, width = ((n + 2 * padding - size) // stride + 1 for n in x.shape[2:])
    if not outweighs(weight, len(x) * height * width, x):
        return F.conv2d(x, weight, bias, stride, padding)
    rows = windows(F.pad(x, (padding,) * 4), size, stride)
    return as_images(linear(rows, weight.flatten(1), bias), len(x), height, width)


def transposed_convolve(x: Tensor, weight: Tensor, bias: Tensor | None, *, stride: int) -> Tensor:
    """Convolve the input spread out with zeros, equal to `conv_transpose2d` but for rounding.

    Maps x (N, C, H, W) by a weight (out, C, k, k), in the layout and orientation of `convolve`,
    and a bias (out,) or None to (N, out, H', W') with H' = (H - 1) * stride + k.
    """
    batch, _, height, width = x.shape
    if not outweighs(weight, batch * height * width, x):
        weight = weight.flip(2, 3).transpose(0, 1)  # (C, out, k, k), as the library wants it
        return F.conv_transpose2d(x, weight, bias, stride)
    size = weight.shape[-1]
    # Both images are turned round instead of the kernel, which is larger.
    taps = weight.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
    pixels = x.flip(2, 3).permute(0, 2, 3, 1).flatten(0, 2)  # (N * H * W, C)
    patches = linear(pixels, taps.flatten(0, 2)).unflatten(0, (batch, height * width))
    large = ((n - 1) * stride + size for n in (height, width))
    result = F.fold(patches.mT, tuple(large), size, stride=stride).flip(2, 3)
    if bias is not None:
        result = result + bias[:, None, None]
    return result.contiguous(memory_format=torch.channels_last)


def suits_winograd(weight: Tensor, x: Tensor) -> bool:
    """Whether Winograd's algorithm is the fastest for a 3x3 convolution of x with padding 1."""
    batch, _, height, width = x.shape
    return (
        x.device.type == "cpu"
        and min(weight.shape[:2]) >= _WINOGRAD_CHANNELS
        and batch * height * width >= _WINOGRAD_POSITIONS
        and height % 4 == width % 4 == 0
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def outweighs(weight: Tensor, positions: int, x: Tensor) -> bool:
    """Whether a kernel (out, ...) is large beside the windows that it meets: a product is faster.

    On a CPU: a GPU's library makes this choice by itself.
    """
    few = _FEW_POSITIONS if weight.numel() >= _LARGE_KERNEL else len(weight) - 1
    return x.device.type == "cpu" and positions <= few


def windows(x: Tensor, size: int, stride: int) -> Tensor:
    """All windows of x (N, C, H, W), each as one row (C * size * size,), in reading order."""
    x = x.unfold(2, size, stride).unfold(3, size, stride)  # (N, C, H', W', size, size)
    return x.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(0, 2)


def as_images(rows: Tensor, batch: int, height: int, width: int) -> Tensor:
    """Rows (N * H * W, C), one per position, as (N, C, H, W) in channels-last memory."""
    return rows.unflatten(0, (batch, height, width)).permute(0, 3, 1, 2)

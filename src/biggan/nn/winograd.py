"""3x3 convolutions with a quarter of the multiplications: Winograd's minimal filtering F(4x4, 3x3).

Lavin and Gray 2015 (https://arxiv.org/abs/1509.09308). Sixteen neighbouring outputs come from a
window of 6x6 inputs. Taken directly they cost 144 multiplications for each pair of channels; after
a linear transform of window and kernel, 36:

    Y = A^T [ (G w G^T) * (B^T x B) ] A        * elementwise, summed over the input's channels

For all windows together the middle is 36 matrix products, and that is all the arithmetic that grows
with the square of the channels. The transforms move memory, so this wins where channels are many.
They are chains of small operations, which separate threads run on separate strips of the batch
(`threads.py`). The gradient of the weight is the same formula read backwards:

    dw = G^T [ sum over windows of (B^T x B) * (A dY A^T) ] G

The matrices follow from six points at which polynomials are evaluated: A and G hold their powers,
B the inverse. The usual points 0, 1, -1, 2, -2 and infinity make numbers of very different sizes;
with those below the rounding error in float32 is half as large, about 1e-6 of the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from math import prod
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from biggan.nn.matrix_product import add_matrix_products, matrix_product, matrix_products
from biggan.nn.threads import in_threads

_POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)  # and infinity
_TILE = 4  # outputs a side
_WINDOW = 6  # inputs a side
_PRODUCTS = _WINDOW * _WINDOW

_WINDOWS_PER_STRIP = 128  # what lies between the transforms fits a cache
_WINDOWS_PER_GRADIENT_STRIP = 256  # the sums of all products are read and written for so many


def winograd_kernel(weight: Tensor, *, adjoint: bool = False) -> Tensor:
    """Transform a kernel (out, C, 3, 3) into the matrices of `winograd_convolve`.

    Args:
        weight: (out, C, 3, 3).
        adjoint: Of the convolution that brings a gradient back: its kernel is turned round, and
            `out` and C change places.

    Returns:
        (36, C, out), or (36, out, C) of the adjoint.
    """
    one = _both_axes("kernel", weight.dtype, weight.device)
    # Turned round, a kernel has its taps in the opposite order. Read as a transposed matrix, the
    # weight is not copied.
    taps = weight.reshape(-1, 9).mT  # (9, out * C)
    matrices = ((one.flip(1) if adjoint else one) @ taps).view(-1, *weight.shape[:2])
    return matrices if adjoint else matrices.mT


def winograd_convolve(
    x: Tensor,
    kernel: Tensor,
    bias: Tensor | None = None,
    *,
    add_to: Tensor | None = None,
    windows_per_strip: int = _WINDOWS_PER_STRIP,
) -> Tensor:
    """Convolve 3x3 with padding 1. Not differentiable; see `WinogradConvolution`.

    Args:
        x: (N, C, H, W), H and W divisible by 4; fastest in channels-last memory.
        kernel: (36, C, out), of `winograd_kernel`.
        bias: (out,) or None.
        add_to: What the result is added to in place, (N, out, H, W).
        windows_per_strip: Windows at a time, roughly.

    Returns:
        (N, out, H, W), in channels-last memory unless it is `add_to`.
    """
    out = kernel.shape[-1]
    result = add_to
    if result is None:
        result = torch.empty(
            (len(x), out, *x.shape[2:]),
            dtype=x.dtype,
            device=x.device,
            memory_format=torch.channels_last,
        )
    strips = _Strips(x, windows_per_strip)

    def worker() -> Callable[[_Strip], None]:
        transform = strips.transform()
        products, tiles = (x.new_empty(n * strips.most * out) for n in (_PRODUCTS, _TILE**2))

        def convolve(strip: _Strip) -> None:
            windows = transform(strip)  # (36, windows, C)
            product = _first(products, _PRODUCTS, windows.shape[1], out)
            matrix_products(windows, kernel, out=product)
            tile = _first(tiles, _TILE**2, windows.shape[1] * out)
            matrix_product(_both_axes("output", x.dtype, x.device), product.flatten(1), out=tile)
            if bias is not None:
                tile.view(-1, out).add_(bias)
            target = _as_tiles(result, strip)
            if add_to is None:
                target.copy_(tile.view(target.shape))
            else:
                target.add_(tile.view(target.shape))

        return convolve

    in_threads(worker, strips)
    return result


def winograd_weight_gradient(
    x: Tensor, gradient: Tensor, *, windows_per_strip: int = _WINDOWS_PER_GRADIENT_STRIP
) -> Tensor:
    """The gradient (out, C, 3, 3) of a convolution's weight. Not differentiable.

    Args:
        x: The convolution's input (N, C, H, W).
        gradient: Of its result, (N, out, H, W).
        windows_per_strip: Windows at a time, roughly.
    """
    channels, out = x.shape[1], gradient.shape[1]
    strips = _Strips(x, windows_per_strip)
    sums: list[Tensor] = []  # of each thread

    def worker() -> Callable[[_Strip], None]:
        transform = strips.transform()
        tiles, spread = (x.new_empty(n * strips.most * out) for n in (_TILE**2, _PRODUCTS))
        own = x.new_zeros(_PRODUCTS, out, channels)
        sums.append(own)

        def add_up(strip: _Strip) -> None:
            windows = transform(strip)  # (36, windows, C)
            source = _as_tiles(gradient, strip)
            tile = _first(tiles, *source.shape).copy_(source).view(_TILE**2, -1)
            product = _first(spread, _PRODUCTS, tile.shape[1])
            matrix_product(_both_axes("output", x.dtype, x.device).mT, tile, out=product)
            add_matrix_products(own, product.view(*windows.shape[:2], out).mT, windows)

        return add_up

    in_threads(worker, strips, summed=True)
    total, *others = sums
    for own in others:
        total += own
    one = _both_axes("kernel", x.dtype, x.device)
    return (total.flatten(1).mT @ one).view(out, channels, 3, 3)


class WinogradConvolution(torch.autograd.Function):
    """`conv2d` 3x3 with padding 1 by Winograd, differentiable any number of times.

    Applied to x (N, C, H, W), a weight (out, C, 3, 3), a bias (out,) or None, and whether to take
    the adjoint instead, which brings x (N, out, H, W) to (N, C, H, W).
    """

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, adjoint: bool
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.adjoint = adjoint
        return winograd_convolve(x, winograd_kernel(weight, adjoint=adjoint), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias, _ = ctx.needs_input_grad
        pair = (gradient, x) if ctx.adjoint else (x, gradient)
        return (
            WinogradConvolution.apply(gradient, weight, None, not ctx.adjoint) if of_x else None,
            _WeightGradient.apply(*pair) if of_weight else None,
            gradient.sum((0, 2, 3)) if of_bias else None,
            None,
        )


class _WeightGradient(torch.autograd.Function):
    """`winograd_weight_gradient`, linear in both arguments."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(x, gradient)
        return winograd_weight_gradient(x, gradient)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = gradients
        x, gradient = ctx.saved_tensors
        of_x, of_gradient = ctx.needs_input_grad
        return (
            WinogradConvolution.apply(gradient, weight, None, True) if of_x else None,
            WinogradConvolution.apply(x, weight, None, False) if of_gradient else None,
        )


class _Strip(NamedTuple):
    """A part of a batch that is convolved at once."""

    images: slice
    rows: slice


class _Strips:
    """A batch in strips, which are convolved one after the other by each thread.

    Every array is written by the operation before the one that reads it, while it is in the cache.
    """

    def __init__(self, x: Tensor, windows: int) -> None:
        self._batch, self._channels, self._height, self._width = x.shape
        of_row = self._width // _TILE
        self._images = min(self._batch, max(1, windows // (self._height // _TILE * of_row)))
        tall = max(1, windows // of_row) * _TILE
        self._rows = self._height if self._images > 1 else min(self._height, tall)
        self._image = _pixels_first(x)
        self.most = self._images * (self._rows // _TILE) * of_row
        """Windows of the largest strip."""

    def __iter__(self) -> Iterator[_Strip]:
        for image in range(0, self._batch, self._images):
            for top in range(0, self._height, self._rows):
                yield _Strip(
                    slice(image, min(image + self._images, self._batch)),
                    slice(top, min(top + self._rows, self._height)),
                )

    def transform(self) -> Callable[[_Strip], Tensor]:
        """What transforms the windows of a strip, (36, windows, C), until it is called again."""
        x, channels = self._image, self._channels
        images = x.new_zeros(self._images, self._rows + 2, self._width + 2, channels)
        both = [x.new_empty(_PRODUCTS * self.most * channels) for _ in range(2)]

        def windows_of(strip: _Strip) -> Tensor:
            padded = self._pad(images, strip)
            windows = padded.unfold(1, _WINDOW, _TILE).unfold(2, _WINDOW, _TILE)
            windows = windows.permute(4, 5, 0, 1, 2, 3)
            raw = _first(both[0], *windows.shape).copy_(windows).view(_PRODUCTS, -1)
            transformed = _first(both[1], *raw.shape)
            matrix_product(_both_axes("input", raw.dtype, raw.device), raw, out=transformed)
            return transformed.view(_PRODUCTS, -1, channels)

        return windows_of

    def _pad(self, images: Tensor, strip: _Strip) -> Tensor:
        """A strip's rows with one more on each side, zeros around the image."""
        rows = strip.rows
        source = self._image[strip.images]
        padded = images[: len(source), : rows.stop - rows.start + 2]
        above, below = max(0, rows.start - 1), min(self._height, rows.stop + 1)
        padded[:, above - rows.start + 1 : below - rows.start + 1, 1:-1] = source[:, above:below]
        if rows.start == 0:  # of an earlier strip there are pixels
            padded[:, 0] = 0
        if rows.stop == self._height:
            padded[:, -1] = 0
        return padded


def _first(memory: Tensor, *shape: int) -> Tensor:
    """The first values of `memory` in a shape."""
    return memory[: prod(shape)].view(shape)


def _pixels_first(x: Tensor) -> Tensor:
    """View (N, C, H, W) as (N, H, W, C)."""
    return x.permute(0, 2, 3, 1)


def _as_tiles(x: Tensor, strip: _Strip) -> Tensor:
    """View a strip of x (N, C, H, W) as (4, 4, N, tiles down, tiles across, C)."""
    part = _pixels_first(x)[strip.images, strip.rows]
    part = part.unflatten(2, (-1, _TILE)).unflatten(1, (-1, _TILE))
    return part.permute(2, 4, 0, 1, 3, 5)


@cache
@torch.inference_mode(mode=False)  # what is kept must serve callers in any mode
def _both_axes(name: str, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A transform of rows and columns as one matrix: (a^2, b^2) for a matrix (a, b)."""
    one = {
        "kernel": lambda: _powers(3),  # G
        "input": lambda: cast(Tensor, torch.linalg.inv(_powers(_WINDOW)).mT),  # B^T
        "output": lambda: _powers(_TILE).mT,  # A^T
    }[name]()
    return torch.kron(one, one).to(device, dtype)


def forget_transforms() -> None:
    """Make the transforms anew: those of fake tensors and of real ones do not mix."""
    _both_axes.cache_clear()


def _powers(num: int) -> Tensor:
    """The powers 0 to `num` - 1 of each point, and of infinity: the last one alone."""
    points = torch.tensor(_POINTS, dtype=torch.float64, device="cpu")
    finite = points[:, None] ** torch.arange(num, device="cpu")
    return torch.cat([finite, torch.eye(num, dtype=torch.float64, device="cpu")[-1:]])

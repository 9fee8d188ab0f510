"""Convolutions whose weights are finished, as inference runs them.

`FrozenConv2d` is made of standard operations: it runs on any device and in any precision, and can
be differentiated and exported. On a CPU `packed_conv2d` makes the same convolution without
gradients, in the fastest of these forms for its size and precision:

- the library's direct convolution, its kernel brought beforehand into the blocks in which it
  works, and a sum that follows taken along;
- for 1x1 kernels the library's matrix product, its weight packed beforehand;
- Winograd's, for 3x3 kernels of many channels in float32 (`nn/winograd.py`);
- products of every pixel with all taps, and sums of neighbours' products, for an image's few
  channels;
- upsampling and convolving with nine multiplications instead of sixteen (`resampling.py`), as a
  transposed convolution, or as one matrix product where the image is small; with sixteen where
  channels are few.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from biggan.nn.matrix_product import matrix_product, mkl_is_slow
from biggan.nn.resampling import sum_squares
from biggan.nn.winograd import winograd_convolve, winograd_kernel

# From here on the transforms cost less than they save,
_WINOGRAD_CHANNELS = 384 if mkl_is_slow() else 128
_WINOGRAD_RESOLUTION = 32  # if so many pixels share the transformed kernel
_PRODUCT_RESOLUTION = 16  # up to here one matrix product beats a transposed convolution,
_PRODUCT_CHANNELS = 256  # from here on
_SUMS_CHANNELS = 48  # from here on sums over squares of pixels save more than they cost
_FEW_CHANNELS = 4  # up to here the library's blocks of outputs would be mostly empty


class MakeConvolution(Protocol):
    """What makes a frozen convolution: `FrozenConv2d`, or `packed_conv2d`."""

    def __call__(  # noqa: D102
        self, weight: Tensor, bias: Tensor | None, resolution: int, *, upsamples: bool = False
    ) -> FrozenConvolution: ...


class FrozenConvolution(nn.Module):
    """What all forms share: their shape.

    Args:
        weight: (out, C, k, k), k odd. Every form has a bias besides: (out,) or None.
        resolution: Side of the input in pixels.
        upsamples: Whether the input is upsampled to the nearest neighbour first; k is 3 then.
    """

    def __init__(self, weight: Tensor, resolution: int, *, upsamples: bool) -> None:
        super().__init__()
        self.out_channels, self.in_channels, self.kernel_size, _ = weight.shape
        self.resolution = resolution
        self.upsamples = upsamples

    @property
    def operations(self) -> int:
        """Floating-point operations for an image; a multiplication with an addition is two.

        Of the direct form, whichever it is: behind upsampling 16 multiplications for each input
        pixel and pair of channels, else k * k.
        """
        taps = 16 if self.upsamples else self.kernel_size**2
        return 2 * taps * self.in_channels * self.out_channels * self.resolution**2

    def forward(self, x: Tensor, add_to: Tensor | None = None) -> Tensor:
        """Convolve x (N, C, H, W) into (N, out, H, W), or (N, out, 2H, 2W) if it upsamples.

        Args:
            x: The input, in channels-last memory.
            add_to: What the result is added to, of its shape; it may be changed.
        """
        raise NotImplementedError

    def activated(
        self, x: Tensor, scale: Tensor, shift: Tensor, add_to: Tensor | None = None
    ) -> Tensor:
        """Convolve relu(scale * x + shift), scale and shift (N, C, 1, 1); see `forward`."""
        return self(F.relu(torch.addcmul(shift, x, scale)), add_to)

    def extra_repr(self) -> str:
        """The shape, for `print(network)`."""
        before = "upsample, " if self.upsamples else ""
        return (
            f"{before}{self.kernel_size}x{self.kernel_size}, "
            f"{self.in_channels} -> {self.out_channels}, input {self.resolution}"
        )


class FrozenConv2d(FrozenConvolution):
    """A convolution of stride 1 that keeps the image's size, or doubles it beforehand.

    With `circular` the image goes on beyond a border from the opposite one instead of with zeros.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        resolution: int,
        *,
        upsamples: bool = False,
        circular: bool = False,
    ) -> None:
        super().__init__(weight, resolution, upsamples=upsamples)
        self._circular = circular
        if upsamples:
            weight = upsampling_kernel(weight)
        copied = weight.detach().clone(memory_format=torch.channels_last)
        self.register_buffer("weight", copied)
        self.register_buffer("bias", _copy(bias))

    def forward(self, x: Tensor, add_to: Tensor | None = None) -> Tensor:
        """See `FrozenConvolution.forward`."""
        border = self.kernel_size // 2
        padding = 0 if self._circular else border
        if self._circular:
            x = F.pad(x, [border] * 4, mode="circular")
        if self.upsamples:  # a circular border is 2 pixels wide then, and one more is cut off
            padding = 3 if self._circular else 1
            result = F.conv_transpose2d(x, self.weight, self.bias, stride=2, padding=padding)
        else:
            result = F.conv2d(x, self.weight, self.bias, padding=padding)
        return result if add_to is None else result + add_to


def upsampling_kernel(weight: Tensor) -> Tensor:
    """The kernel with which a transposed convolution upsamples and convolves at once.

    A 3x3 window behind nearest upsampling sees 2x2 different pixels only, so taps that meet the
    same one are summed beforehand: 16 multiplications for each input pixel instead of 36.

    Args:
        weight: (out, C, 3, 3).

    Returns:
        (C, out, 4, 4), for `conv_transpose2d` with stride 2 and padding 1.
    """
    sums = weight.new_tensor([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
    return torch.einsum("ai,kcij,bj->ckab", sums, weight, sums)


def packed_conv2d(
    weight: Tensor,
    bias: Tensor | None,
    resolution: int,
    *,
    upsamples: bool = False,
    dtype: torch.dtype = torch.float32,
) -> FrozenConvolution:
    """A frozen convolution in the form that is fastest on this CPU; see `FrozenConv2d`.

    Runs where no gradients are recorded, in `dtype`: float32, or bfloat16 where the CPU has it.
    """
    weight = weight.to(dtype)
    bias = None if bias is None else bias.to(dtype)
    if not can_pack():
        return FrozenConv2d(weight, bias, resolution, upsamples=upsamples)
    if upsamples:
        suits_product = (
            resolution <= _PRODUCT_RESOLUTION and min(weight.shape[:2]) >= _PRODUCT_CHANNELS
        )
        if suits_product:
            return _UpsampleLinear(weight, bias, resolution)
        return _PackedUpsampleConv2d(weight, bias, resolution)
    if weight.shape[-1] == 1:
        return _LinearConv2d(weight, bias, resolution)
    if weight.shape[-1] == 3 and len(weight) <= _FEW_CHANNELS:
        return _TapsFirstConv2d(weight, bias, resolution)
    suits_winograd = (
        dtype == torch.float32
        and weight.shape[-1] == 3
        and min(weight.shape[:2]) >= _WINOGRAD_CHANNELS
        and resolution >= _WINOGRAD_RESOLUTION
        and resolution % 4 == 0
    )
    form = _WinogradConv2d if suits_winograd else _PackedConv2d
    return form(weight, bias, resolution)


class PackedConvolution(FrozenConvolution):
    """A form with a packed kernel, which can be neither moved nor saved; copies share it."""

    _bias: Tensor | None

    def __deepcopy__(self, memo: dict[int, Any]) -> PackedConvolution:
        return self

    def without_bias(self) -> PackedConvolution:
        """The linear part, with the same kernel."""
        linear = copy.copy(self)
        linear._bias = None
        return linear


class _PackedConv2d(PackedConvolution):
    """The library's direct convolution, with a packed kernel."""

    def __init__(self, weight: Tensor, bias: Tensor | None, resolution: int) -> None:
        super().__init__(weight, resolution, upsamples=False)
        self._padding = [self.kernel_size // 2] * 2
        self._bias = _copy(bias)
        self._kernel = torch.ops.mkldnn._reorder_convolution_weight(
            weight.contiguous(),
            self._padding,
            [1, 1],
            [1, 1],
            1,
            [1, self.in_channels, resolution, resolution],
        )

    def forward(self, x: Tensor, add_to: Tensor | None = None) -> Tensor:
        geometry = (self._padding, [1, 1], [1, 1], 1)
        if add_to is None:
            return torch.ops.mkldnn._convolution_pointwise(
                x, self._kernel, self._bias, *geometry, "none", [], None
            )
        return torch.ops.mkldnn._convolution_pointwise_.binary(
            add_to, x, self._kernel, self._bias, *geometry, "add", 1.0, None, [], None
        )


class _LinearConv2d(PackedConvolution):
    """A 1x1 convolution as a matrix product of pixels and weight.

    The library packs a convolution's kernel for one batch size. With another, some shapes are
    packed again at every call, which takes longer than the product.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, resolution: int) -> None:
        super().__init__(weight, resolution, upsamples=False)
        self._bias = _copy(bias)
        self._kernel = torch.ops.mkldnn._reorder_linear_weight(
            weight[:, :, 0, 0].contiguous(), resolution**2
        )

    def forward(self, x: Tensor, add_to: Tensor | None = None) -> Tensor:
        pixels = x.permute(0, 2, 3, 1)  # (N, H, W, C)
        if add_to is None:
            result = torch.ops.mkldnn._linear_pointwise(
                pixels, self._kernel, self._bias, "none", [], ""
            )
        else:
            result = torch.ops.mkldnn._linear_pointwise.binary(
                pixels, add_to.permute(0, 2, 3, 1), self._kernel, self._bias, "add"
            )
        return result.permute(0, 3, 1, 2)


class _WinogradConv2d(PackedConvolution):
    """Winograd's convolution; see `winograd_convolve`."""

    def __init__(self, weight: Tensor, bias: Tensor | None, resolution: int) -> None:
        super().__init__(weight, resolution, upsamples=False)
        self._kernel = winograd_kernel(weight.detach()).contiguous()
        self._bias = _copy(bias)

    def forward(self, x: Tensor, add_to: Tensor | None = None) -> Tensor:
        height, width = x.shape[2:]
        if height % 4 == width % 4 == 0:
            return winograd_convolve(x, self._kernel, self._bias, add_to=add_to)
        larger = F.pad(x, (0, -width % 4, 0, -height % 4))
        result = winograd_convolve(larger, self._kernel, self._bias)[:, :, :height, :width]
        return result if add_to is None else result.add_(add_to)


class _TapsFirstConv2d(PackedConvolution):
    """A 3x3 convolution into a few channels: each pixel's product with every tap, then sums.

    The result is planar: a channel's pixels lie together.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, resolution: int) -> None:
        super().__init__(weight, resolution, upsamples=False)
        self._taps = weight.detach().permute(2, 3, 0, 1).reshape(-1, self.in_channels)  # (9 * out,)
        self._bias = None if bias is None else bias.detach()[:, None, None].clone()

    def forward(self, x: Tensor, add_to: Tensor | None = None) -> Tensor:
        batch, _, height, width = x.shape
        # In float32: nine products' sum would lose what low precision rounds away each time.
        shape = (batch, self.out_channels, height, width)
        result = x.new_zeros(shape, dtype=torch.promote_types(x.dtype, torch.float32))
        for image, total in zip(x, result, strict=True):
            pixels = image.permute(1, 2, 0).flatten(0, 1)  # (H * W, C)
            products = matrix_product(self._taps, pixels.T).view(
                3, 3, self.out_channels, height, width
            )
            for i, row in enumerate(products):
                for j, product in enumerate(row):
                    here, there = zip(_shifted(height, i - 1), _shifted(width, j - 1), strict=True)
                    total[:, *here] += product[:, *there]
        if self._bias is not None:
            result += self._bias
        result = result.to(x.dtype)
        return result if add_to is None else result.add_(add_to)


def _shifted(size: int, by: int) -> tuple[slice, slice]:
    """Along one axis: the pixels that have a neighbour so far away, and those neighbours."""
    return slice(max(0, -by), size - max(0, by)), slice(max(0, by), size - max(0, -by))


class _PackedUpsampleConv2d(PackedConvolution):
    """Upsampling and a 3x3 convolution as a transposed one, with a packed kernel.

    Of many channels as in `upsample_convolve`; the sums of squares take longer than they save where
    channels are few.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, resolution: int) -> None:
        super().__init__(weight, resolution, upsamples=True)
        self._sums = max(weight.shape[:2]) >= _SUMS_CHANNELS
        self._padding = [0, 0] if self._sums else [1, 1]
        # Where squares are summed, each output is the sum of four pixels.
        self._bias = None if bias is None else bias.detach() / (4 if self._sums else 1)
        kernel = weight.flip(2, 3).transpose(0, 1) if self._sums else upsampling_kernel(weight)
        self._kernel = torch.ops.mkldnn._reorder_convolution_transpose_weight(
            kernel.contiguous(),
            self._padding,
            [0, 0],
            [2, 2],
            [1, 1],
            1,
            [1, self.in_channels, resolution, resolution],
        )

    def forward(self, x: Tensor, add_to: Tensor | None = None) -> Tensor:
        result = torch.ops.mkldnn._convolution_transpose_pointwise(
            x, self._kernel, self._bias, self._padding, [0, 0], [2, 2], [1, 1], 1, "none", [], None
        )
        if self._sums:
            result = sum_squares(result)
        return result if add_to is None else result.add_(add_to)


class _UpsampleLinear(PackedConvolution):
    """The same for small images: the nine products of every pixel at once, then sums of them."""

    def __init__(self, weight: Tensor, bias: Tensor | None, resolution: int) -> None:
        super().__init__(weight, resolution, upsamples=True)
        self._bias = _copy(bias)
        taps = weight.permute(2, 3, 0, 1).reshape(-1, self.in_channels)  # (9 * out, C)
        self._kernel = torch.ops.mkldnn._reorder_linear_weight(taps.contiguous(), resolution**2)

    def forward(self, x: Tensor, add_to: Tensor | None = None) -> Tensor:
        pixels = x.permute(0, 2, 3, 1)  # (N, H, W, C)
        products = torch.ops.mkldnn._linear_pointwise(
            pixels.flatten(0, 2), self._kernel, None, "none", [], ""
        )
        products = products.view(*pixels.shape[:3], 3, 3, self.out_channels)
        rows = _spread_taps(products.unbind(3), dim=1)  # (N, 2H, W, 3, out)
        image = _spread_taps(rows.unbind(3), dim=2)  # (N, 2H, 2W, out)
        if self._bias is not None:
            image += self._bias
        result = image.permute(0, 3, 1, 2)
        return result if add_to is None else result.add_(add_to)


def _spread_taps(taps: Sequence[Tensor], dim: int) -> Tensor:
    """Sum one axis' products with a kernel's three taps over the axis upsampled: from S to 2S.

    The two copies of pixel i take its product with the middle tap; what the outer taps see of
    pixels i - 1 and i lies on the border between them, and both sides of the border take it.
    """
    first, middle, last = taps
    nothing = torch.zeros_like(first.narrow(dim, 0, 1))
    borders = torch.cat([nothing, first], dim) + torch.cat([last, nothing], dim)  # S + 1
    size = middle.shape[dim]
    left = borders.narrow(dim, 0, size) + middle
    right = borders.narrow(dim, 1, size) + middle
    return torch.stack([left, right], dim + 1).flatten(dim, dim + 1)


def channels_last(x: Tensor) -> Tensor:
    """In channels-last memory: by transposing, since transforms know no memory formats."""
    return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


def _copy(bias: Tensor | None) -> Tensor | None:
    """The finished bias: what later becomes of its source does not reach it."""
    return None if bias is None else bias.detach().clone()


@lru_cache
def can_pack() -> bool:
    """Whether this build of PyTorch has oneDNN's packed convolutions, and they are right."""
    if not torch.backends.mkldnn.is_available():
        return False
    # Said, because the answer stays: another default must not decide it.
    drawn: dict[str, Any] = {
        "generator": torch.Generator().manual_seed(0),
        "dtype": torch.float32,
        "device": "cpu",
    }
    x = torch.randn(1, 8, 4, 4, **drawn).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(8, 8, 3, 3, **drawn)
    point, many = weight[:, :, :1, :1], torch.randn(_SUMS_CHANNELS, 8, 3, 3, **drawn)
    bias, before = torch.randn(8, **drawn), torch.randn(1, 8, 4, 4, **drawn)
    before = before.contiguous(memory_format=torch.channels_last)
    try:
        with torch.no_grad():
            plain = FrozenConv2d(weight, bias, 4)
            upsampling = FrozenConv2d(weight, bias, 4, upsamples=True)
            to_many = FrozenConv2d(many, None, 4, upsamples=True)
            results = [
                (_PackedConv2d(weight, bias, 4)(x, before.clone()), plain(x, before)),
                (_LinearConv2d(point, bias, 4)(x, before), FrozenConv2d(point, bias, 4)(x, before)),
                (_PackedUpsampleConv2d(weight, bias, 4)(x), upsampling(x)),
                (_PackedUpsampleConv2d(many, None, 4)(x), to_many(x)),
                (_UpsampleLinear(weight, bias, 4)(x), upsampling(x)),
                (_TapsFirstConv2d(weight, bias, 4)(x), plain(x)),
            ]
    except (AttributeError, RuntimeError):  # another PyTorch, another processor
        return False
    return all(torch.allclose(packed, plain, atol=1e-4) for packed, plain in results)

"""The layers of the folded generator with gradients to their input.

A frozen convolution is linear in its input, so the gradient is its adjoint, which is a frozen
convolution too: at stride 1 with the kernel flipped, after upsampling one of stride 2. On a CPU
both use the packed and Winograd forms. The adjoint of the adjoint is the convolution, which gives
second derivatives.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from biggan.inference.convolution import (
    FrozenConv2d,
    FrozenConvolution,
    PackedConvolution,
    can_pack,
    channels_last,
    packed_conv2d,
)
from biggan.nn.functions import Function, in_forward_mode, must_be_plain, with_batch_first


def differentiable_conv2d(
    weight: Tensor,
    bias: Tensor | None,
    resolution: int,
    *,
    upsamples: bool = False,
    dtype: torch.dtype = torch.float32,
) -> FrozenConvolution:
    """A frozen convolution whose input takes gradients; on a CPU, unless in float64, a packed one.

    Where it is packed it runs in `dtype`, else in the precision of the weight.
    """
    if weight.device.type != "cpu" or weight.dtype != torch.float32 or not can_pack():
        return FrozenConv2d(weight, bias, resolution, upsamples=upsamples)
    weight = weight.to(dtype)
    bias = None if bias is None else bias.to(dtype)
    adjoint: FrozenConvolution
    if upsamples:
        adjoint = _SummingConv2d(weight, resolution)
    else:
        adjoint = packed_conv2d(weight.transpose(0, 1).flip(2, 3), None, resolution, dtype=dtype)
    convolution = packed_conv2d(weight, bias, resolution, upsamples=upsamples, dtype=dtype)
    linear = cast(PackedConvolution, convolution).without_bias()
    return DifferentiableConv2d(weight, bias, convolution, linear, adjoint)


class DifferentiableConv2d(FrozenConvolution):
    """A convolution with gradients to its input by two convolutions that need have none.

    Args:
        weight: See `FrozenConvolution`.
        bias: (out,) or None.
        convolution: The convolution.
        linear: The convolution without its bias.
        adjoint: What brings a gradient of the result back to the input.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        convolution: FrozenConvolution,
        linear: FrozenConvolution,
        adjoint: FrozenConvolution,
    ) -> None:
        super().__init__(weight, convolution.resolution, upsamples=convolution.upsamples)
        self._bias = None if bias is None else bias.detach()[:, None, None].clone()
        # no submodules, whose operations would count too
        self._convolution, self._pair = (convolution,), (linear, adjoint)

    def forward(self, x: Tensor, add_to: Tensor | None = None) -> Tensor:
        """See `FrozenConvolution.forward`."""
        result: Tensor = _Linear.apply(x, *self._pair)
        for term in (self._bias, add_to):
            if term is not None:
                result = result + term  # not in place: the result may be a view
        return result

    def activated(
        self, x: Tensor, scale: Tensor, shift: Tensor, add_to: Tensor | None = None
    ) -> Tensor:
        """See `FrozenConvolution.activated`."""
        if in_forward_mode():
            return super().activated(x, scale, shift, add_to)
        result: Tensor = _ActivatedConv.apply(
            x, scale, shift, add_to, *self._convolution, *self._pair
        )
        return result


class _Linear(Function):
    """A linear map, whose derivative is its adjoint; also for the transforms of `torch.func`."""

    @staticmethod
    def forward(x: Tensor, linear: FrozenConvolution, _adjoint: FrozenConvolution) -> Tensor:
        return linear(channels_last(x))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        _, ctx.linear, ctx.adjoint = inputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _Linear.apply(gradients[0], ctx.adjoint, ctx.linear), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        return _Linear.apply(tangents[0], ctx.linear, ctx.adjoint)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Tensor, int]:
        result = _Linear.apply(*with_batch_first(info, in_dims, inputs[:1]), *inputs[1:])
        return result.unflatten(0, (info.batch_size, -1)), 0


class _ActivatedConv(Function):
    """A convolution of relu(scale * x + shift), added to something or not; see `_Linear`."""

    @staticmethod
    def forward(
        x: Tensor,
        scale: Tensor,
        shift: Tensor,
        add_to: Tensor | None,
        convolution: FrozenConvolution,
        _linear: FrozenConvolution,
        _adjoint: FrozenConvolution,
    ) -> Tensor:
        activated = torch.addcmul(shift, x, scale).relu_()
        result = convolution(activated)
        return result if add_to is None else result.add_(add_to)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        x, scale, shift, _, _, ctx.linear, ctx.adjoint = inputs
        ctx.save_for_backward(x, scale, shift)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, scale, shift = ctx.saved_tensors
        if must_be_plain(gradient) or not len(x):
            passed = _Linear.apply(gradient, ctx.adjoint, ctx.linear)
            normalized = torch.addcmul(shift, x, scale)
            passed = torch.ops.aten.threshold_backward(passed, normalized, 0)
            of_scale, of_shift = (y.sum((2, 3), keepdim=True) for y in (passed * x, passed))
            of_x = passed * scale
        else:
            passed = ctx.adjoint(channels_last(gradient))
            normalized = torch.addcmul(shift, x, scale)
            torch.ops.aten.threshold_backward.grad_input(passed, normalized, 0, grad_input=passed)
            del normalized
            of_scale, of_shift = _sums(passed, x)
            of_x = passed.mul_(scale)
        of_add_to = gradient if ctx.needs_input_grad[3] else None
        return of_x, of_scale, of_shift, of_add_to, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Tensor, int]:
        num = 3 if inputs[3] is None else 4
        batched = with_batch_first(info, in_dims, inputs[:num])
        result = _ActivatedConv.apply(*batched, *inputs[num:])
        return result.unflatten(0, (info.batch_size, -1)), 0


def _sums(passed: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Of every channel, the sums of passed * x and of passed: BatchNorm's own derivatives."""
    # The library makes wrong sums of tensors in different memory formats.
    passed, x = channels_last(passed), channels_last(x)
    zeros, ones = (make(x.shape[1]) for make in (x.new_zeros, x.new_ones))
    sums = [
        torch.ops.aten.native_batch_norm_backward(
            g[None], y[None], None, zeros, ones, None, None, False, 0, [False, True, True]
        )[1:]
        for g, y in zip(passed, x, strict=True)
    ]
    of_scale, of_shift = (torch.stack(each)[..., None, None] for each in zip(*sums, strict=True))
    return of_scale, of_shift


class _SummingConv2d(PackedConvolution):
    """The adjoint of upsampling and convolving 3x3: nine multiplications (`nn/resampling.py`).

    Args:
        weight: (out, C, 3, 3), of the convolution behind the upsampling.
        resolution: Side of its input, which is the side of this one's result.
    """

    def __init__(self, weight: Tensor, resolution: int) -> None:
        weight = weight.transpose(0, 1).flip(2, 3)  # (C, out, 3, 3)
        super().__init__(weight, 2 * resolution, upsamples=False)
        self._kernel = torch.ops.mkldnn._reorder_convolution_weight(
            weight.contiguous(), [0, 0], [2, 2], [1, 1], 1,
            [1, self.in_channels, *[2 * resolution + 1] * 2],
        )  # fmt: skip

    def forward(self, x: Tensor, add_to: Tensor | None = None) -> Tensor:
        """(N, out, 2H, 2W) to (N, C, H, W)."""
        sums = F.avg_pool2d(x, 2, 1, 1, divisor_override=1)  # (N, out, 2H + 1, 2W + 1)
        result = torch.ops.mkldnn._convolution_pointwise(
            sums, self._kernel, None, [0, 0], [2, 2], [1, 1], 1, "none", [], None
        )
        return result if add_to is None else result + add_to

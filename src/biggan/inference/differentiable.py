"""The layers of the folded generator with gradients to their input.

A frozen convolution is linear in its input, so the gradient is its adjoint, which is a frozen
convolution too: at stride 1 with the kernel flipped, after upsampling one of stride 2. On a CPU
both use the packed and Winograd forms. The adjoint of the adjoint is the convolution, which gives
second derivatives.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from biggan.inference.convolution import (
    FrozenConv2d,
    FrozenConvolution,
    can_pack,
    packed_conv2d,
)


def differentiable_conv2d(
    weight: Tensor, bias: Tensor | None, resolution: int, *, upsamples: bool = False
) -> FrozenConvolution:
    """A frozen convolution whose input takes gradients; in float32 on a CPU a packed one."""
    form = _DifferentiableConv2d if _in_float32_on_cpu(weight) and can_pack() else FrozenConv2d
    return form(weight, bias, resolution, upsamples=upsamples)


def scale_shift_relu(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """relu(scale * x + shift) for x (N, C, H, W), scale and shift (N, C, 1, 1)."""
    if not _in_float32_on_cpu(x) or torch.compiler.is_compiling():
        return F.relu(torch.addcmul(shift, x, scale))
    result: Tensor = _ScaleShiftReLU.apply(x, scale, shift)
    return result


def _in_float32_on_cpu(x: Tensor) -> bool:
    """Where operations of our own are faster than standard ones."""
    return x.device.type == "cpu" and x.dtype == torch.float32


class _DifferentiableConv2d(FrozenConvolution):
    """See `differentiable_conv2d`."""

    def __init__(
        self, weight: Tensor, bias: Tensor | None, resolution: int, *, upsamples: bool
    ) -> None:
        super().__init__(weight, resolution, upsamples=upsamples)
        self._bias = None if bias is None else bias.detach()[:, None, None].clone()
        self._convolution = packed_conv2d(weight, None, resolution, upsamples=upsamples)
        self._adjoint: FrozenConvolution
        if upsamples:
            self._adjoint = _SummingConv2d(weight, resolution)
        else:
            self._adjoint = packed_conv2d(weight.transpose(0, 1).flip(2, 3), None, resolution)

    def forward(self, x: Tensor, add_to: Tensor | None = None) -> Tensor:
        """See `FrozenConvolution.forward`."""
        result: Tensor = _Linear.apply(x, self._convolution, self._adjoint)
        if self._bias is not None:
            result = result + self._bias
        return result if add_to is None else result + add_to


class _Linear(torch.autograd.Function):
    """A linear map, whose derivative is its adjoint; also for the transforms of `torch.func`."""

    @staticmethod
    def forward(x: Tensor, linear: FrozenConvolution, _adjoint: FrozenConvolution) -> Tensor:
        return linear(x.contiguous(memory_format=torch.channels_last))

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
    def vmap(
        _info: Any,
        in_dims: tuple[int | None, ...],
        x: Tensor,
        linear: FrozenConvolution,
        adjoint: FrozenConvolution,
    ) -> tuple[Tensor, int]:
        assert in_dims[0] is not None
        x = x.movedim(in_dims[0], 0)
        return _Linear.apply(x.flatten(0, 1), linear, adjoint).unflatten(0, x.shape[:2]), 0


class _ScaleShiftReLU(torch.autograd.Function):
    """See `scale_shift_relu`. Autograd by itself would go over x half as often again."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return torch.addcmul(shift, x, scale).relu_()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        x, scale, _ = inputs
        ctx.save_for_backward(x, scale, output)
        ctx.save_for_forward(x, scale, output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, scale, result = ctx.saved_tensors
        passed = torch.ops.aten.threshold_backward(gradients[0], result, 0)
        of_scale, of_shift = (y.sum((2, 3), keepdim=True) for y in (passed * x, passed))
        again = torch.is_grad_enabled()  # a second derivative needs it as it is
        return passed * scale if again else passed.mul_(scale), of_scale, of_shift

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        x, scale, result = ctx.saved_tensors
        of_x, of_scale, of_shift = tangents
        tangent = torch.addcmul(of_shift, of_x, scale).addcmul(x, of_scale)
        return torch.ops.aten.threshold_backward(tangent, result, 0)


class _SummingConv2d(FrozenConvolution):
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

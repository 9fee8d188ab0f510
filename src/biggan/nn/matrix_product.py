"""Matrix products in float32 on a CPU, by the library that knows the processor.

PyTorch multiplies matrices by MKL, which on processors of other makers than Intel keeps to AVX2
where they have AVX-512: half the rate. oneDNN, which PyTorch has for convolutions, does not.
"""

from __future__ import annotations

import platform
import re
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional as F

_LEAST_MULTIPLICATIONS = 1 << 20  # below, the call takes longer than it saves
_CPUINFO = Path("/proc/cpuinfo")


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear` of x (M, K), a weight (N, K) and a bias (N,) or None, with its gradients."""
    if not _suits_onednn(x, weight.mT):
        return F.linear(x, weight, bias)
    return _linear(x, weight, bias)


def affine(bias: Tensor, x: Tensor, matrix: Tensor) -> Tensor:
    """`torch.addmm` of a bias (N,), x (M, K) and a matrix (K, N), with its gradients."""
    if not _suits_onednn(x, matrix):
        return torch.addmm(bias, x, matrix)
    return _linear(x, matrix.mT, bias)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if not torch.is_grad_enabled():
        return _by_onednn(x, weight, bias)
    result: Tensor = _Linear.apply(x, weight, bias)
    return result


class _Linear(torch.autograd.Function):
    """See `linear`; differentiable any number of times."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        of_x, of_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(x if of_weight else None, weight if of_x else None)
        return _by_onednn(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            linear(gradient, weight.mT) if of_x else None,
            linear(gradient.mT, x.mT) if of_weight else None,
            gradient.sum(0) if of_bias else None,
        )


def matrix_product(a: Tensor, b: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The product of a (M, K) and b (K, N), in `out` or new. Not differentiable."""
    if not _suits_onednn(a, b):
        return torch.mm(a, b, out=out)
    result = _by_onednn(a, b.mT)
    return result if out is None else out.copy_(result)


def matrix_products(a: Tensor, b: Tensor, *, out: Tensor) -> Tensor:
    """The products of a (B, M, K) and b (B, K, N) in `out` (B, M, N)."""
    if not _suits_onednn(a, b):
        return torch.bmm(a, b, out=out)
    for one, other, result in zip(a, b, out, strict=True):
        result.copy_(_by_onednn(one, other.mT))
    return out


def add_matrix_product(total: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Add the product of a (M, K) and b (K, N) to `total` (M, N), in place."""
    if not _suits_onednn(a, b):
        return torch.addmm(total, a, b, out=total)  # counted by `FlopCounterMode`; addmm_ is not
    return total.add_(_by_onednn(a, b.mT))


def add_matrix_products(total: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The same for each of several: a (B, M, K), b (B, K, N), `total` (B, M, N)."""
    if not _suits_onednn(a, b):
        return total.baddbmm_(a, b)
    for result, one, other in zip(total, a, b, strict=True):
        result.add_(_by_onednn(one, other.mT))
    return total


def _by_onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if not (weight.is_contiguous() or weight.mT.is_contiguous()):
        weight = weight.contiguous()  # with gaps it would be a thousand times slower
    if bias is not None:
        bias = bias.contiguous()  # its strides are ignored
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return result


def _suits_onednn(a: Tensor, b: Tensor) -> bool:
    """Whether oneDNN is faster for a product of (..., M, K) and (..., K, N)."""
    return (
        # What traces or counts operations does not know this one, nor the size of each tensor.
        not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined]
        and not torch._C._are_functorch_transforms_active()
        and not torch._C._len_torch_dispatch_stack()
        and forward_ad._current_level < 0
        and a.dtype == b.dtype == torch.float32
        and a.device.type == b.device.type == "cpu"
        and a.ndim == b.ndim
        and not torch.is_autocast_enabled("cpu")
        and mkl_is_slow()
        and a.shape[-2] * a.shape[-1] * b.shape[-1] >= _LEAST_MULTIPLICATIONS
    )


@cache
def mkl_is_slow() -> bool:
    """Whether MKL takes AVX2 on a processor that has AVX-512."""
    return (
        torch.backends.mkl.is_available()
        and torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability().startswith("AVX512")
        and _maker() not in ("", "GenuineIntel")
    )


def _maker() -> str:
    """The processor's maker by its own words, empty where the system does not tell."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux; Windows ends with it
        lines = [platform.processor()]
    names = (re.match(r"(?:vendor_id|AMD64|Intel64).*?(\w+)$", line) for line in lines)
    return next((name[1] for name in names if name), "")

"""BatchNorm over the images of several processes, as if one process held them all.

Per layer one exchange of 2C + 1 numbers in the forward pass and one of 2C in the backward pass.
PyTorch's own SyncBatchNorm does the same with kernels that exist on GPUs only; this runs anywhere.
Means and variances are merged as such, and never taken from sums of squares, which cancel where a
mean is large beside its deviation.

Only in layers that are `synchronized`: one process normalizes with PyTorch's fused kernels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def synchronized_batch_norm(
    x: Tensor, running_mean: Tensor, running_var: Tensor, momentum: float, eps: float
) -> Tensor:
    """Bring x to mean 0 and variance 1 per channel over all processes.

    Every process must call it, in the same order; their shares may differ in size.

    Args:
        x: This process's images (N, C, H, W); N may be 0.
        running_mean: Moving average (C,) of the means, changed in place.
        running_var: Moving average (C,) of the unbiased variances, changed in place.
        momentum: Weight of this batch in both.
        eps: Added to the variance.

    Returns:
        (N, C, H, W), of x's type; statistics and sums are of the moving averages' type.
    """
    with torch.no_grad():
        mean, var, count = _merged_statistics(x, running_mean.dtype)
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(var * (count / (count - 1)), momentum)
    normalized: Tensor = _Normalize.apply(x, mean, var, count, eps)
    return normalized


def _merged_statistics(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (C,), biased variance (C,) and number of values per channel, over all processes."""
    channels = x.shape[1]
    own = torch.zeros(2 * channels + 1, dtype=dtype, device=x.device)
    if x.numel() > 0:
        own[channels:-1], own[:channels] = torch.var_mean(x.to(dtype), dim=(0, 2, 3), correction=0)
        own[-1] = x.numel() // channels
    gathered = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
    distributed.all_gather(gathered, own)
    means, variances, counts = torch.stack(gathered).split([channels, channels, 1], dim=1)
    count = counts.sum()
    shares = counts / count  # (processes, 1)
    mean = (shares * means).sum(dim=0)
    var = (shares * (variances + (means - mean).square())).sum(dim=0)
    return mean, var, count


class _Normalize(torch.autograd.Function):
    """(x - mean) / sqrt(var + eps), with a gradient that knows that both come from x.

    dx = (dy - E[dy] - y E[dy y]) / sqrt(var + eps), with means over all processes.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, mean: Tensor, var: Tensor, count: Tensor, eps: float
    ) -> Tensor:
        y = F.batch_norm(x, mean, var, eps=eps)
        # The result and not x: what follows keeps it anyway, so that x can go.
        ctx.save_for_backward(y, torch.rsqrt(var + eps), count)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None, None, None]:
        y, inverse_deviation, count = ctx.saved_tensors
        dy = dy.to(inverse_deviation.dtype)
        sums = torch.cat([dy.sum(dim=(0, 2, 3)), (dy * y).sum(dim=(0, 2, 3))])
        distributed.all_reduce(sums)
        mean_dy, mean_dy_y = (sums / count)[:, None, None].chunk(2)
        dx = torch.addcmul(dy - mean_dy, y, mean_dy_y, value=-1) * inverse_deviation[:, None, None]
        return dx.to(y.dtype), None, None, None, None

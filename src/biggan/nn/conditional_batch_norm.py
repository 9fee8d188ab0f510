"""BatchNorm whose statistics at sampling time are chosen by truncation, plain and conditional.

Truncating the noise shifts the statistics of every layer, so DeepMind recorded them for a grid of
truncations and the network looks them up (BigGAN, Appendix C.1 and D). Here each layer holds that
table beside the statistics for untruncated noise:

    running_mean, running_var  (C,)    z ~ N(0, I): moving averages while training, then replaced by
                                       standing statistics of the finished network
    table_mean, table_var      (S, C)  one row for each of the S truncations of the grid

Nothing is selected by changing the module: the truncation is an argument of `forward`, so two
threads may sample at two truncations at once.

Between two rows of the table the statistics are interpolated linearly. The two ports that were
made from DeepMind's graphs do otherwise there, each in its own way; `off_grid="hub"` is what they
do, to reproduce their pictures. On the grid both are the recorded row.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from biggan.nn.spectral_norm import Linear, SpectralNormLinear

OffGrid = Literal["linear", "hub"]


class StandingBatchNorm2d(nn.Module):
    """The part that both BatchNorms share: batch statistics, and standing ones per truncation.

    Args:
        channels: Channels of the input.
        grid: The truncations of the table, ascending; empty for no table.
        eps: Added to the variance.
        off_grid: Between two rows of the table: `linear`, or `hub`, see `hub_weight`.
    """

    MOMENTUM: ClassVar[float] = 0.1
    """Weight of the newest batch in the moving averages while training."""

    running_mean: Tensor
    running_var: Tensor
    table_mean: Tensor
    table_var: Tensor

    def __init__(
        self,
        channels: int,
        *,
        grid: Sequence[float] = (),
        eps: float = 1e-4,
        off_grid: OffGrid = "linear",
    ) -> None:
        super().__init__()
        self.channels = channels
        self.eps = eps
        self.off_grid = off_grid
        self.momentum = self.MOMENTUM
        self.synchronized = False
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.set_grid(grid)

    def set_grid(self, grid: Sequence[float]) -> None:
        """Replace the table by an empty one for the truncations of `grid`, ascending."""
        self.grid = tuple(grid)
        shape = (len(self.grid), self.channels)
        self.register_buffer("table_mean", self.running_mean.new_zeros(shape))
        self.register_buffer("table_var", self.running_mean.new_ones(shape))

    def reset_statistics(self) -> None:
        """Set every mean to 0 and every variance to 1."""
        for mean in (self.running_mean, self.table_mean):
            mean.zero_()
        for var in (self.running_var, self.table_var):
            var.fill_(1)

    def statistics(self, truncation: float | None) -> tuple[Tensor, Tensor]:
        """The mean and variance, each (C,), with which to sample at a truncation.

        On the grid the recorded row, bit for bit; between two rows their interpolation as
        `off_grid` says; outside the grid its nearest end. Without a table, or for `None`
        (untruncated noise), the statistics for z ~ N(0, I).
        """
        if truncation is None or not self.grid:
            return self.running_mean, self.running_var
        row, weight = locate_on_grid(truncation, self.grid)
        if weight == 0.0:
            return self.table_mean[row], self.table_var[row]
        if self.off_grid == "hub":
            row, weight = hub_weight(truncation, self.grid)
        return (
            torch.lerp(self.table_mean[row], self.table_mean[row + 1], weight),
            torch.lerp(self.table_var[row], self.table_var[row + 1], weight),
        )

    def normalize(self, x: Tensor, truncation: float | None) -> Tensor:
        """Bring x (N, C, H, W) to mean 0 and variance 1 per channel.

        In training mode by the batch's own statistics, which also enter the moving averages; in
        eval mode by those recorded for `truncation`. A synchronized layer's batch is that of all
        processes together.
        """
        if self.training and self.synchronized:
            from biggan.nn.synchronization import synchronized_batch_norm

            return synchronized_batch_norm(
                x, self.running_mean, self.running_var, self.momentum, self.eps
            )
        if self.training:
            mean, var = self.running_mean, self.running_var
        else:
            mean, var = self.statistics(truncation)
        return F.batch_norm(
            x, mean, var, training=self.training, momentum=self.momentum, eps=self.eps
        )


class BatchNorm2d(StandingBatchNorm2d):
    """BatchNorm with a learned gain and bias per channel; see `StandingBatchNorm2d`."""

    def __init__(self, channels: int, **table: Any) -> None:
        super().__init__(channels, **table)
        self.gain = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, truncation: float | None = None) -> Tensor:
        """Normalize, scale and shift x (N, C, H, W)."""
        x = self.normalize(x, truncation)
        return _modulate(x, self.gain, self.bias)


class ConditionalBatchNorm2d(StandingBatchNorm2d):
    """BatchNorm whose gain and bias are linear in a condition vector c: 1 + A c and B c.

    The 1 matters: with zero weights this is plain BatchNorm. A published port that left it out
    never trained (google/compare_gan issue 54).

    Args, besides those of `StandingBatchNorm2d`:
        condition_dim: Width of the condition vector.
        spectral: Whether A and B are spectrally normalized, as they are for a shared class
            embedding; not where the condition is one-hot and they are tables of one gain and
            one bias per class and channel.
        sn_eps: Epsilon of the spectral normalization.
    """

    def __init__(
        self,
        channels: int,
        condition_dim: int,
        *,
        spectral: bool = True,
        sn_eps: float = 1e-4,
        **table: Any,
    ) -> None:
        super().__init__(channels, **table)
        self.gain: nn.Linear
        self.bias: nn.Linear
        if spectral:
            self.gain = SpectralNormLinear(condition_dim, channels, bias=False, eps=sn_eps)
            self.bias = SpectralNormLinear(condition_dim, channels, bias=False, eps=sn_eps)
        else:
            self.gain = Linear(condition_dim, channels, bias=False)
            self.bias = Linear(condition_dim, channels, bias=False)

    def forward(self, x: Tensor, condition: Tensor, truncation: float | None = None) -> Tensor:
        """Normalize x (N, C, H, W), scale and shift it as condition (N, condition_dim) says."""
        gain = 1 + self.gain(condition)  # (N, C)
        bias = self.bias(condition)  # (N, C)
        x = self.normalize(x, truncation)
        return _modulate(x, gain, bias)


def _modulate(x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    """Scale and shift x (N, C, H, W) by gain and bias, each (C,) or (N, C), in x's precision."""
    gain, bias = gain.to(x.dtype), bias.to(x.dtype)
    return torch.addcmul(bias[..., None, None], x, gain[..., None, None])


def locate_on_grid(truncation: float, grid: Sequence[float]) -> tuple[int, float]:
    """Where a truncation lies on an ascending grid; outside it is taken as the nearest end.

    Returns:
        (row, weight), meaning (1 - weight) * grid[row] + weight * grid[row + 1], 0 <= weight < 1.
        The weight is exactly 0 within 1e-6 of a grid value: 0.58 is the 29th of 0.02, 0.04, ...
        although 0.58 / 0.02 is less than 29 in floating point.
    """
    right = bisect_left(grid, truncation)
    for row in (right, right - 1):
        if 0 <= row < len(grid) and abs(grid[row] - truncation) < 1e-6:
            return row, 0.0
    if right == 0:
        return 0, 0.0
    if right == len(grid):
        return len(grid) - 1, 0.0
    left = right - 1
    return left, (truncation - grid[left]) / (grid[right] - grid[left])


def hub_weight(truncation: float, grid: Sequence[float]) -> tuple[int, float]:
    """Where the ports of DeepMind's graphs look between two rows of an evenly spaced table.

    For BigGAN-deep (51 rows, from 0.00 on) pytorch-pretrained-biggan swaps the weights of the two
    neighbours: 0.405 takes the statistics of 0.415. For BigGAN (50 rows, from 0.02 on) ivclab's
    port extrapolates from the nearer neighbour and the one after it: 0.405 takes those of 0.395,
    and 0.415 those of 0.425. Both claim to follow the graph op for op; that the graphs really do
    this has not been checked here.

    Returns:
        (row, weight) as `locate_on_grid` gives them, but the weight may be negative or above 1.
    """
    step = grid[1] - grid[0]
    if grid[0] == 0:
        row = int(truncation / step)
        return row, 1 - (truncation / step - row)
    row = round((truncation - step) / step)
    weight = 1 - round((truncation - row * step) / step, 2)
    last = len(grid) - 2  # at the end of the table the port has no second row; here the same line
    return (row, weight) if row <= last else (last, weight + row - last)

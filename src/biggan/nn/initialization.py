"""Orthogonal initialization (Saxe et al. 2014), which BigGAN uses in both networks.

All random numbers come from one explicit generator, so that a seed names a network.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from biggan.nn.attention import SelfAttention2d
from biggan.nn.conditional_batch_norm import BatchNorm2d, StandingBatchNorm2d
from biggan.nn.spectral_norm import SpectralNorm

_LARGE = 256  # rows or columns of a matrix, the fewer
_OBLONG = 4  # from this ratio of rows to columns on


def initialize_orthogonal(network: nn.Module, seed: int) -> None:
    """Set every parameter and buffer of a network, in place, to its value before training.

    Convolutions, linear layers and embeddings: (semi-)orthogonal matrices. Biases: zero, as
    TensorFlow's layers start. BatchNorm: gain 1, bias 0, statistics of N(0, 1). Attention's gamma:
    zero. Power iteration starts from a random direction.
    """
    generator = torch.Generator().manual_seed(seed)
    for layer in network.modules():
        if isinstance(layer, StandingBatchNorm2d):
            layer.reset_statistics()
        if isinstance(layer, BatchNorm2d):
            nn.init.ones_(layer.gain)
            nn.init.zeros_(layer.bias)
        elif isinstance(layer, SelfAttention2d):
            nn.init.zeros_(layer.gamma)
        elif isinstance(layer, nn.Conv2d | nn.Linear | nn.Embedding):
            _initialize_layer(layer, generator)


@torch.no_grad()
def _initialize_layer(
    layer: nn.Conv2d | nn.Linear | nn.Embedding, generator: torch.Generator
) -> None:
    # Drawn on the CPU and copied: the same seed gives the same network on every device.
    weight = torch.empty(layer.weight.shape, dtype=layer.weight.dtype)
    layer.weight.copy_(_orthogonal(weight, generator))
    bias = getattr(layer, "bias", None)
    if bias is not None:
        nn.init.zeros_(bias)
    if isinstance(layer, SpectralNorm):
        layer.u.copy_(F.normalize(torch.randn(layer.u.shape, generator=generator), dim=0))
        layer.iterate_power()


def _orthogonal(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Fill a weight as `nn.init.orthogonal_` does: the same numbers, but for rounding, sooner."""
    matrix = weight.flatten(1)
    shorter, longer = sorted(matrix.shape)
    if shorter < _LARGE or longer < _OBLONG * shorter:
        return nn.init.orthogonal_(weight, generator=generator)
    # The orthogonal factor of A = Q R by A^T A = R^T R (Cholesky), all of it matrix products. Its
    # rounding error grows with the square of A's condition, which in so oblong a random matrix is
    # below (sqrt(4) + 1) / (sqrt(4) - 1) = 3.
    matrix.normal_(generator=generator)
    wide = matrix if len(matrix) == shorter else matrix.mT
    products = wide.new_empty(shorter, shorter)
    for start in range(0, shorter, _LARGE):  # the lower triangle alone is read
        rows = slice(start, start + _LARGE)
        products[rows, : rows.stop] = wide[rows] @ wide[: rows.stop].mT
    factor = torch.linalg.cholesky(products)
    wide.copy_(torch.linalg.solve_triangular(factor, wide, upper=False))
    return weight

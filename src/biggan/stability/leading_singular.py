"""The leading singular triplets of a matrix, kept up to date while it changes.

Orthogonalised power iteration (Golub and van der Vorst 2000) on a block of vectors, which is what
the paper takes the first singular values by (Section 4.1), warm-started from the triplets before. A
block that is larger than what is asked of it converges faster, by the gap to the first value
*outside* the block, and finds values that stand close together. A small matrix is decomposed as a
whole.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

BLOCK = 8
"""Vectors in a block."""

WHOLE = 256
"""Columns up to which all triplets are computed: that is exact, and cheap beside a layer's work."""


class Triplets(NamedTuple):
    """Singular triplets of a matrix (m, n), the largest first."""

    left: Tensor
    """(m, k)."""
    values: Tensor
    """(k,)."""
    right: Tensor
    """(n, k), orthonormal."""


def start_block(matrix: Tensor, random: torch.Generator) -> Tensor:
    """Orthonormal vectors to start from, (n, BLOCK) for a matrix (m, n) with m >= n."""
    block = torch.randn(matrix.shape[1], BLOCK, generator=random)
    return torch.linalg.qr(block.to(matrix)).Q


def all_triplets(matrix: Tensor) -> Triplets:
    """The triplets of a matrix (m, n) with m >= n: by its Gram matrix, so only large ones are good.

    A value is as far off as rounding leaves of the largest one's square: 1e-7 of it in float32.
    """
    return _within(matrix, None)


def iterate_block(matrix: Tensor, right: Tensor, iterations: int) -> Triplets:
    """Move a block towards the leading right singular vectors of a matrix.

    Args:
        matrix: (m, n), m >= n.
        right: The block (n, k), orthonormal.
        iterations: Power iterations, each a product with the matrix and one with its transpose.

    Returns:
        The best triplets within the block (Rayleigh and Ritz). The values are never too large.
    """
    for _ in range(iterations):
        right = torch.linalg.qr(matrix.mT @ (matrix @ right)).Q
    return _within(matrix @ right, right)


def _within(image: Tensor, right: Tensor | None) -> Triplets:
    """The best triplets within a block, of its image; None for the block of all unit vectors."""
    squares, rotation = torch.linalg.eigh(image.mT @ image)  # ascending
    rotation = rotation.flip(1)
    values = squares.flip(0).clamp(min=0).sqrt()
    # Where a value is zero its left vector is none, and left at zero.
    left = image @ rotation / values.where(values > 0, 1)
    return Triplets(left, values, rotation if right is None else right @ rotation)

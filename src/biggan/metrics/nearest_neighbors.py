"""Nearest neighbours, in pixels or in features: are generated images copies of the data's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from biggan.errors import InputError
from biggan.metrics.feature_sets import blocks, check_features, check_same_width

_SPARE = 8  # candidates besides twice the neighbours that are asked for


class Neighbors(NamedTuple):
    """The nearest of a reference, nearest first; equally near ones in the reference's order.

    Attributes:
        distances: Euclidean, float64 (N, k).
        indices: Rows of the reference, int64 (N, k).
    """

    distances: Tensor
    indices: Tensor


@torch.no_grad()
def nearest_neighbors(query: Tensor, reference: Tensor | Iterable[Tensor], k: int) -> Neighbors:
    """Find the k nearest rows of the reference for every query.

    Matrix products in float64, about the query's mean, find somewhat more candidates than asked
    for. Their distances are then taken from differences, so that a copy has a distance of 0 and
    small distances keep their digits.

    Both are real numbers or uint8 (N, dim). The reference may be mapped from a file, or come in
    blocks of rows.

    Raises:
        InputError: NaN or infinite values, different widths, or a reference of fewer than k.
    """
    if k < 1:
        raise InputError(f"k must be at least 1, not {k}")
    check_features(query, "the queries")
    if isinstance(reference, Tensor):
        check_features(reference, "the reference", k, f"a search for {k} neighbours")
        sizes = blocks(len(reference), 8 * max(reference.shape[1], len(query)))
        reference = map(reference.__getitem__, sizes)
    query = query.to("cpu", torch.float64)
    distances = query.new_empty(len(query), 0)
    indices = torch.empty(len(query), 0, dtype=torch.int64)
    start = 0
    for block in reference:
        check_features(block, "the reference")
        check_same_width(query, block, "queries and reference")
        found = _search(query, block.to("cpu", torch.float64), k)
        distances = torch.cat([distances, found.distances], 1)
        indices = torch.cat([indices, found.indices + start], 1)
        order = distances.argsort(dim=1, stable=True)[:, :k]
        distances, indices = distances.gather(1, order), indices.gather(1, order)
        start += len(block)
    return Neighbors(distances, indices)


def _search(query: Tensor, block: Tensor, k: int) -> Neighbors:
    """The nearest rows of a block, at most k."""
    centre = query.mean(0)
    moved = block - centre
    # The query's own norm changes no order among its neighbours.
    near = torch.addmm(moved.square().sum(1), query - centre, moved.T, alpha=-2)
    candidates = near.topk(min(2 * k + _SPARE, len(block)), largest=False).indices
    # Sorted by number, so that the stable sort below keeps this order among the equally near.
    candidates = candidates.sort(1).values
    distances = torch.stack(
        [(block[some] - row).square_().sum(1) for row, some in zip(query, candidates, strict=True)]
    )
    order = distances.argsort(dim=1, stable=True)[:, :k]
    return Neighbors(distances.gather(1, order).sqrt_(), candidates.gather(1, order))

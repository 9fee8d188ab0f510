"""Nearest neighbours, in pixels or in features: are generated images copies of the data's."""

from __future__ import annotations

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
def nearest_neighbors(query: Tensor, reference: Tensor, k: int) -> Neighbors:
    """Find the k nearest rows of the reference for every query.

    Matrix products in float64, about the query's mean, find somewhat more candidates than asked
    for. Their distances are then taken from differences, so that a copy has a distance of 0 and
    small distances keep their digits.

    Both are real numbers or uint8 (N, dim). The reference may be mapped from a file.

    Raises:
        InputError: NaN or infinite values, different widths, or a reference of fewer than k.
    """
    if k < 1:
        raise InputError(f"k must be at least 1, not {k}")
    check_features(query, "the queries")
    check_features(reference, "the reference", k, f"a search for {k} neighbours")
    check_same_width(query, reference, "queries and reference")
    parts = [_search(query[rows], reference, k) for rows in blocks(len(query), 8 * query.shape[1])]
    return Neighbors(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _search(query: Tensor, reference: Tensor, k: int) -> Neighbors:
    query = _double(query)
    candidates = _candidates(query, reference, min(2 * k + _SPARE, len(reference)))
    # Sorted by number, so that the stable sort below keeps this order among the equally near.
    candidates = candidates.sort(1).values
    distances = torch.stack(
        [
            (_double(reference[some]) - row).square_().sum(1)
            for row, some in zip(query, candidates.to(reference.device), strict=True)
        ]
    )
    order = distances.argsort(dim=1, stable=True)[:, :k]
    return Neighbors(distances.gather(1, order).sqrt_(), candidates.gather(1, order))


def _candidates(query: Tensor, reference: Tensor, num: int) -> Tensor:
    """The rows of the reference that seem nearest by matrix products: int64 (n, num)."""
    centre = query.mean(0)
    query = query - centre
    nearest = query.new_empty(len(query), 0)
    indices = torch.empty(len(query), 0, dtype=torch.int64)
    for rows in blocks(len(reference), 8 * max(reference.shape[1], len(query))):
        block = _double(reference[rows]) - centre
        # The query's own norm changes no order among its neighbours.
        distances = torch.addmm(block.square().sum(1), query, block.T, alpha=-2)
        numbers = torch.arange(rows.start, rows.stop).expand_as(distances)
        nearest = torch.cat([nearest, distances], 1)
        indices = torch.cat([indices, numbers], 1)
        nearest, kept = nearest.topk(min(num, nearest.shape[1]), largest=False)
        indices = indices.gather(1, kept)
    return indices


def _double(values: Tensor) -> Tensor:
    return values.to("cpu", torch.float64)

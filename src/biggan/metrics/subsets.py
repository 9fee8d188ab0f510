"""Scores that are means over random parts of a set, the same in whatever order the set comes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Score(NamedTuple):
    """A mean over parts of a set.

    Attributes:
        mean: Over the parts.
        std: Of the parts about their mean (the population's, as `numpy.std`); 0 if there is one
            part. It says how far single parts scatter, not how uncertain the mean is.
    """

    mean: float
    std: float

    @classmethod
    def of_parts(cls, values: list[float]) -> Score:
        """From the values of the parts."""
        tensor = torch.tensor(values, dtype=torch.float64)
        return cls(tensor.mean().item(), tensor.std(correction=0).item())


def content_order(rows: Tensor) -> Tensor:
    """The order in which rows ascend, compared by their first column, then by the next.

    It depends on the rows alone and not on where they stood: equal rows may change places, which
    makes no difference. So a random choice of positions in this order is a random choice of images
    that no permutation of the images alters. A hash would serve as well, but rounding in a row's
    last digit, as another batch size brings it, would move that row anywhere; here it stays among
    its neighbours, and nearly all of them get the same position.

    Args:
        rows: Real numbers (N, dim) without NaN.

    Returns:
        int64 (N,): `rows[content_order(rows)]` is sorted.
    """
    rank = torch.unique(rows.detach(), dim=0, sorted=True, return_inverse=True)[1]
    return rank.argsort(stable=True)


def random_order(rows: Tensor, random: torch.Generator) -> Tensor:
    """A random order of the rows that does not depend on the one they are given in.

    Args:
        rows: Real numbers (N, dim) without NaN.
        random: On the CPU.

    Returns:
        int64 (N,), on the rows' device.
    """
    return content_order(rows)[torch.randperm(len(rows), generator=random).to(rows.device)]

"""What the metrics share: checks of feature sets, blocks of rows, scores over random subsets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from biggan.errors import InputError

_BLOCK_BYTES = 1 << 26


class Score(NamedTuple):
    """Mean over subsets, and their (population) standard deviation; 0 for a single subset."""

    mean: float
    std: float

    @classmethod
    def of_subsets(cls, values: list[float]) -> Score:
        """From the values of the subsets."""
        tensor = torch.tensor(values, dtype=torch.float64)
        return cls(tensor.mean().item(), tensor.std(correction=0).item())


def content_order(rows: Tensor) -> Tensor:
    """The lexicographic order of rows, real numbers (N, dim) without NaN: int64 (N,).

    It depends on the rows alone, so a random choice of positions in this order is a choice of
    images that no permutation of the images alters. Rounding in a row's last digit moves it only
    among its neighbours, where a hash would move it anywhere.
    """
    rank = torch.unique(rows.detach(), dim=0, sorted=True, return_inverse=True)[1]
    return rank.argsort(stable=True)


def check_features(
    features: Tensor, name: str, at_least: int = 1, reason: str = "a metric"
) -> None:
    """Refuse features that are no matrix (N, dim) of finite real numbers with enough rows.

    `name` is what the message calls them, `reason` what needs so many.
    """
    if features.ndim != 2 or features.shape[1] == 0 or features.is_complex():
        raise InputError(f"{name} must be real numbers (N, dim), not {tuple(features.shape)}")
    if len(features) < at_least:
        raise InputError(
            f"{name} are of {len(features)} images, but {reason} needs at least {at_least}"
        )
    if len(features) == 0:
        return
    # Minimum and maximum propagate NaN, without a mask as large as the features.
    extremes = torch.stack(features.detach().aminmax())
    if not extremes.isfinite().all():
        row = next(i for i, row in enumerate(features) if not row.isfinite().all())
        raise InputError(
            f"{name} hold NaN or infinite values, first in row {row}: check that image and the "
            "network that generated it"
        )


def check_same_width(first: Tensor, second: Tensor, names: str) -> None:
    """Refuse two sets whose rows are not equally long."""
    if first.shape[1] != second.shape[1]:
        raise InputError(
            f"{names} are {first.shape[1]} and {second.shape[1]} wide: use the same extractor for "
            "both"
        )


def blocks(num: int, row_bytes: int) -> Iterator[slice]:
    """Divide `num` rows of so many bytes into blocks of at most 64 MiB, or of one row."""
    size = max(1, _BLOCK_BYTES // max(1, row_bytes))
    for start in range(0, num, size):
        yield slice(start, min(start + size, num))

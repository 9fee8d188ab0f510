"""What every metric asks of a set of features, one row an image."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from biggan.errors import InputError

_BLOCK_BYTES = 1 << 26


def check_features(
    features: Tensor, name: str, at_least: int = 1, reason: str = "a metric"
) -> None:
    """Refuse what no metric could make sense of.

    Args:
        features: Real numbers (N, dim).
        name: What the message calls them.
        at_least: The smallest N.
        reason: What needs so many, for the message.

    Raises:
        InputError: Not a matrix, fewer than `at_least` rows, or some values are NaN or infinite.
    """
    if features.ndim != 2 or features.shape[1] == 0 or features.is_complex():
        raise InputError(f"{name} must be real numbers (N, dim), not {tuple(features.shape)}")
    if len(features) < at_least:
        raise InputError(
            f"{name} are of {len(features)} images, but {reason} needs at least {at_least}"
        )
    if len(features) == 0:
        return
    # The least and the largest carry a NaN along, and no mask as large as the features is made.
    extremes = torch.stack(features.detach().aminmax())
    if not extremes.isfinite().all():
        row = next(i for i, row in enumerate(features) if not row.isfinite().all())
        raise InputError(
            f"{name} hold NaN or infinite values, first in row {row}: look at that image and at "
            "the network which made it"
        )


def check_same_width(first: Tensor, second: Tensor, names: str) -> None:
    """Refuse two sets whose rows cannot be compared.

    Raises:
        InputError: Their rows are not equally long.
    """
    if first.shape[1] != second.shape[1]:
        raise InputError(
            f"{names} are {first.shape[1]} and {second.shape[1]} wide: take both from the same "
            "extractor"
        )


def blocks(num: int, row_bytes: int) -> Iterator[slice]:
    """Divide rows into blocks of at most 64 MiB, or of one row where that is longer.

    Args:
        num: How many rows there are.
        row_bytes: What the work on one row takes.
    """
    size = max(1, _BLOCK_BYTES // max(1, row_bytes))
    for start in range(0, num, size):
        yield slice(start, min(start + size, num))

"""Kernel Inception Distance: squared maximum mean discrepancy with a cubic kernel.

Binkowski et al. 2018, "Demystifying MMD GANs", Section 4, https://arxiv.org/abs/1801.01401. Unlike
the Frechet distance its estimate is unbiased at any number of images. The name is for features of
TF-Inception; of another network's it is a kernel distance.
"""

from __future__ import annotations

import torch
from torch import Tensor

from biggan.errors import InputError
from biggan.metrics.feature_sets import (
    Score,
    blocks,
    check_features,
    check_same_width,
    content_order,
)


@torch.no_grad()
def kernel_inception_distance(
    a: Tensor, b: Tensor, subset_size: int | None = 1000, subsets: int = 100, seed: int = 0
) -> Score:
    """Mean and deviation of the discrepancy over subsets; around 0 for equal distributions.

    Subsets are drawn from sorted features, so the order of the images makes no difference.

    Each subset has `subset_size` images of either set, drawn without replacement; None is one
    exact estimate of all images, at a cost of (N + M)^2.

    Raises:
        InputError: NaN or infinite features, different widths, or fewer images than a subset has.
    """
    if subset_size is not None and subset_size < 2:
        raise InputError(f"subset_size must be at least 2, not {subset_size}")
    if subsets < 1:
        raise InputError(f"subsets must be at least 1, not {subsets}")
    reason = "a kernel distance" + (f" in subsets of {subset_size}" if subset_size else "")
    for name, features in (("the first features", a), ("the second features", b)):
        check_features(features, name, subset_size or 2, reason)
    check_same_width(a, b, "the two sets of features")
    if subset_size is None:
        return Score.of_subsets([_squared_mmd(a, b)])
    random = torch.Generator().manual_seed(seed)
    order_a, order_b = content_order(a), content_order(b)
    values = []
    for _ in range(subsets):
        part_a = order_a[torch.randperm(len(a), generator=random)[:subset_size].to(a.device)]
        part_b = order_b[torch.randperm(len(b), generator=random)[:subset_size].to(b.device)]
        values.append(_squared_mmd(a[part_a], b[part_b]))
    return Score.of_subsets(values)


def _squared_mmd(a: Tensor, b: Tensor) -> float:
    """The unbiased estimate: no image is compared with itself."""
    n, m = len(a), len(b)
    within_a = (_kernel_sum(a, a) - _kernel_trace(a)) / (n * (n - 1))
    within_b = (_kernel_sum(b, b) - _kernel_trace(b)) / (m * (m - 1))
    return within_a + within_b - 2 * _kernel_sum(a, b) / (n * m)


def _kernel_sum(a: Tensor, b: Tensor) -> float:
    """Sum over all pairs of (x.y / dim + 1)^3, a block of either set at a time."""
    total = 0.0
    for rows in blocks(len(a), 8 * a.shape[1]):
        some = a[rows].to("cpu", torch.float64)
        for columns in blocks(len(b), 8 * max(b.shape[1], len(some))):
            products = some @ b[columns].to("cpu", torch.float64).T
            total += _kernel(products, a.shape[1]).sum().item()
    return total


def _kernel_trace(a: Tensor) -> float:
    """Sum of the kernel between each image and itself."""
    return sum(
        _kernel(a[rows].to("cpu", torch.float64).square().sum(1), a.shape[1]).sum().item()
        for rows in blocks(len(a), 8 * a.shape[1])
    )


def _kernel(products: Tensor, dim: int) -> Tensor:
    return products.div_(dim).add_(1).pow_(3)

"""Frechet distance between Gaussians that have the moments of two sets of features.

Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash
Equilibrium", equation 6, https://arxiv.org/abs/1706.08500: with the features of TF-Inception it is
the Frechet Inception Distance (FID); with those of another network it must not be called so.

Within each class by itself it is the intra-class distance ("intra-FID") of Miyato and Koyama 2018,
"cGANs with Projection Discriminator", Section 4, https://arxiv.org/abs/1802.05637.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from biggan.errors import InputError
from biggan.metrics.statistics import FeatureStatistics, check_same_source

_NEGLIGIBLE = 1e-10  # of a covariance's trace, to be missing from its factor


@torch.no_grad()
def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """|mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)), squared as is the custom.

    With A = F F^T, the eigenvalues of A B other than 0 are those of the symmetric F^T B F, so the
    trace of the root needs one factorization and one set of symmetric eigenvalues, and is real and
    defined for covariances of any rank, as those of fewer images than dimensions are.

    Returns:
        At least 0; 0 to rounding, 1e-8 of the covariance's trace, for equal statistics. The order
        of the two makes no difference beyond rounding.

    Raises:
        InputError: They are of different extractors or widths, or of fewer than 2 images; or the
            features are so large that float64 does not hold the figure.
    """
    check_same_source(a, b)
    pairs = [(statistics, statistics.covariance()) for statistics in (a, b)]
    # That of lower rank is factored: the product then has no more rows than its own rank, and no
    # eigenvalues that are 0 but for rounding, the roots of which would add up. The trace decides
    # where nothing else does, so that the order of the two does not.
    pairs.sort(key=lambda p: (_rank(p[0]), p[0].count is not None, p[1].trace().item()))
    (lower, covariance), (_, other) = pairs
    if not (covariance.isfinite().all() and other.isfinite().all()):
        raise _too_large()
    mean_part = (a.mean - b.mean).square().sum()
    try:
        factor = _cholesky_factor(covariance, _rank(lower))
        factor = _eigen_factor(covariance) if factor is None else factor
        root = torch.linalg.eigvalsh(factor.T @ other @ factor).clamp(min=0).sqrt().sum()
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # of an infinite product
        raise _too_large() from None
    distance = (mean_part + covariance.trace() + other.trace() - 2 * root).item()
    if not math.isfinite(distance):  # max() would make a perfect 0 of a NaN
        raise _too_large()
    return max(0.0, distance)


def intra_class_frechet_distance(
    real: Mapping[int, FeatureStatistics], fake: Mapping[int, FeatureStatistics]
) -> dict[int, float]:
    """The distance between the real and the generated images of each class.

    It is biased upwards the more, the fewer images a class has.

    Raises:
        InputError: The classes of the two differ, one has fewer than 2 images, or statistics are
            of different extractors.
    """
    if not real or real.keys() != fake.keys():
        raise InputError("an intra-class distance needs images of every class on both sides")
    distances = {}
    for label in sorted(real):
        try:
            distances[label] = frechet_distance(real[label], fake[label])
        except InputError as error:
            raise InputError(f"class {label}: {error}") from None
    return distances


def _too_large() -> InputError:
    return InputError(
        "the Frechet distance is not finite: the features are NaN or too large; check the network "
        "that generated them"
    )


def _rank(statistics: FeatureStatistics) -> int:
    """The most that the covariance can have."""
    if statistics.count is None:
        return statistics.dim
    return min(statistics.dim, statistics.count - 1)


def _cholesky_factor(a: Tensor, rank: int) -> Tensor | None:
    """F (dim, rank) with F F^T = A, from as many columns of A; None where they do not tell all.

    The columns of the largest variances span those of all A if its rank is no larger and they do
    not depend on each other. It takes a fraction of the time of eigenvectors.
    """
    order = a.diagonal().argsort(descending=True)
    ordered = a[order][:, order]
    corner, failed = torch.linalg.cholesky_ex(ordered[:rank, :rank])
    if failed.item() or corner.diagonal().min() ** 2 <= _rounding(a.diagonal()):
        return None
    rest = torch.linalg.solve_triangular(corner, ordered[:rank, rank:], upper=False).T
    factor = torch.empty(len(a), rank, dtype=a.dtype)
    factor[order] = torch.cat([corner, rest])
    # A - F F^T has no negative eigenvalues, so its trace bounds all of it.
    left = a.trace() - factor.square().sum()
    return factor if left.abs() <= _NEGLIGIBLE * a.trace() else None


def _eigen_factor(a: Tensor) -> Tensor:
    """F (dim, rank) with F F^T = A, without the directions in which A is 0 to rounding."""
    eigenvalues, vectors = torch.linalg.eigh(a)
    kept = eigenvalues > _rounding(eigenvalues)
    return vectors[:, kept] * eigenvalues[kept].sqrt()


def _rounding(values: Tensor) -> float:
    """What rounding may make of a 0 beside these numbers."""
    return len(values) * torch.finfo(values.dtype).eps * values.max().item()

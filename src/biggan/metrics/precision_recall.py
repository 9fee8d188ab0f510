"""Fidelity and variety apart: precision and recall, density and coverage.

Kynkaanniemi et al. 2019, "Improved Precision and Recall Metric for Assessing Generative Models",
https://arxiv.org/abs/1904.06991, Section 2: a set's manifold is the union of the balls around its
points that reach to their k-th neighbours. Naeem et al. 2020, "Reliable Fidelity and Diversity
Metrics for Generative Models", https://arxiv.org/abs/2002.09797, Section 3: how many real balls
hold a generated image, which one outlier among the real images cannot spoil, and how many real
balls hold any.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from biggan.errors import InputError
from biggan.metrics.feature_sets import blocks, check_features, check_same_width

# Both in units of the float's rounding, for squared distances over squared distances from the mean.
_ROUNDING = 16.0  # of a squared distance out of matrix products, and some more
_RESOLVED = 1e4  # squared radii above this are told apart to a few thousandths


class PrecisionRecall(NamedTuple):
    """Fidelity (precision, density) and variety (recall, coverage).

    Attributes:
        precision: Share of generated images within some real image's ball, in [0, 1].
        recall: Share of real images within some generated image's ball, in [0, 1].
        density: Real balls that hold a generated image, over k, on average; 1 if the two
            distributions are equal, and unbounded above.
        coverage: Share of real images whose ball holds a generated image, in [0, 1].
    """

    precision: float
    recall: float
    density: float
    coverage: float


class _Balls(NamedTuple):
    """Points with the distance to their k-th neighbours."""

    points: Tensor  # (N, dim)
    norms: Tensor  # (N,), squared
    radii: Tensor  # (N,), squared
    resolved: bool
    """Whether rounding is far below the radii."""


@torch.no_grad()
def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> PrecisionRecall:
    """All four from one pass over all pairs of images.

    A point on a ball's surface counts as inside, up to rounding. Distances come from matrix
    products in float32 about the real images' mean; where neighbours are too near to each other
    for that, or the products round more, all is computed again in float64.

    The figures depend on the numbers of images and on k: compare them at the same ones. The first
    paper takes k = 3 and 50,000 images, the second k = 5 and 10,000.

    Raises:
        InputError: NaN or infinite features, different widths, or not more than k images in a set.
    """
    if k < 1:
        raise InputError(f"k must be at least 1, not {k}")
    reason = f"the distance to neighbour {k}"
    check_features(real, "real features", k + 1, reason)
    check_features(fake, "generated features", k + 1, reason)
    check_same_width(real, fake, "real and generated features")
    centre = real.mean(0, dtype=torch.float64)
    for dtype in (torch.float32, torch.float64):
        real_balls = _balls(_centred(real, centre, dtype), k)
        fake_balls = _balls(_centred(fake, centre, dtype), k)
        if real_balls.resolved and fake_balls.resolved:
            break
    return _compare(real_balls, fake_balls, k)


def _centred(features: Tensor, centre: Tensor, dtype: torch.dtype) -> Tensor:
    """Features about a centre in float64, rounded after the subtraction."""
    points = torch.empty(features.shape, dtype=dtype, device=features.device)
    for rows in blocks(len(features), 8 * features.shape[1]):
        points[rows] = features[rows] - centre
    return points


def _balls(points: Tensor, k: int) -> _Balls:
    norms = torch.linalg.vector_norm(points, dim=1).square_()
    radii, to_itself = torch.empty_like(norms), torch.empty_like(norms)
    for rows in blocks(len(points), points.itemsize * len(points)):
        distances = _squared_distances(points[rows], norms[rows], points, norms)
        own = distances.diagonal(rows.start)
        to_itself[rows] = own  # 0 but for rounding, which it shows
        own.fill_(torch.inf)  # a point is no neighbour of its own
        radii[rows] = distances.topk(k, 1, largest=False).values[:, -1]
    rounding = torch.finfo(norms.dtype).eps * norms
    precise = (to_itself.abs() <= _ROUNDING * rounding).all()
    resolved = bool(precise and (radii >= _RESOLVED * rounding).all())
    return _Balls(points, norms, radii.clamp_(min=0), resolved)


def _compare(real: _Balls, fake: _Balls, k: int) -> PrecisionRecall:
    # Norms that much smaller make every squared distance smaller by the rounding it may have.
    slack = 1 - _ROUNDING * torch.finfo(real.norms.dtype).eps
    near_real = torch.zeros_like(fake.norms, dtype=torch.bool)
    recalled = covered = inside = 0
    for rows in blocks(len(real.points), real.points.itemsize * len(fake.points)):
        distances = _squared_distances(
            real.points[rows], real.norms[rows] * slack, fake.points, fake.norms * slack
        )
        in_real_ball = distances <= real.radii[rows, None]
        near_real |= in_real_ball.any(0)
        inside += int(in_real_ball.count_nonzero())
        covered += int(in_real_ball.any(1).sum())
        recalled += int((distances <= fake.radii).any(1).sum())
    num_real, num_fake = len(real.points), len(fake.points)
    return PrecisionRecall(
        precision=int(near_real.sum()) / num_fake,
        recall=recalled / num_real,
        density=inside / (k * num_fake),
        coverage=covered / num_real,
    )


def _squared_distances(a: Tensor, a_norms: Tensor, b: Tensor, b_norms: Tensor) -> Tensor:
    """|x|^2 + |y|^2 - 2 x.y of all pairs, given the squared norms: (N, M)."""
    return torch.addmm(b_norms, a, b.T, alpha=-2).add_(a_norms[:, None])

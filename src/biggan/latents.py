"""Noise, and the three meanings of truncation.

    hub    t * TN(-2, 2)    DeepMind's published modules and their notebook: a normal cut at two
                            standard deviations, then scaled. The default.
    paper  TN(-t, t)        the paper, Section 3.1: values beyond the threshold are drawn again.
    scale  N(0, t^2)        plain scaling, nothing cut.

They give different pictures and different figures for the same t. All three map the same stream of
uniform numbers through an inverse distribution function, so a seed names related pictures in each;
and for `hub` that stream is the one of
`scipy.stats.truncnorm.rvs(-2, 2, size=(num, dim), random_state=numpy.random.RandomState(seed))`,
so that published seeds give the published pictures.
"""

from __future__ import annotations

import math
from typing import Literal, assert_never, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from biggan.errors import InputError, quoted, real_number, whole_number

NoiseKind = Literal["hub", "paper", "scale"]
NOISE_KINDS: tuple[NoiseKind, ...] = get_args(NoiseKind)

_HUB_CUT = 2.0


def truncated_noise(num: int, dim: int, truncation: float | None, seed: int) -> NDArray[np.float64]:
    """The notebook's noise: `truncation` times a normal cut at plus and minus 2.

    Args:
        num: Number of rows; row k does not depend on it.
        dim: Width of the noise, a model's `z_dim`.
        truncation: In (0, 1]; None for untruncated noise, N(0, 1).
        seed: 0 to 2**32 - 1.

    Returns:
        float64 (num, dim).

    Raises:
        InputError: A truncation outside (0, 1], or a seed outside its range.
    """
    return make_noise(num, dim, truncation, seed, kind="hub")


def make_noise(
    num: int, dim: int, truncation: float | None, seed: int, *, kind: NoiseKind = "hub"
) -> NDArray[np.float64]:
    """Noise (num, dim) in any of the three meanings of truncation; see `truncated_noise`.

    A truncation is in (0, 1] for `hub`, above 0 for the others, and None for N(0, 1) in all three.
    """
    check_truncation(truncation, kind)
    check_seed(seed)
    shape = whole_number(num, "the number of rows"), whole_number(dim, "the width of the noise")
    if min(shape) < 0:
        raise InputError(f"noise cannot have {num} rows and {dim} columns")
    # RandomState's stream is frozen by numpy's compatibility policy; Generator's is not.
    uniform = np.random.RandomState(seed).uniform(size=shape)
    if truncation is None:
        return _inverse_normal_cdf(uniform)
    match kind:
        case "hub":
            return truncation * truncated_normal(uniform, _HUB_CUT)
        case "paper":
            return truncated_normal(uniform, truncation)
        case "scale":
            return truncation * _inverse_normal_cdf(uniform)


def truncated_normal(uniform: NDArray[np.float64], cut: float) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1) as values of a normal cut at plus and minus `cut`."""
    tail = math.erfc(cut / math.sqrt(2)) / 2
    return _inverse_normal_cdf(tail + uniform * (1 - 2 * tail))


def check_truncation(truncation: float | None, kind: NoiseKind = "hub") -> float | None:
    """The same as Python's float: in (0, 1] for `hub`, above 0 for the others, None for all.

    Raises:
        InputError: It is not, or there is no such kind.
    """
    if kind not in NOISE_KINDS:
        raise InputError(f"noise must be one of {', '.join(NOISE_KINDS)}, not {quoted(kind)}")
    if truncation is None:
        return None
    number = real_number(truncation, "truncation")
    if kind == "hub" and not 0 < number <= 1:
        raise InputError(f"truncation must be above 0 and at most 1, not {number:g}")
    if not 0 < number < math.inf:
        raise InputError(f"a {kind} threshold must be a number above 0, not {number:g}")
    return number


def check_seed(seed: int) -> None:
    """Refuse a seed that numpy's RandomState does not take: not in 0 to 2**32 - 1."""
    if not 0 <= whole_number(seed, "the seed") < 2**32:
        raise InputError(f"the seed must be between 0 and {2**32 - 1}, not {quoted(seed)}")


def statistics_truncation(truncation: float | None, kind: NoiseKind = "hub") -> float | None:
    """The hub truncation, None for untruncated noise, whose BatchNorm statistics suit some noise.

    Statistics are recorded for `hub` noise and for N(0, 1). For the other meanings those of the
    hub truncation with the same standard deviation are taken, at most those of 1: `paper` with a
    threshold of 2 is `hub` with truncation 1 exactly. Noise wider than that is close to N(0, 1) and
    takes the untruncated statistics.
    """
    if truncation is None:
        return None
    match kind:
        case "hub":
            return truncation
        case "paper":
            std = _truncated_std(truncation)
        case "scale":
            std = truncation
        case _:
            assert_never(kind)
    equivalent = std / _truncated_std(_HUB_CUT)
    return equivalent if equivalent <= 1 + 1e-9 else None


def _truncated_std(cut: float) -> float:
    """Standard deviation of a normal cut at plus and minus `cut`."""
    density = math.exp(-cut * cut / 2) / math.sqrt(2 * math.pi)
    mass = math.erf(cut / math.sqrt(2))
    if cut < 1e-3:  # the formula below cancels; the distribution is uniform to this precision
        return cut / math.sqrt(3)
    return math.sqrt(1 - 2 * cut * density / mass)


def _inverse_normal_cdf(p: NDArray[np.float64]) -> NDArray[np.float64]:
    # torch's, not scipy's: importing scipy.stats takes longer than making ten pictures.
    return torch.special.ndtri(torch.from_numpy(p)).numpy()

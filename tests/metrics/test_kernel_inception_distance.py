"""The kernel distance against loops over all pairs, its bias."""

import itertools

import pytest
import torch

import biggan.metrics.feature_sets as feature_sets
from biggan.errors import InputError
from biggan.metrics.kernel_inception_distance import kernel_inception_distance


def kernel(x, y):
    return (float(x @ y) / len(x) + 1) ** 3


def by_hand(a, b):
    """The unbiased estimate, pair by pair."""
    a, b = a.double(), b.double()
    pairs = [kernel(x, y) for x, y in itertools.permutations(a, 2)]
    others = [kernel(x, y) for x, y in itertools.permutations(b, 2)]
    between = [kernel(x, y) for x, y in itertools.product(a, b)]
    within = sum(pairs) / len(pairs) + sum(others) / len(others)
    return within - 2 * sum(between) / len(between)


def features(num=300, dim=8, shift=0.0):
    return torch.randn(num, dim) + shift


def exact(a, b):
    return kernel_inception_distance(a, b, subset_size=None).mean


@pytest.mark.parametrize(("num_a", "num_b"), [(12, 12), (5, 9), (2, 2)])
def test_all_pairs_by_hand(num_a, num_b):
    a, b = features(num_a), features(num_b, shift=0.5)
    score = kernel_inception_distance(a, b, subset_size=None)
    assert score == pytest.approx((by_hand(a, b), 0), rel=1e-10)


def test_blocks_add_up(monkeypatch):
    a, b = features(50), features(37, shift=0.5)
    expected = exact(a, b)
    monkeypatch.setattr(feature_sets, "_BLOCK_BYTES", 7 * 8 * 8)
    assert exact(a, b) == pytest.approx(expected, rel=1e-12)


def test_one_subset_of_everything_is_the_exact_estimate():
    a, b = features(30), features(30, shift=0.5)
    score = kernel_inception_distance(a, b, subset_size=30, subsets=3)
    assert score == pytest.approx((exact(a, b), 0), rel=1e-10, abs=1e-12)


def test_subsets_scatter_about_the_exact_estimate():
    a, b = features(400), features(400, shift=0.5)
    score = kernel_inception_distance(a, b, subset_size=50, subsets=200)
    assert score.std > 0
    assert abs(score.mean - exact(a, b)) < 4 * score.std / 200**0.5


def test_the_estimate_is_unbiased():
    # Of equal distributions, at a size where a biased estimate would be far off.
    estimates = torch.tensor([exact(features(10), features(10)) for _ in range(400)])
    error = (estimates.std() / 20).item()
    assert abs(estimates.mean()) < 4 * error
    same = [kernel(x, x) for x in features(400)]
    bias = 2 / 10 * (sum(same) / 400 - 1)  # of the estimate that compares images with themselves
    assert bias > 10 * error
    assert (estimates < 0).any()


def test_a_shift_is_found_at_its_expected_size():
    # E (x.y/d + 1)^3 of independent Gaussians, by their moments: with x.y/d of mean m and variance
    # v, (1 + m)^3 + 3 (1 + m) v + the third central moment, which is 6 |mean parts|^2 / d^3 here.
    dim, shift = 32, 0.5
    a, b = features(4000, dim), features(4000, dim, shift)
    within_a = 1 + 3 / dim
    m, v = shift**2, (1 + 2 * shift**2) / dim
    within_b = (1 + m) ** 3 + 3 * (1 + m) * v + 6 * shift**2 / dim**2
    between = 1 + 3 * (1 + shift**2) / dim
    assert exact(a, b) == pytest.approx(within_a + within_b - 2 * between, rel=0.05)


def test_neither_the_order_of_the_images_nor_of_the_sets_matters():
    a, b = features(60), features(60, shift=0.5)
    expected = kernel_inception_distance(a, b, subset_size=20, subsets=5)
    shuffled = a[torch.randperm(60)], b.flip(0)
    assert kernel_inception_distance(*shuffled, subset_size=20, subsets=5) == expected
    assert exact(a, b) == pytest.approx(exact(b, a), rel=1e-12)


def test_the_seed_decides_the_subsets():
    a, b = features(60), features(60, shift=0.5)
    scores = [kernel_inception_distance(a, b, 20, 5, seed) for seed in (0, 0, 1)]
    assert scores[0] == scores[1] != scores[2]


def test_mistakes():
    a, b = features(20), features(30)
    with pytest.raises(InputError, match="first features are of 20 images, but .* needs .* 25"):
        kernel_inception_distance(a, b, subset_size=25)
    with pytest.raises(InputError, match="second features are of 20 images"):
        kernel_inception_distance(b, a, subset_size=25)
    with pytest.raises(InputError, match="of 1 images, but a kernel distance needs at least 2"):
        kernel_inception_distance(a[:1], b, subset_size=None)
    with pytest.raises(InputError, match="8 and 9 wide"):
        kernel_inception_distance(a, features(30, 9), subset_size=None)
    with pytest.raises(InputError, match="subset_size must be at least 2, not 1"):
        kernel_inception_distance(a, b, subset_size=1)
    with pytest.raises(InputError, match="subsets must be at least 1, not 0"):
        kernel_inception_distance(a, b, subset_size=10, subsets=0)
    b[7, 3] = torch.nan
    with pytest.raises(InputError, match="second features hold NaN .* row 7"):
        kernel_inception_distance(a, b, subset_size=None)

"""The Inception Score in closed cases, in any order."""

import numpy as np
import pytest
import torch

from biggan.errors import InputError
from biggan.metrics.inception_score import inception_score

SURE = 60.0  # a logit that leaves the others 1e-26


def one_hot(labels, num_classes=10):
    return SURE * torch.nn.functional.one_hot(torch.as_tensor(labels), num_classes).double()


def by_hand(logits):
    """exp of the mean divergence, as the paper writes it, without splits."""
    logits = logits.double().numpy()
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    return np.exp(np.mean(np.sum(p * (np.log(p) - np.log(p.mean(0))), 1)))


def some_logits(num=400, num_classes=10):
    """Images of classes in order, of which the network is fairly sure."""
    labels = torch.arange(num) * num_classes // num
    return 4 * torch.nn.functional.one_hot(labels, num_classes) + torch.randn(num, num_classes)


def test_sure_and_even_scores_the_number_of_classes():
    assert inception_score(one_hot(list(range(10)) * 5), splits=1).mean == pytest.approx(10)
    assert inception_score(one_hot([0, 1, 2, 3] * 5), splits=1).mean == pytest.approx(4)


def test_all_of_one_class_or_none_scores_1():
    assert inception_score(one_hot([3] * 50)) == pytest.approx((1, 0))
    assert inception_score(torch.zeros(50, 10)) == pytest.approx((1, 0))
    same = torch.randn(1, 10).expand(50, 10)
    assert inception_score(same) == pytest.approx((1, 0), abs=1e-12)


def test_an_uneven_distribution():
    # exp of the entropy of (3/4, 1/4)
    expected = 4 / 3**0.75
    assert inception_score(one_hot([0, 0, 0, 1] * 4), splits=1).mean == pytest.approx(expected)


def test_the_papers_formula():
    logits = some_logits()
    assert inception_score(logits, splits=1) == pytest.approx((by_hand(logits), 0), rel=1e-12)


def test_splits_are_averaged():
    logits = some_logits(403)
    score = inception_score(logits, splits=4)
    whole = by_hand(logits)
    assert 0.85 * whole < score.mean < whole
    assert 0 < score.std < 0.1 * score.mean


@pytest.mark.parametrize("splits", [1, 7, 10])
def test_a_permutation_changes_not_a_digit(splits):
    logits = some_logits()
    logits[20:40] = logits[:20]  # equal rows as well
    expected = inception_score(logits, splits)
    for seed in range(5):
        order = torch.randperm(400, generator=torch.Generator().manual_seed(seed))
        assert inception_score(logits[order], splits) == expected
    assert inception_score(logits.flip(0), splits) == expected


def test_classes_in_order_are_no_trap():
    logits = some_logits()
    trapped = np.mean([by_hand(part) for part in logits.chunk(10)])
    assert trapped < 1.6  # each split of one class, as a naive division has it
    score = inception_score(logits)
    assert score.mean == pytest.approx(by_hand(logits), rel=0.2)
    assert score.mean > 3 * trapped


def test_logits_that_sort_by_class_are_no_trap():
    # Sorted by the first column, class 0 comes last: the shuffle must follow the sort.
    score = inception_score(one_hot([0] * 200 + [1] * 200, 2))
    assert score.mean == pytest.approx(2, rel=0.02)


def test_the_seed_decides_the_splits():
    logits = some_logits()
    assert inception_score(logits, seed=0) == inception_score(logits, seed=0)
    other = inception_score(logits, seed=1)
    assert other != inception_score(logits, seed=0)
    assert other.mean == pytest.approx(inception_score(logits, seed=0).mean, rel=0.05)


def test_rounding_of_the_logits_hardly_matters():
    logits = some_logits(2000).float()
    nearly = logits + 1e-6 * torch.randn(2000, 10)
    assert inception_score(nearly).mean == pytest.approx(inception_score(logits).mean, rel=1e-3)


def test_large_logits_neither_overflow_nor_lose_the_small_ones():
    logits = some_logits()
    expected = inception_score(logits)
    assert inception_score(logits.double() + 1e4) == pytest.approx(expected, rel=1e-9)
    assert inception_score(1e30 * one_hot(range(10)), splits=1).mean == pytest.approx(10)


def test_more_splits_than_images_and_other_mistakes():
    with pytest.raises(InputError, match="of 9 images, but .* over 10 splits needs at least 10"):
        inception_score(torch.randn(9, 5))
    with pytest.raises(InputError, match="splits must be at least 1, not 0"):
        inception_score(torch.randn(9, 5), splits=0)
    logits = torch.randn(20, 5)
    logits[4, 0] = torch.inf
    with pytest.raises(InputError, match="logits hold NaN or infinite values, first in row 4"):
        inception_score(logits)
    assert inception_score(torch.randn(10, 5)).mean == pytest.approx(1)

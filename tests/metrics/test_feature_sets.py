"""Orders and parts that do not depend on where a row stood."""

import numpy as np
import pytest
import torch

from biggan.metrics.feature_sets import Score, content_order


def random(seed=0):
    return torch.Generator().manual_seed(seed)


def test_sorting_agrees_with_numpy():
    rows = torch.randint(-1, 2, (200, 6), generator=random()).float()  # with many ties
    expected = rows[torch.from_numpy(np.lexsort(rows.numpy().T[::-1]))]
    assert torch.equal(rows[content_order(rows)], expected)


def test_rounding_moves_a_row_among_its_neighbours_only():
    rows = torch.randn(1000, 4, generator=random())
    nearly = rows + 1e-7 * torch.randn(1000, 4, generator=random(1))
    same = content_order(rows) == content_order(nearly)
    assert same.float().mean() > 0.99


def test_mean_and_deviation_are_numpys():
    values = [1.0, 4.0, 2.5]
    assert Score.of_subsets(values) == pytest.approx((np.mean(values), np.std(values)))
    assert Score.of_subsets([3.0]) == (3.0, 0.0)

"""Exact neighbours, against distances from differences."""

import pytest
import torch

import biggan.metrics.feature_sets as feature_sets
from biggan.errors import InputError
from biggan.metrics.nearest_neighbors import nearest_neighbors


def by_hand(query, reference, k):
    differences = query.double()[:, None] - reference.double()[None]
    distances = differences.square().sum(-1).sqrt()
    order = distances.argsort(dim=1, stable=True)[:, :k]
    return distances.gather(1, order), order


@pytest.mark.parametrize("k", [1, 3, 90])
@pytest.mark.parametrize("offset", [0.0, 1e9])
def test_distances_and_indices(k, offset):
    query, reference = torch.randn(17, 5).double() + offset, torch.randn(90, 5).double() + offset
    expected, order = by_hand(query, reference, k)
    found = nearest_neighbors(query, reference, k)
    assert torch.equal(found.indices, order)
    torch.testing.assert_close(found.distances, expected, rtol=1e-12, atol=0)


def test_blocks_change_nothing(monkeypatch):
    query, reference = torch.randn(17, 5), torch.randn(90, 5)
    expected = nearest_neighbors(query, reference, 4)
    monkeypatch.setattr(feature_sets, "_BLOCK_BYTES", 4 * 5 * 8)
    found = nearest_neighbors(query, reference, 4)
    assert torch.equal(found.indices, expected.indices)
    assert torch.equal(found.distances, expected.distances)


def test_pixels():
    random = torch.Generator().manual_seed(0)
    reference = torch.randint(256, (40, 48), generator=random).to(torch.uint8)
    query = reference[[7, 3]].clone()
    query[1, :2] = 255 - query[1, :2]
    expected, order = by_hand(query, reference, 5)
    found = nearest_neighbors(query, reference, 5)
    assert torch.equal(found.indices, order)
    assert torch.equal(found.distances, expected)
    assert found.distances[0, 0] == 0
    assert found.indices[:, 0].tolist() == [7, 3]


def test_copies_are_at_0_and_in_order():
    reference = torch.randn(60, 8) + 1e3
    reference[[50, 20]] = reference[5].clone()
    found = nearest_neighbors(reference[5:6], reference, 3)
    assert found.indices.tolist() == [[5, 20, 50]]
    assert found.distances.tolist() == [[0, 0, 0]]


def test_near_copies_keep_their_digits():
    # Squared distances of 1e-18 beside squared norms of 10: products alone would not order them.
    query = torch.randn(5, 10).double()
    steps = torch.tensor([3.0, 1.0, 4.0, 2.0]).double()
    near = query[2] + 1e-9 * steps[:, None] * torch.eye(10)[:1]
    reference = torch.cat([torch.randn(50, 10).double(), near])
    for k in (1, 2, 3):
        found = nearest_neighbors(query, reference, k)
        assert found.indices[2].tolist() == [51, 53, 50][:k]
        expected = [1e-9, 2e-9, 3e-9][:k]
        assert found.distances[2].tolist() == pytest.approx(expected, rel=1e-5)


def test_mistakes():
    query, reference = torch.randn(4, 5), torch.randn(6, 5)
    with pytest.raises(InputError, match="reference are of 6 images.* 7 neighbours .* at least 7"):
        nearest_neighbors(query, reference, 7)
    with pytest.raises(InputError, match="k must be at least 1, not 0"):
        nearest_neighbors(query, reference, 0)
    with pytest.raises(InputError, match="5 and 6 wide"):
        nearest_neighbors(query, torch.randn(6, 6), 1)
    with pytest.raises(InputError, match="queries are of 0 images"):
        nearest_neighbors(query[:0], reference, 1)
    query[1, 1] = torch.nan
    with pytest.raises(InputError, match="queries hold NaN .* row 1"):
        nearest_neighbors(query, reference, 1)

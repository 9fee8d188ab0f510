"""Precision, recall, density and coverage against loops over points, and on constructed sets."""

import pytest
import torch

import biggan.metrics.feature_sets as feature_sets
import biggan.metrics.precision_recall as module
from biggan.errors import InputError
from biggan.metrics.precision_recall import precision_recall


def by_hand(real, fake, k):
    """The definitions, point by point, from differences in float64."""
    real, fake = real.double(), fake.double()

    def radius(points, i):
        others = [(points[i] - p).norm() for j, p in enumerate(points) if j != i]
        return sorted(others)[k - 1]

    real_radii = [radius(real, i) for i in range(len(real))]
    fake_radii = [radius(fake, i) for i in range(len(fake))]
    inside = [
        [bool((r - f).norm() <= radius) for f in fake]
        for r, radius in zip(real, real_radii, strict=True)
    ]
    recalled = [
        any(bool((r - f).norm() <= radius) for f, radius in zip(fake, fake_radii, strict=True))
        for r in real
    ]
    return (
        sum(any(column) for column in zip(*inside, strict=True)) / len(fake),
        sum(recalled) / len(real),
        sum(map(sum, inside)) / (k * len(fake)),
        sum(map(any, inside)) / len(real),
    )


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_the_definitions_point_by_point(k, offset):
    real, fake = torch.randn(60, 4), torch.randn(50, 4) + 1
    expected = by_hand(real, fake, k)
    assert all(0.1 < value < 0.95 for value in expected)
    assert precision_recall(real + offset, fake + offset, k) == pytest.approx(expected)


def test_blocks_change_nothing(monkeypatch):
    real, fake = torch.randn(60, 4), torch.randn(50, 4) + 1
    expected = precision_recall(real, fake)
    monkeypatch.setattr(feature_sets, "_BLOCK_BYTES", 7 * 60 * 4)
    assert precision_recall(real, fake) == expected


def test_a_line_by_hand():
    real = torch.tensor([[0.0], [1.0], [2.0], [10.0]])
    fake = torch.tensor([[0.5], [3.0], [30.0], [31.0]])
    # Radii with k = 1: real 1, 1, 1, 8, so balls [-1, 1], [0, 2], [1, 3], [2, 18]; generated 2.5,
    # 2.5, 1, 1, so balls [-2, 3], [0.5, 5.5], [29, 31], [30, 32]. 3.0 lies on two surfaces.
    result = precision_recall(real, fake, k=1)
    assert result.precision == 2 / 4
    assert result.recall == 3 / 4
    assert result.density == (2 + 2) / 4
    assert result.coverage == 4 / 4


def test_equal_sets():
    points = torch.randn(300, 16)
    result = precision_recall(points, points.clone(), k=3)
    assert (result.precision, result.recall, result.coverage) == (1, 1, 1)
    # Each ball holds its own point and k neighbours.
    assert result.density == pytest.approx(4 / 3)


def test_constant_sets():
    constant = torch.full((10, 3), 0.1)
    assert precision_recall(constant, constant, k=2) == (1, 1, 5, 1)
    assert precision_recall(constant, constant + 1e-6, k=2) == (0, 0, 0, 0)


def test_equal_distributions_have_density_1():
    result = precision_recall(torch.randn(1500, 8), torch.randn(1500, 8), k=5)
    assert result.density == pytest.approx(1, abs=0.08)
    assert result.coverage == pytest.approx(1 - 0.5**5, abs=0.02)  # Naeem et al., equation 11


def test_points_on_a_grid_lie_on_surfaces():
    # Real (i, 0), generated (i, 1): at k = 1 every radius is 1, and so is each distance.
    steps = torch.arange(20.0)
    for scale, offset in ((1.0, 0.0), (0.3, 7.7), (1e-3, 1.0)):
        real = torch.stack([steps, torch.zeros(20)], 1).double() * scale + offset
        fake = torch.stack([steps, torch.ones(20)], 1).double() * scale + offset
        assert precision_recall(real, fake, k=1) == (1, 1, 1, 1)


def test_one_outlier_among_the_real_images():
    # Its huge ball makes anything precise, but dense by 1/k of one image's worth only.
    real = torch.cat([torch.randn(200, 4), torch.full((1, 4), 100.0)])
    fake = torch.randn(100, 4) * 0.1 + 50
    result = precision_recall(real, fake, k=3)
    assert result.precision == 1
    assert result.density == pytest.approx(1 / 3)
    assert result.coverage == 1 / 201


@pytest.mark.parametrize("copies", [2, 50])
def test_copies_have_no_radius_but_hold_each_other(copies):
    some = torch.randn(10, 32) + 5
    real, fake = some.repeat(copies, 1), some[:5].repeat(copies, 1)
    result = precision_recall(real, fake, k=1)
    assert result.precision == 1
    assert result.recall == 0.5
    assert result.coverage == 0.5
    assert result.density == copies
    assert precision_recall(real, fake + 1e-3, k=1) == (0, 0, 0, 0)


def test_clusters_too_small_for_float32():
    # Two clusters, 200 apart and 1e-2 wide: float32 products cannot tell their points apart.
    centres = torch.zeros(120, 6).double()
    centres[::2, 0] = 200
    real, fake = (1e-2 * torch.randn(120, 6).double() * s + centres for s in (1.0, 2.0))
    expected = by_hand(real, fake, 3)
    assert 0.1 < expected[0] < 0.95
    assert precision_recall(real, fake, 3) == pytest.approx(expected)


def spoilt_products(points, norms, others, other_norms):
    exact = ORIGINAL(points, norms, others, other_norms)
    if points.dtype == torch.float32:  # as with TF32: 10 bits
        exact += 1e-3 * norms.max() * torch.randn(exact.shape)
    return exact


ORIGINAL = module._squared_distances


def test_products_that_are_set_to_round_more_are_not_trusted(monkeypatch):
    real, fake = torch.randn(60, 4), torch.randn(50, 4) + 1
    expected = by_hand(real, fake, 3)
    monkeypatch.setattr(module, "_squared_distances", spoilt_products)
    assert precision_recall(real, fake, 3) == pytest.approx(expected)


def test_float32_is_enough_for_ordinary_features(monkeypatch):
    real, fake = torch.randn(400, 2048), torch.randn(400, 2048).relu()
    monkeypatch.setattr(module, "_squared_distances", no_double)
    precision_recall(real + 300, fake + 300)


def no_double(points, *rest):
    assert points.dtype == torch.float32
    return ORIGINAL(points, *rest)


def test_mistakes():
    a, b = torch.randn(10, 4), torch.randn(3, 4)
    with pytest.raises(InputError, match="generated features are of 3 images.* at least 4"):
        precision_recall(a, b, k=3)
    with pytest.raises(InputError, match="real features are of 3 images.* at least 4"):
        precision_recall(b, a, k=3)
    with pytest.raises(InputError, match="4 and 5 wide"):
        precision_recall(a, torch.randn(10, 5))
    with pytest.raises(InputError, match="k must be at least 1, not 0"):
        precision_recall(a, a, k=0)
    a[2, 2] = torch.nan
    with pytest.raises(InputError, match="real features hold NaN .* row 2"):
        precision_recall(a, b, k=2)

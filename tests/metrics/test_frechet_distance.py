"""The Frechet distance against closed forms, scipy's square root."""

import dataclasses
import warnings

import numpy as np
import pytest
import scipy.linalg
import torch

import biggan.metrics.frechet_distance as module
from biggan.errors import InputError
from biggan.metrics.frechet_distance import frechet_distance, intra_class_frechet_distance
from biggan.metrics.statistics import FeatureSource, FeatureStatistics, load_statistics


def statistics_of(features, source=None):
    statistics = FeatureStatistics(features.shape[1], source)
    statistics.update(features)
    return statistics


def reference(a, b):
    """The formula of pytorch-fid, with scipy's general square root."""
    first, second = a.covariance().numpy(), b.covariance().numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the product is singular
        root = scipy.linalg.sqrtm(first @ second)
    if not np.isfinite(root).all():
        ridge = 1e-6 * np.eye(len(first))
        root = scipy.linalg.sqrtm((first + ridge) @ (second + ridge))
    shift = (a.mean - b.mean).numpy()
    return shift @ shift + np.trace(first) + np.trace(second) - 2 * np.trace(root.real)


def correlated(num, dim, decay=1.0, seed=0):
    """Features whose variances fall as those of a network do, along random directions."""
    random = torch.Generator().manual_seed(seed)
    spread = torch.arange(1, dim + 1, dtype=torch.float64) ** (-decay / 2)
    turn = torch.linalg.qr(torch.randn(dim, dim, dtype=torch.float64, generator=random)).Q
    return (torch.randn(num, dim, dtype=torch.float64, generator=random) * spread) @ turn


@pytest.mark.parametrize("num", [500, 20, 2])
@pytest.mark.parametrize("decay", [0.0, 1.0, 4.0])
def test_identical_sets_are_at_0(num, decay):
    for seed in range(10):
        statistics = statistics_of(correlated(num, 48, decay, seed))
        trace = statistics.covariance().trace().item()
        assert 0 <= frechet_distance(statistics, statistics) < 1e-8 * trace


@pytest.mark.parametrize("num", [500, 20])
def test_shifted_sets_are_at_the_squared_shift(num):
    features = correlated(num, 48)
    shift = torch.randn(48, dtype=torch.float64)
    distance = frechet_distance(statistics_of(features), statistics_of(features + shift))
    assert distance == pytest.approx(shift.square().sum().item(), rel=1e-7)


def test_scaled_sets():
    features = correlated(500, 48)
    features = features - features.mean(0)
    trace = statistics_of(features).covariance().trace().item()
    distance = frechet_distance(statistics_of(features), statistics_of(3 * features))
    assert distance == pytest.approx((3 - 1) ** 2 * trace, rel=1e-9)


@pytest.mark.parametrize("decay", [0.0, 1.0, 2.0])
def test_scipys_square_root_of_full_rank(decay):
    a = statistics_of(correlated(400, 64, decay, seed=1))
    b = statistics_of(1.2 * correlated(300, 64, decay, seed=2) + 0.1)
    assert frechet_distance(a, b) == pytest.approx(reference(a, b), rel=1e-9)


@pytest.mark.parametrize(("num_a", "num_b"), [(20, 20), (20, 300), (64, 33), (2, 300), (2, 2)])
def test_scipys_square_root_of_fewer_images_than_dimensions(num_a, num_b):
    a = statistics_of(correlated(num_a, 64, seed=1))
    b = statistics_of(correlated(num_b, 64, seed=2) + 0.1)
    assert frechet_distance(a, b) == pytest.approx(reference(a, b), rel=1e-5)


def exact(features_a, features_b):
    """From the features themselves: the singular values of the product of the centred sets."""
    a, b = ((f - f.mean(0)) / (len(f) - 1) ** 0.5 for f in (features_a, features_b))
    root = torch.linalg.svdvals(a @ b.T).sum()
    shift = features_a.mean(0) - features_b.mean(0)
    return (shift.square().sum() + a.square().sum() + b.square().sum() - 2 * root).item()


@pytest.mark.parametrize("decay", [0.0, 1.0, 4.0])
@pytest.mark.parametrize(("num_a", "num_b"), [(20, 20), (20, 300), (64, 33), (2, 300), (300, 400)])
def test_singular_values_of_the_features_of_any_rank(num_a, num_b, decay):
    features = correlated(num_a, 64, decay, seed=1), correlated(num_b, 64, decay, seed=2)
    distance = frechet_distance(*map(statistics_of, features))
    # Roots of zeros that rounding moved would make this 1e-8.
    assert distance == pytest.approx(exact(*features), rel=1e-11 if decay < 4 else 1e-8)


def test_a_feature_that_is_the_sum_of_two_others():
    features, other = 0.5 * correlated(300, 64), correlated(300, 64, seed=3)
    features[:, 0] = features[:, 1] + features[:, 2]
    distance = frechet_distance(statistics_of(features), statistics_of(other))
    assert distance == pytest.approx(exact(features, other), rel=1e-11)


def test_lacking_directions_that_the_count_does_not_tell(tmp_path):
    deficient = correlated(300, 20) @ torch.randn(20, 64, dtype=torch.float64)
    full = correlated(300, 64, seed=3)
    expected = exact(deficient, full)
    mu, sigma = deficient.mean(0).numpy(), np.cov(deficient.numpy(), rowvar=False)
    np.savez(tmp_path / "mu_sigma.npz", mu=mu, sigma=sigma)
    unknown = load_statistics(tmp_path / "mu_sigma.npz")
    for deficient_first in (True, False):
        pair = (unknown, statistics_of(full))
        distance = frechet_distance(*(pair if deficient_first else reversed(pair)))
        assert distance == pytest.approx(expected, rel=1e-11)
    assert frechet_distance(statistics_of(deficient), pair[1]) == pytest.approx(expected, rel=1e-6)


def test_the_largest_features_say_the_same():
    # 15 images, so a rank of 14, but the 20 features of the largest variance are nearly one.
    features, other = correlated(15, 64), correlated(300, 64, seed=3)
    features[:, :20] = 10 * features[:, :1] + 1e-5 * features[:, :20]
    distance = frechet_distance(statistics_of(features), statistics_of(other))
    assert distance == pytest.approx(exact(features, other), rel=1e-11)


def test_fewer_images_than_dimensions_need_no_eigenvectors(monkeypatch):
    features, other = correlated(15, 64), correlated(300, 64, seed=3)
    features[:, :20] = 0  # as some features of a network always are
    monkeypatch.setattr(module, "_eigen_factor", None)
    distance = frechet_distance(statistics_of(features), statistics_of(other))
    assert distance == pytest.approx(exact(features, other), rel=1e-11)


def test_constant_features():
    constant = statistics_of(torch.full((10, 5), 2.0))
    assert frechet_distance(constant, constant) == 0
    other = statistics_of(torch.full((10, 5), 3.0))
    assert frechet_distance(constant, other) == pytest.approx(5)
    spread = statistics_of(correlated(50, 5))
    expected = spread.covariance().trace() + (spread.mean - 2).square().sum()
    assert frechet_distance(constant, spread) == pytest.approx(expected.item())


@pytest.mark.parametrize("num", [300, 20])
def test_the_order_of_the_two_makes_no_difference(num):
    a, b = statistics_of(correlated(num, 64, seed=1)), statistics_of(correlated(200, 64, seed=2))
    assert frechet_distance(a, b) == frechet_distance(b, a)


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_the_unit_of_the_features_makes_no_difference(scale):
    a, b = correlated(100, 16, seed=1), correlated(12, 16, seed=2)
    expected = frechet_distance(statistics_of(a), statistics_of(b))
    scaled = frechet_distance(statistics_of(scale * a), statistics_of(scale * b))
    assert scaled == pytest.approx(scale**2 * expected, rel=1e-7)


def test_statistics_that_cannot_be_compared():
    features = correlated(50, 5)
    source = FeatureSource("TF-Inception 2015-12-05", "ab" * 32, "tf-bilinear")
    ours = statistics_of(features, source)
    for change in ({"extractor": "digits"}, {"sha256": "cd" * 32}, {"resize": "none"}):
        other = statistics_of(features, dataclasses.replace(source, **change))
        with pytest.raises(InputError, match="different sources"):
            frechet_distance(ours, other)
    with pytest.raises(InputError, match="5 and 6 wide"):
        frechet_distance(ours, statistics_of(correlated(50, 6)))
    for num in (0, 1):
        with pytest.raises(InputError, match=f"at least 2 images, not {num}"):
            frechet_distance(ours, statistics_of(features[:num]))
    assert frechet_distance(ours, statistics_of(features)) < 1e-8


@pytest.mark.parametrize("scale", [1e160, 1e153])
def test_features_beyond_float64_are_no_perfect_zero(scale):
    sets = [FeatureStatistics(4), FeatureStatistics(4)]
    for statistics in sets:
        statistics.update(torch.randn(50, 4, dtype=torch.float64) * scale)
    with pytest.raises(InputError, match="is not finite"):
        frechet_distance(*sets)


# --- of each class by itself ---


def classes(shift=0.0, num_classes=4, num=300):
    """Features of classes that lie apart."""
    return {
        label: torch.randn(num, 5, dtype=torch.float64) + 10 * label + shift
        for label in range(num_classes)
    }


def by_class(features):
    return {label: statistics_of(some) for label, some in features.items()}


def test_each_class():
    real, shifts = classes(), [0.0, 1.0, 2.0, 3.0]
    fake = {label: some + shifts[label] for label, some in real.items()}
    distances = intra_class_frechet_distance(by_class(real), by_class(fake))
    expected = [5 * shift**2 for shift in shifts]
    assert list(distances) == [0, 1, 2, 3]
    assert list(distances.values()) == pytest.approx(expected, abs=1e-9)


def test_it_sees_classes_that_changed_places():
    real = classes()
    fake = {0: real[1], 1: real[0], 2: real[2], 3: real[3]}
    everything = [statistics_of(torch.cat([f[i] for i in range(4)])) for f in (real, fake)]
    assert frechet_distance(*everything) < 1e-6  # the whole is the same
    distances = intra_class_frechet_distance(by_class(real), by_class(fake))
    assert distances[0] > 400
    assert distances[2] < 1e-6


def test_classes_that_are_missing_on_one_side():
    real, fake = by_class(classes()), by_class(classes(num_classes=2))
    for pair in ((real, fake), (fake, real), ({}, {})):
        with pytest.raises(InputError, match="images of every class on both sides"):
            intra_class_frechet_distance(*pair)


def test_the_class_at_fault_is_named():
    real, fake = by_class(classes()), by_class(classes())
    with pytest.raises(InputError, match="class 2: a covariance needs at least 2 images"):
        intra_class_frechet_distance(real, {**fake, 2: statistics_of(torch.zeros(1, 5))})
    sources = [FeatureSource(name, "ab" * 32, "none") for name in ("one", "two")]
    ours, theirs = ({0: statistics_of(torch.randn(9, 5), source)} for source in sources)
    with pytest.raises(InputError, match="class 0: the features are of different sources, one"):
        intra_class_frechet_distance(ours, theirs)

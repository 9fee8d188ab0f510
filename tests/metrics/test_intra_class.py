"""The Frechet distance of each class by itself."""

import pytest
import torch

from biggan.errors import InputError
from biggan.metrics.frechet_distance import frechet_distance, intra_class_frechet_distance
from biggan.metrics.statistics import FeatureSource, FeatureStatistics


def statistics_of(features, source=None):
    statistics = FeatureStatistics(features.shape[1], source)
    statistics.update(features)
    return statistics


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


def test_it_sees_classes_that_collapsed():
    real, fake = classes(), classes()
    good = intra_class_frechet_distance(by_class(real), by_class(fake))
    fake = {label: some[:2].repeat(150, 1) for label, some in fake.items()}
    collapsed = intra_class_frechet_distance(by_class(real), by_class(fake))
    assert sum(collapsed.values()) > 20 * sum(good.values())


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

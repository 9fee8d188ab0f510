"""Noise against scipy, in float64."""

import numpy as np
import pytest
import scipy.stats

import biggan
from biggan.latents import make_noise, statistics_truncation


@pytest.mark.parametrize("dim", [120, 128, 140])  # of the published models
def test_truncated_noise_is_the_notebooks_to_the_bit_of_float32(dim):
    for seed in (*range(101), 2**32 - 1):
        for truncation in np.round(np.arange(1, 51) * 0.02, 2)[seed % 10 :: 10]:
            state = np.random.RandomState(seed)
            expected = truncation * scipy.stats.truncnorm.rvs(
                -2, 2, size=(20, dim), random_state=state
            )
            found = biggan.truncated_noise(20, dim, float(truncation), seed)
            assert found.dtype == np.float64
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
            np.testing.assert_array_equal(found.astype(np.float32), expected.astype(np.float32))


@pytest.mark.parametrize("kind", ["hub", "paper", "scale"])
def test_row_k_does_not_depend_on_num(kind):
    many, few = (make_noise(num, 12, 0.5, seed=3, kind=kind) for num in (9, 4))
    np.testing.assert_array_equal(many[:4], few)


@pytest.mark.parametrize(
    ("kind", "t", "law"),
    [
        ("hub", 0.5, scipy.stats.truncnorm(-2, 2, scale=0.5)),
        ("paper", 0.5, scipy.stats.truncnorm(-0.5, 0.5)),
        ("paper", 3.0, scipy.stats.truncnorm(-3, 3)),
        ("scale", 0.5, scipy.stats.norm(scale=0.5)),
        ("hub", None, scipy.stats.norm()),
        ("paper", None, scipy.stats.norm()),
    ],
)
def test_each_meaning_has_its_law(kind, t, law):
    noise = make_noise(2000, 10, t, seed=0, kind=kind)
    assert scipy.stats.kstest(noise.ravel(), law.cdf).pvalue > 0.01
    wrong = scipy.stats.norm(scale=0.7)
    assert scipy.stats.kstest(noise.ravel(), wrong.cdf).pvalue < 1e-6


def test_papers_threshold_of_2_is_the_hubs_truncation_of_1():
    np.testing.assert_allclose(
        make_noise(5, 8, 2.0, seed=1, kind="paper"), make_noise(5, 8, 1.0, seed=1), rtol=1e-12
    )
    assert statistics_truncation(2.0, "paper") == pytest.approx(1)


@pytest.mark.parametrize("threshold", [0.04, 0.5, 1.5])
def test_statistics_are_those_of_the_hub_noise_with_the_same_deviation(threshold):
    hub = statistics_truncation(threshold, "paper")
    paper_std = scipy.stats.truncnorm(-threshold, threshold).std()
    assert hub * scipy.stats.truncnorm(-2, 2).std() == pytest.approx(paper_std, rel=1e-6)
    hub = statistics_truncation(threshold / 2, "scale")
    assert hub * scipy.stats.truncnorm(-2, 2).std() == pytest.approx(threshold / 2, rel=1e-6)


def test_statistics_of_a_tiny_threshold_are_those_of_a_uniform_distribution():
    hub = statistics_truncation(1e-5, "paper")
    assert hub * scipy.stats.truncnorm(-2, 2).std() == pytest.approx(1e-5 / 3**0.5, rel=1e-6)


def test_wider_noise_than_the_hubs_takes_untruncated_statistics():
    assert statistics_truncation(3.0, "paper") is None
    assert statistics_truncation(1.0, "scale") is None
    assert statistics_truncation(None) is None
    assert statistics_truncation(0.42) == 0.42


def test_what_is_outside_its_range_is_named():
    for truncation in (0.0, -0.1, 1.01, float("nan"), float("inf")):
        with pytest.raises(biggan.InputError, match="truncation must be above 0 and at most 1"):
            biggan.truncated_noise(1, 8, truncation, 0)
    for seed in (-1, 2**32):
        with pytest.raises(biggan.InputError, match="seed must be between 0 and 4294967295"):
            biggan.truncated_noise(1, 8, 0.5, seed)
    with pytest.raises(biggan.InputError, match="hub, paper, scale"):
        make_noise(1, 8, 0.5, 0, kind="std")

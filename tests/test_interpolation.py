import numpy as np
import pytest
import torch

import biggan
from biggan.interpolation import interpolate_labels, interpolate_noise


@pytest.fixture
def ends():
    random = np.random.default_rng(0)
    return random.normal(size=(3, 20)), random.normal(size=(3, 20))


@pytest.mark.parametrize("path", ["linear", "slerp"])
def test_ends_are_exact(ends, path):
    points = interpolate_noise(*ends, 7, path)
    assert points.shape == (3, 7, 20)
    np.testing.assert_array_equal(points[:, 0], ends[0])
    np.testing.assert_array_equal(points[:, -1], ends[1])


def test_linear_is_the_notebooks(ends):
    points = interpolate_noise(*ends, 5)
    for i, t in enumerate(np.linspace(0, 1, 5)):
        np.testing.assert_allclose(points[:, i], ends[0] + t * (ends[1] - ends[0]))


def test_slerp_turns_by_equal_angles_on_the_sphere(ends):
    a, b = (end / np.linalg.norm(end, axis=1, keepdims=True) for end in ends)
    points = interpolate_noise(a, b, 9, "slerp")
    np.testing.assert_allclose(np.linalg.norm(points, axis=2), 1)
    cosines = np.sum(points[:, 1:] * points[:, :-1], axis=2)
    whole = np.arccos(np.sum(a * b, axis=1))
    np.testing.assert_allclose(np.arccos(cosines), np.repeat(whole[:, None] / 8, 8, axis=1))


def test_slerp_between_equal_and_opposite_points_is_straight():
    a = np.ones((1, 4))
    np.testing.assert_allclose(interpolate_noise(a, a, 4, "slerp"), np.ones((1, 4, 4)))
    opposite = interpolate_noise(a, -a, 3, "slerp")
    np.testing.assert_allclose(opposite[0, 1], 0, atol=1e-12)


def test_labels_pass_from_one_hot_to_one_hot():
    labels = interpolate_labels(1, 3, 4, 5)
    assert labels.shape == (5, 4)
    assert torch.equal(labels[0], torch.tensor([0.0, 1, 0, 0]))
    assert torch.equal(labels[-1], torch.tensor([0.0, 0, 0, 1]))
    torch.testing.assert_close(labels[2], torch.tensor([0.0, 0.5, 0, 0.5]))


def test_a_path_needs_two_steps(ends):
    with pytest.raises(biggan.InputError, match="at least 2 steps, not 1"):
        interpolate_noise(*ends, 1)

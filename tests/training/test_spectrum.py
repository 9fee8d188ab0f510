"""Bounds on singular values: cases worked out by hand, finite differences, and SVD."""

import pytest
import torch

from biggan.models import GeneratorConfig, build_discriminator, build_generator
from biggan.training import singular_values
from biggan.training.config import TrainConfig
from biggan.training.regularization import regularized_weights
from biggan.training.singular_values import (
    SpectrumBound,
    SpectrumConfig,
    all_triplets,
    iterate_block,
    start_block,
)
from tiny import TINY


def random():
    return torch.Generator().manual_seed(0)


def matrix_of(values, rows, columns, seed=1):
    """A matrix (rows, columns) with these singular values."""
    generator = torch.Generator().manual_seed(seed)
    left, right = (
        torch.linalg.qr(torch.randn(n, len(values), generator=generator, dtype=torch.float64)).Q
        for n in (rows, columns)
    )
    return left * torch.tensor(values, dtype=torch.float64) @ right.mT


class OneLayer(torch.nn.Module):
    """A network of one weight, which is all that a bound wants of a network."""

    def __init__(self, matrix):
        super().__init__()
        self.weight = torch.nn.Parameter(matrix.clone())

    def values(self):
        return torch.linalg.svdvals(self.weight.detach().flatten(1))


def bound(network, action, **settings):
    return SpectrumBound(network, action, SpectrumConfig(**settings), random())


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "iterated"])
@pytest.mark.parametrize("shape", [(3, 3), (40, 12), (30, 1), (144, 64)])
def test_triplets_are_those_of_the_svd(shape, whole):
    matrix = torch.randn(shape, generator=random(), dtype=torch.float64)
    start = start_block(matrix.shape[1], random()).to(matrix)
    found = all_triplets(matrix) if whole else iterate_block(matrix, start, 200)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    torch.testing.assert_close(found.values[:2], values[:2], rtol=1e-6, atol=0)
    product = torch.outer(found.left[:, 0], found.right[:, 0])
    expected = torch.outer(left[:, 0], right[0])
    torch.testing.assert_close(product, expected, rtol=0, atol=1e-4)


def test_values_that_stand_together_are_found():
    matrix = matrix_of([3.0, 3.0 - 1e-9, 3.0 - 2e-9, 1.0, 0.5], 30, 20)
    found = iterate_block(matrix, start_block(20, random()).double(), 20)
    torch.testing.assert_close(found.values[:3], torch.full((3,), 3.0).double())


def test_a_matrix_of_zeros_has_no_direction():
    zeros = torch.zeros(14, 13)
    for found in (iterate_block(zeros, start_block(13, random()), 2), all_triplets(zeros)):
        for part in found:
            assert part.isfinite().all()
        assert not found.values.any()


def test_the_clamp_by_hand():
    # W = diag(3, 2) with room around; the bound is 2.5: W - (3 - 2.5) u0 v0^T = diag(2.5, 2).
    network = OneLayer(torch.tensor([[3.0, 0, 0], [0, 2.0, 0]]))
    bound(network, "clamp", bound=2.5).after_update()
    expected = torch.tensor([[2.5, 0, 0], [0, 2.0, 0]])
    torch.testing.assert_close(network.weight.detach(), expected)


def test_the_clamp_to_a_ratio_by_hand():
    # 1.1 * sigma1 = 2.2; the signs are those of u0 v0^T.
    network = OneLayer(torch.tensor([[0, -3.0], [2.0, 0], [0, 0]]))
    bound(network, "clamp", ratio=1.1).after_update()
    expected = torch.tensor([[0, -2.2], [2.0, 0], [0, 0]])
    torch.testing.assert_close(network.weight.detach(), expected)


@pytest.fixture(params=[256, 0], ids=["whole", "iterated"])
def method(request, monkeypatch):
    """Matrices above this size are iterated on."""
    monkeypatch.setattr(singular_values, "WHOLE", request.param)


@pytest.mark.parametrize("settings", [{"bound": 5.0}, {"ratio": 2.0}])
def test_what_is_within_its_bound_stays_to_the_bit(settings):
    network = OneLayer(matrix_of([3.0, 2.0, 1.0], 6, 5))
    before = network.weight.detach().clone()
    bound(network, "clamp", **settings).after_update()
    assert torch.equal(network.weight, before)


def test_all_that_stands_above_a_constant_is_pressed_down(method):
    values = [4.0, 3.9, 3.0, 2.5, 0.7, 0.1]
    network = OneLayer(matrix_of(values, 20, 9))
    bound(network, "clamp", bound=2.0).after_update()
    expected = torch.tensor([2.0, 2.0, 2.0, 2.0, 0.7, 0.1]).double()
    torch.testing.assert_close(network.values()[:6], expected)


def test_one_value_has_no_second_to_be_a_ratio_of():
    network = OneLayer(torch.ones(1, 7))
    bound(network, "clamp", ratio=1.0).after_update()
    assert torch.equal(network.weight, torch.ones(1, 7))
    network.weight.grad = torch.zeros(1, 7)
    assert bound(network, "regularize", ratio=1.0).before_update() == 0
    assert not network.weight.grad.any()


@pytest.mark.parametrize("settings", [{"bound": 2.0}, {"bound": 9.0}, {"ratio": 1.2}])
@pytest.mark.parametrize("shape", [(12, 9), (9, 12)])
def test_the_penalty_and_its_gradient(method, shape, settings):
    network = OneLayer(matrix_of([4.0, 3.0, 1.0], *shape))
    network.weight.grad = torch.ones_like(network.weight)
    spectrum = bound(network, "regularize", strength=0.3, **settings)
    found = spectrum.before_update()
    held = settings.get("bound", 1.2 * 3.0)  # sg: the bound has no gradient
    assert found.item() == pytest.approx(0.3 * (4.0 - held) ** 2)

    def penalty(weight):
        return 0.3 * (torch.linalg.svdvals(weight)[0] - held) ** 2

    direction = torch.randn(shape, generator=random(), dtype=torch.float64)
    step = 1e-6 * direction
    with torch.no_grad():
        up, down = penalty(network.weight + step), penalty(network.weight - step)
    expected = (up - down).item() / 2e-6
    gradient = network.weight.grad - 1  # what was there before stays
    assert (gradient * direction).sum().item() == pytest.approx(expected, rel=1e-6)


def networks(**changes):
    return [
        build_generator(GeneratorConfig.from_dict({**TINY, **changes}), seed=1),
        build_discriminator(TrainConfig.from_dict({}).discriminator, seed=1),
    ]


def test_bounded_is_all_that_is_trained_but_the_shared_embedding():
    generator, discriminator = networks()
    names = list(regularized_weights(generator))
    assert "linear.weight" in names
    assert "blocks.0.bn1.gain.weight" in names
    assert not [name for name in names if "class_embedding" in name or "bias" in name[-5:]]
    discriminator.blocks[0].requires_grad_(False)
    names = list(regularized_weights(discriminator))
    assert "head.embedding.weight" in names
    assert not [name for name in names if name.startswith("blocks.0.")]


def test_the_clamp_holds_after_every_update():
    """From orthogonal weights, whose values all stand at the bound and are pushed above it."""
    generator = networks()[0]
    spectrum = bound(generator, "clamp", bound=1.0)
    weights = regularized_weights(generator)
    noise = torch.Generator().manual_seed(7)
    pushed = {
        name: torch.randn(w.shape, generator=noise).sign() for name, w in weights.items()
    }  # the same way always, as a gradient would
    for step in range(30):
        with torch.no_grad():
            for name, weight in weights.items():
                random_part = torch.randn(weight.shape, generator=noise).sign()
                weight.add_(pushed[name] + random_part, alpha=2e-4)
        spectrum.after_update()
        for name, weight in weights.items():
            largest = torch.linalg.svdvals(weight.detach().flatten(1))[0]
            assert largest <= 1 + 1e-3, (step, name)


def test_iterations_go_on_from_one_update_to_the_next(monkeypatch):
    monkeypatch.setattr(singular_values, "WHOLE", 0)
    # Values so close to each other that a few iterations find nothing.
    network = OneLayer(matrix_of([2.0 - 0.01 * i for i in range(60)], 80, 60))
    network.weight.grad = torch.zeros_like(network.weight)
    spectrum = bound(network, "regularize", strength=1.0, bound=1.0)
    bad_start = start_block(60, random()).double()
    spectrum.load_state_dict({"weight": bad_start})
    penalties = [spectrum.before_update().item() for _ in range(100)]
    assert penalties[0] < 0.9
    assert penalties[-1] == pytest.approx(1.0, rel=1e-3)

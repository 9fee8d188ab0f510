"""LeCam by hand; orthogonal regularization against autograd of the paper's formula, in float64."""

import pytest
import torch
from torch import nn

from biggan.training.regularization import LeCam, LeCamConfig, add_orthogonal_gradient

SHAPES = [(7, 3), (3, 7), (5, 5), (6, 2, 3, 3), (40, 2, 1, 1)]


def papers_formula(weight, strength):
    """strength * || W^T W (.) (1 - I) ||_F^2 with the filters as W's columns (equation 3)."""
    columns = weight.flatten(1).T
    gram = columns.T @ columns
    off_diagonal = gram * (1 - torch.eye(len(gram), dtype=gram.dtype))
    return strength * off_diagonal.norm() ** 2


@pytest.fixture(params=SHAPES, ids=str)
def weight(request):
    random = torch.Generator().manual_seed(0)
    return nn.Parameter(torch.randn(request.param, generator=random, dtype=torch.float64))


def test_penalty_and_gradient_are_the_formulas_and_autograds(weight):
    formula = papers_formula(weight, 0.3)
    (expected,) = torch.autograd.grad(formula, weight)
    weight.grad = torch.ones_like(weight)
    torch.testing.assert_close(add_orthogonal_gradient([weight], 0.3), formula.detach())
    torch.testing.assert_close(weight.grad, 1 + expected)
    twice = add_orthogonal_gradient([weight, weight], 0.3)  # penalties of several weights add up
    torch.testing.assert_close(twice, 2 * formula.detach())


def test_orthogonal_filters_of_any_length_are_left_alone():
    weight = nn.Parameter(torch.diag(torch.tensor([1.0, 2.0, 30.0])))
    weight.grad = torch.zeros_like(weight)
    assert add_orthogonal_gradient([weight], 1.0) == 0
    assert torch.equal(weight.grad, torch.zeros(3, 3))


def test_before_the_first_observation_there_is_no_penalty():
    lecam = LeCam(LeCamConfig())
    logits = torch.tensor([[3.0], [-4.0]], requires_grad=True)
    penalty = lecam(logits, logits)
    penalty.backward()
    assert penalty.item() == 0
    assert torch.equal(logits.grad, torch.zeros(2, 1))


def test_the_averages_start_as_the_first_means_and_then_move():
    lecam = LeCam(LeCamConfig(decay=0.9))
    lecam.observe(torch.tensor(2.0), torch.tensor(-1.0))
    assert (lecam.real.item(), lecam.fake.item()) == (2, -1)
    lecam.observe(torch.tensor(1.0), torch.tensor(0.5))
    assert lecam.real.item() == pytest.approx(0.9 * 2 + 0.1 * 1)
    assert lecam.fake.item() == pytest.approx(0.9 * -1 + 0.1 * 0.5)


def test_lecams_penalty_by_hand():
    lecam = LeCam(LeCamConfig()).double()
    lecam.observe(torch.tensor(1.5), torch.tensor(-0.5))
    real = torch.tensor([[2.0], [-1.0], [0.5]], dtype=torch.float64, requires_grad=True)
    fake = torch.tensor([[-2.5], [3.0]], dtype=torch.float64, requires_grad=True)
    penalty = lecam(real, fake)
    # relu(real + 0.5): 2.5, 0, 1; relu(1.5 - fake): 4, 0
    assert penalty.item() == pytest.approx((2.5**2 + 1) / 3 + 16 / 2, rel=1e-12)
    penalty.backward()
    assert real.grad.flatten().tolist() == pytest.approx([2 * 2.5 / 3, 0, 2 / 3])
    assert fake.grad.flatten().tolist() == pytest.approx([-2 * 4 / 2, 0])
    assert torch.autograd.gradcheck(lecam, (real, fake))


def test_half_precision_logits_are_squared_in_float32():
    lecam = LeCam(LeCamConfig())
    lecam.observe(torch.tensor(0.0), torch.tensor(-300.0))
    penalty = lecam(torch.tensor([[300.0]], dtype=torch.float16), torch.zeros(1, 1).half())
    assert penalty.item() == 600**2

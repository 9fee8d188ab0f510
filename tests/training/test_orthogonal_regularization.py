"""The penalty and its gradient against autograd of the paper's formula, in float64."""

import pytest
import torch
from torch import nn

from biggan.training.regularization import (
    add_orthogonal_gradient,
)

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

"""LeCam regularization by hand."""

import pytest
import torch

from biggan.training.regularization import LeCam, LeCamConfig


def test_before_the_first_observation_there_is_none():
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


def test_the_penalty_by_hand():
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

import pytest
import torch

from biggan.training.losses import discriminator_hinge_loss, generator_hinge_loss


def test_discriminator_loss_by_hand():
    real, fake = torch.tensor([[2.0], [0.5], [-1.0]]), torch.tensor([[-3.0], [0.5]])
    # relu(1 - real): 0, 0.5, 2; relu(1 + fake): 0, 1.5
    assert discriminator_hinge_loss(real, fake).item() == pytest.approx(2.5 / 3 + 1.5 / 2)


def test_generator_loss_by_hand():
    assert generator_hinge_loss(torch.tensor([[2.0], [-5.0]])).item() == pytest.approx(1.5)

"""The hinge loss of GANs (Lim and Ye 2017, https://arxiv.org/abs/1705.02894)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def discriminator_hinge_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """E[relu(1 - D(x, y))] + E[relu(1 + D(G(z, y), y))].

    Args:
        real_logits: (N, 1), of real images.
        fake_logits: (M, 1), of generated ones.

    Returns:
        A scalar.
    """
    return F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()


def generator_hinge_loss(fake_logits: Tensor) -> Tensor:
    """-E[D(G(z, y), y)].

    Args:
        fake_logits: (N, 1), of generated images.

    Returns:
        A scalar.
    """
    return -fake_logits.mean()

"""The hinge loss of GANs (Lim and Ye 2017, https://arxiv.org/abs/1705.02894)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def discriminator_hinge_loss(
    real_logits: Tensor, fake_logits: Tensor, margin: float = 1.0
) -> Tensor:
    """E[relu(margin - D(x, y))] + E[relu(margin + D(G(z, y), y))].

    Args:
        real_logits: (N, 1), of real images.
        fake_logits: (M, 1), of generated ones.
        margin: Output from which on an image costs nothing.

    Returns:
        A scalar.
    """
    return F.relu(margin - real_logits).mean() + F.relu(margin + fake_logits).mean()


def generator_hinge_loss(fake_logits: Tensor) -> Tensor:
    """-E[D(G(z, y), y)].

    Args:
        fake_logits: (N, 1), of generated images.

    Returns:
        A scalar.
    """
    return -fake_logits.mean()

"""The hinge loss of GANs (Lim and Ye 2017, https://arxiv.org/abs/1705.02894)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from biggan.errors import require


@dataclass(frozen=True)
class LossConfig:
    """The discriminator's hinge loss."""

    margin: float = 1.0
    """Output from which on an image costs nothing (Section 4.2 tries others than 1)."""

    def __post_init__(self) -> None:
        require(0 < self.margin < math.inf, "loss.margin must be above 0")


def discriminator_hinge_loss(
    real_logits: Tensor, fake_logits: Tensor, margin: float = 1.0
) -> Tensor:
    """E[relu(margin - D(x, y))] + E[relu(margin + D(G(z, y), y))] of logits (N, 1) and (M, 1)."""
    return F.relu(margin - real_logits).mean() + F.relu(margin + fake_logits).mean()


def generator_hinge_loss(fake_logits: Tensor) -> Tensor:
    """-E[D(G(z, y), y)] of logits (N, 1)."""
    return -fake_logits.mean()

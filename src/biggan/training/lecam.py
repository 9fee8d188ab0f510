"""LeCam regularization of the discriminator, for small data.

Tseng et al. 2021, "Regularizing Generative Adversarial Networks under Limited Data",
https://arxiv.org/abs/2104.03310, equation 3:

    R = E[relu(D(x) - a_fake)^2] + E[relu(a_real - D(G(z)))^2]

with moving averages a_real and a_fake of D's mean outputs on real and on generated images. It holds
the outputs on either kind of image to the side of the other kind's average, and thereby bounds how
far apart they grow.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from biggan.training.settings import LeCamConfig


class LeCam(nn.Module):
    """The regularization, and its moving averages, which belong into a checkpoint.

    The averages start as the first means observed. All micro-batches and processes of one update
    must be held to the same averages: `observe` once, after all of them, with means over all of
    them.

    Args:
        config: The averages' decay; strength and start are the caller's to apply.
    """

    real: Tensor
    fake: Tensor
    observed: Tensor

    def __init__(self, config: LeCamConfig) -> None:
        super().__init__()
        self.decay = config.decay
        self.register_buffer("real", torch.zeros(()))
        self.register_buffer("fake", torch.zeros(()))
        self.register_buffer("observed", torch.zeros(()))  # 1 once there was a first mean

    def forward(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """R, in float32 at least; 0 as long as nothing was observed.

        Args:
            real_logits: (N, 1), of real images.
            fake_logits: (M, 1), of generated ones.

        Returns:
            A scalar.
        """
        dtype = torch.promote_types(real_logits.dtype, torch.float32)
        above = F.relu(real_logits.to(dtype) - self.fake).square().mean()
        below = F.relu(self.real - fake_logits.to(dtype)).square().mean()
        return self.observed * (above + below)

    @torch.no_grad()
    def observe(self, real_mean: Tensor, fake_mean: Tensor) -> None:
        """Move the averages; waits for no device.

        Args:
            real_mean: Mean logit of the update's real images, over all micro-batches and processes.
            fake_mean: The same of its generated images.
        """
        weight = 1 - self.decay * self.observed  # 1 for the first
        self.real.lerp_(real_mean.to(self.real.dtype), weight)
        self.fake.lerp_(fake_mean.to(self.fake.dtype), weight)
        self.observed.fill_(1)

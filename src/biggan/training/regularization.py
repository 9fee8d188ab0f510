"""Regularization: orthogonal weights, LeCam, the gradient penalty R1.

Orthogonal regularization is BigGAN's, of the generator (Section 3.1, equation 3):

    R(W) = strength * || W^T W (.) (1 - I) ||_F^2

where the columns of W are a layer's filters, and (.) (1 - I) leaves out the diagonal, so that the
filters are driven apart but their lengths are left alone. In PyTorch's layout the filters are rows,
so that the product is W W^T. The gradient is 4 * strength * (W W^T (.) (1 - I)) W. Ports that add
2 * (...) instead use half the strength that they state.

LeCam is for small data (Tseng et al. 2021, https://arxiv.org/abs/2104.03310, equation 3):

    R = E[relu(D(x) - a_fake)^2] + E[relu(a_real - D(G(z)))^2]

with moving averages a_real and a_fake of D's mean outputs on real and on generated images. It holds
the outputs on either kind of image to the side of the other kind's average, and thereby bounds how
far apart they grow.

R1 is a penalty on D's gradient at real images (Mescheder, Geiger and Nowozin 2018,
https://arxiv.org/abs/1801.04406; the paper's Section 4.2, equation 4):

    R1 = gamma / 2 * E_real || grad_x D(x, y) ||_F^2

Here x is what the discriminator sees, after augmentation and instance noise: D is a function of
that, an augmentation's own slope is no property of D, and some augmentations (resampling on a grid)
have no second derivative in PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from biggan.errors import require
from biggan.models import Discriminator, Generator


@dataclass(frozen=True)
class LeCamConfig:
    """LeCam regularization of the discriminator, for small data."""

    strength: float = 0.0
    """Weight of the regularization; 0 for none, 0.1 to 0.5 are usual."""
    decay: float = 0.99
    """Weight of the past in the moving averages of D's outputs."""
    start: int = 1000
    """Step from which it is applied; the averages are kept from the first step on."""

    def __post_init__(self) -> None:
        require(0 <= self.strength < math.inf, "lecam.strength must be 0 or above")
        require(0 <= self.decay < 1, "lecam.decay must be at least 0 and below 1")
        require(self.start >= 0, "lecam.start must be 0 or above")


@dataclass(frozen=True)
class R1Config:
    """R1 gradient penalty."""

    gamma: float = 0.0
    """Weight of the penalty (gamma / 2) E ||grad D(real)||^2; 0 for none."""

    def __post_init__(self) -> None:
        require(0 <= self.gamma < math.inf, "r1.gamma must be 0 or above")


def regularized_weights(network: Generator | Discriminator) -> dict[str, nn.Parameter]:
    """All trained matrices and kernels but a generator's shared embedding, by name."""
    return {
        name: parameter
        for name, parameter in network.named_parameters()
        if parameter.requires_grad
        and parameter.ndim >= 2
        and name != "class_embedding.table.weight"
    }


@torch.no_grad()
def add_orthogonal_gradient(weights: Iterable[nn.Parameter], strength: float) -> Tensor:
    """Add the gradient of orthogonal regularization to the gradients of the weights (out, ...).

    In closed form: autograd would hold a copy of every product, and form W W^T for a first linear
    layer of 24,576 rows, which takes 2.4 GB. (W W^T (.) (1 - I)) W = W (W^T W) - diag(W W^T) W and
    ||W W^T||_F = ||W^T W||_F need only the smaller of the two products.

    Returns:
        R(W), summed over the weights: a scalar.
    """
    penalties = []
    for weight in weights:
        assert weight.grad is not None
        matrix = weight.flatten(1)
        squares = matrix.square().sum(dim=1, keepdim=True)
        if matrix.shape[0] > matrix.shape[1]:
            gram = matrix.mT @ matrix
            product = matrix @ gram
        else:
            gram = matrix @ matrix.mT
            product = gram @ matrix
        gradient = product - squares * matrix
        weight.grad.add_(gradient.view_as(weight), alpha=4 * strength)
        penalties.append(gram.square().sum() - squares.square().sum())
    return strength * torch.stack(penalties).sum()


class LeCam(nn.Module):
    """LeCam regularization, without its strength, and its moving averages.

    The averages start as the first means observed. All micro-batches and processes of one update
    are held to the same averages: `observe` once, after all of them, with means over all of them.
    """

    real: Tensor
    fake: Tensor
    observed: Tensor

    def __init__(self, config: LeCamConfig) -> None:
        super().__init__()
        self.decay = config.decay
        for name in ("real", "fake", "observed"):  # the last is 1 once there was a first mean
            self.register_buffer(name, torch.zeros(()))

    def forward(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """R, of logits (N, 1) and (M, 1); 0 as long as nothing was observed."""
        dtype = torch.promote_types(real_logits.dtype, torch.float32)
        above = F.relu(real_logits.to(dtype) - self.fake).square().mean()
        below = F.relu(self.real - fake_logits.to(dtype)).square().mean()
        return self.observed * (above + below)

    @torch.no_grad()
    def observe(self, real_mean: Tensor, fake_mean: Tensor) -> None:
        """Move the averages towards an update's mean logits."""
        weight = 1 - self.decay * self.observed  # 1 for the first
        self.real.lerp_(real_mean.to(self.real.dtype), weight)
        self.fake.lerp_(fake_mean.to(self.fake.dtype), weight)
        self.observed.fill_(1)


def add_r1_gradient(
    discriminator: Discriminator,
    images: Tensor,
    labels: Tensor,
    mask: Tensor | None = None,
    *,
    weight: float,
) -> Tensor:
    """Add the gradient of weight * E || grad_x D(x, y) ||^2 to the discriminator's gradients.

    A forward pass of its own, in the weights' precision whatever the rest is computed in. Its
    memory is gone before the adversarial loss takes its own. In training mode it takes a power
    iteration, unless that is held.

    `images` (N, C, R, R) and the dropout `mask` are as the discriminator sees them; `weight` is
    gamma / 2 for the whole batch, less for a micro-batch's part of it.

    Returns:
        E || grad_x D(x, y) ||^2, without the weight: a scalar.
    """
    images = images.detach().requires_grad_()
    with (
        torch.autocast(images.device.type, enabled=False),
        # The faster kernels of attention have no second derivative. Recomputed activations run
        # attention again in the backward pass: so that belongs here, too.
        sdpa_kernel(SDPBackend.MATH),
    ):
        # Not by calling it: what torch.compile made of it has no second derivative either.
        logits = discriminator.forward(images, labels, mask)
        # Each logit depends on its own image alone, so the sum's gradient holds that of each.
        (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
        penalty = gradient.square().sum(dim=(1, 2, 3)).mean()
        (weight * penalty).backward()
    return penalty.detach()

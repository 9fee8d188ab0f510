"""R1: a penalty on the discriminator's gradient at real images.

Mescheder, Geiger and Nowozin 2018 (https://arxiv.org/abs/1801.04406); the paper's Section 4.2:

    R1 = gamma / 2 * E_real || grad_x D(x, y) ||_F^2

Here x is what the discriminator sees, after augmentation and instance noise: D is a function of
that, an augmentation's own slope is no property of D, and some augmentations (resampling on a grid)
have no second derivative in PyTorch.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from biggan.models import Discriminator


def add_r1_gradient(
    discriminator: Discriminator,
    images: Tensor,
    labels: Tensor,
    weight: float,
    mask: Tensor | None = None,
) -> Tensor:
    """Add the gradient of weight * E || grad_x D(x, y) ||^2 to the discriminator's gradients.

    A forward pass of its own, in the weights' precision whatever the rest is computed in. Two
    gradients of one pass are summed by nothing but addition, so its memory is gone before the
    adversarial loss takes its own.

    Args:
        discriminator: The network itself, not what exchanges its gradients; in training mode it
            takes a power iteration, unless that is held.
        images: What it sees of real images, (N, C, R, R).
        labels: Their labels (N,).
        weight: gamma / 2 for the whole batch; less for a micro-batch's part of it.
        mask: Dropout, as the discriminator takes it.

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

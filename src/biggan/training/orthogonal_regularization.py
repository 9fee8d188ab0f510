"""BigGAN's relaxed orthogonal regularization of the generator (Section 3.1, equation 3).

    R(W) = strength * || W^T W (.) (1 - I) ||_F^2

where the columns of W are a layer's filters, and (.) (1 - I) leaves out the diagonal, so that the
filters are driven apart but their lengths are left alone. In PyTorch's layout the filters are rows,
so that the product is W W^T.

The gradient is 4 * strength * (W W^T (.) (1 - I)) W. Ports that add 2 * (...) instead use half the
strength that they state.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from biggan.models import Generator


def regularized_weights(generator: Generator) -> list[nn.Parameter]:
    """The weights under the regularization: matrices and kernels but for the shared embedding.

    Without those that are not trained: they have no gradient to add to.
    """
    shared = generator.class_embedding.table
    return [
        parameter
        for parameter in generator.parameters()
        if parameter.requires_grad
        and parameter.ndim >= 2
        and (shared is None or parameter is not shared.weight)
    ]


@torch.no_grad()
def add_orthogonal_gradient(weights: Iterable[nn.Parameter], strength: float) -> Tensor:
    """Add R's gradient to the gradients of the weights.

    In closed form: autograd would hold a copy of every product, and form W W^T for a first linear
    layer of 24,576 rows, which takes 2.4 GB. (W W^T (.) (1 - I)) W = W (W^T W) - diag(W W^T) W and
    ||W W^T||_F = ||W^T W||_F need only the smaller of the two products.

    Args:
        weights: Each (out, ...), with a gradient.
        strength: The paper's beta, 1e-4 for its final models.

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

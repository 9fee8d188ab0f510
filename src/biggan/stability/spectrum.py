"""Bounds on the largest singular value sigma0 of weights (Section 4.1).

The paper holds sigma0 of every weight down to a bound, a constant or r * sg(sigma1), where sigma1
is the second largest singular value and sg stops the gradient. Either by a penalty

    strength * (sigma0 - bound)^2

or by partial SVD after every update, in PyTorch's layout (out, in):

    W <- W - max(0, sigma0 - bound) u0 v0^T

It found that both stop the growth of sigma0, with and without spectral normalization, that they
sometimes help a little, and that no run was saved from collapse by them. Bounded are the stored
weights, before spectral normalization divides them by sigma0.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from biggan.models import Discriminator, Generator
from biggan.stability.leading_singular import (
    WHOLE,
    Triplets,
    all_triplets,
    iterate_block,
    start_block,
)
from biggan.stability.settings import SpectrumAction, SpectrumConfig

_FIRST_ITERATIONS = 30  # from random vectors
_ITERATIONS = 2  # from those of the update before
_ROUNDS = 3  # of a clamp: one value pressed down may leave another on top


class SpectrumBound(nn.Module):
    """Holds the largest singular values of one network's weights down.

    Its buffers are the singular vectors from which the next iterations start, for matrices that are
    too large to be decomposed as a whole: they belong into a checkpoint.

    Args:
        network: Bounded are all of its matrices and kernels that are trained, but for a generator's
            shared embedding, as for orthogonal regularization.
        action: What to do; not `none`.
        config: Bound and strength.
        random: Draws the first vectors.
    """

    def __init__(
        self,
        network: Generator | Discriminator,
        action: SpectrumAction,
        config: SpectrumConfig,
        random: torch.Generator,
    ) -> None:
        super().__init__()
        self.action = action
        self.config = config
        # In a dictionary that is no module: they are the network's.
        self._weights: dict[str, nn.Parameter] = {}
        for name, weight in bounded_weights(network):
            self._weights[name] = weight
            matrix = _tall(weight.detach())
            if matrix.shape[1] > WHOLE:
                start = start_block(matrix, random)
                right = iterate_block(matrix, start, _FIRST_ITERATIONS).right
                self.register_buffer(_buffer(name), right)

    @torch.no_grad()
    def before_update(self) -> Tensor | None:
        """Regularization: add the penalty's gradient to the gradients of the weights.

        Returns:
            The penalty, summed over the weights: a scalar; None for a clamp.
        """
        if self.action != "regularize":
            return None
        total = torch.zeros(())
        for name, weight in self._weights.items():
            assert weight.grad is not None, "before the first backward pass"
            left, values, right = triplets = self._triplets(name)
            bound = self._bound(triplets)
            if bound is None:
                continue
            excess = values[0] - bound
            _tall(weight.grad).addr_(
                left[:, 0], right[:, 0] * excess, alpha=2 * self.config.strength
            )
            total = total.to(excess) + self.config.strength * excess.square()
        return total

    @torch.no_grad()
    def after_update(self) -> None:
        """Clamp: press what stands above the bound down to it.

        Not only sigma0 is: where several values are above a constant bound, the next one would
        become sigma0. A ratio's bound, 1 or more times sigma1, has sigma0 alone above it.
        """
        if self.action != "clamp":
            return
        for name, weight in self._weights.items():
            for _ in range(_ROUNDS if self._is_iterated(name) else 1):
                left, values, right = triplets = self._triplets(name)
                bound = self._bound(triplets)
                if bound is None:
                    break
                excess = (values - bound).clamp(min=0)
                _tall(weight).sub_((left * excess) @ right.mT)

    def _triplets(self, name: str) -> Triplets:
        """A weight's triplets, as it is now."""
        matrix = _tall(self._weights[name])
        if not self._is_iterated(name):
            return all_triplets(matrix)
        block = self.get_buffer(_buffer(name))
        triplets = iterate_block(matrix, block, _ITERATIONS)
        block.copy_(triplets.right)
        return triplets

    def _is_iterated(self, name: str) -> bool:
        return _buffer(name) in self._buffers

    def _bound(self, triplets: Triplets) -> Tensor | float | None:
        """What sigma0 is held to; None where a weight has no second value to take r of."""
        if not self.config.ratio:
            return self.config.bound
        return self.config.ratio * triplets.values[1] if len(triplets.values) > 1 else None


def bounded_weights(network: Generator | Discriminator) -> Iterator[tuple[str, nn.Parameter]]:
    """The weights that are bounded, by name."""
    for name, parameter in network.named_parameters():
        is_shared_embedding = name == "class_embedding.table.weight"
        if parameter.requires_grad and parameter.ndim >= 2 and not is_shared_embedding:
            yield name, parameter


def _buffer(name: str) -> str:
    return name.replace(".", "/")  # a buffer's name has no dots


def _tall(weight: Tensor) -> Tensor:
    """A weight as the matrix (out, in * k * k), a view; transposed if that is wide.

    The singular values are the same, left and right vectors change places, and the vectors that are
    kept are the short ones.
    """
    matrix = weight.view(len(weight), -1)
    return matrix if matrix.shape[0] >= matrix.shape[1] else matrix.mT

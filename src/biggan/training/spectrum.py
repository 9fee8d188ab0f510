"""Bounds on the largest singular value sigma0 of weights (Section 4.1).

The paper holds sigma0 of every weight down to a bound, a constant or r * sg(sigma1), where sigma1
is the second largest singular value and sg stops the gradient. Either by a penalty

    strength * (sigma0 - bound)^2

or by partial SVD after every update, in PyTorch's layout (out, in):

    W <- W - max(0, sigma0 - bound) u0 v0^T

It found that both stop the growth of sigma0, with and without spectral normalization, that they
sometimes help a little, and that no run was saved from collapse by them. The bound is on the stored
weights, before spectral normalization divides them by sigma0.

Matrices that are too large to be decomposed as a whole are iterated (`singular_values`), from the
vectors of the update before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from biggan.errors import require
from biggan.models import Discriminator, Generator
from biggan.training.singular_values import orthonormal, rayleigh_ritz, start_block

SpectrumAction = Literal["none", "regularize", "clamp"]

WHOLE = 256
"""Columns up to which all triplets are computed: that is exact, and cheap beside a layer's work."""

_FIRST_ITERATIONS = 30  # from random vectors
_ITERATIONS = 2  # from those of the update before
_ROUNDS = 3  # of a clamp: when one value is lowered another one may be the largest


@dataclass(frozen=True)
class SpectrumConfig:
    """The largest singular value sigma0 of weights, held down (Section 4.1)."""

    generator: SpectrumAction = "none"
    """`none`; `regularize`, by a penalty; or `clamp`, after every update."""
    discriminator: SpectrumAction = "none"
    """The same for the discriminator."""
    bound: float = 1.0
    """The constant sigma_reg or sigma_clamp; used where `ratio` is 0."""
    ratio: float = 0.0
    """r of the bound r * sg(sigma1), sigma1 the second largest singular value, 1 or above; 0 for a
    constant."""
    strength: float = 1e-2
    """Weight of the penalty."""

    def __post_init__(self) -> None:
        for name in ("generator", "discriminator"):
            require(
                getattr(self, name) in get_args(SpectrumAction),
                f"spectrum.{name} must be one of {', '.join(get_args(SpectrumAction))}",
            )
        require(0 < self.bound < math.inf, "spectrum.bound must be above 0")
        require(
            self.ratio == 0 or 1 <= self.ratio < math.inf,
            "spectrum.ratio must be 0 or at least 1: no largest value is below the second largest",
        )
        require(0 <= self.strength < math.inf, "spectrum.strength must be 0 or above")


class Triplets(NamedTuple):
    """Singular triplets of a matrix (m, n), the largest first."""

    left: Tensor
    """(m, k)."""
    values: Tensor
    """(k,)."""
    right: Tensor
    """(n, k), orthonormal."""


class SpectrumBound(nn.Module):
    """Holds the largest singular values of one network's weights down.

    Its buffers are the blocks of the matrices that are iterated; they belong into a checkpoint.

    Args:
        network: All of its matrices and kernels that are trained are bounded, but for a generator's
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
                start = start_block(matrix.shape[1], random).to(matrix)
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
        """Clamp: lower all values above the bound to it.

        Not only sigma0: where several values are above a constant bound, the next one would become
        sigma0. A ratio's bound, 1 or more times sigma1, has sigma0 alone above it.
        """
        if self.action != "clamp":
            return
        for name, weight in self._weights.items():
            for _ in range(_ROUNDS if _buffer(name) in self._buffers else 1):
                left, values, right = triplets = self._triplets(name)
                bound = self._bound(triplets)
                if bound is None:
                    break
                excess = (values - bound).clamp(min=0)
                _tall(weight).sub_((left * excess) @ right.mT)

    def _triplets(self, name: str) -> Triplets:
        """A weight's triplets, as it is now."""
        matrix = _tall(self._weights[name])
        if _buffer(name) not in self._buffers:
            return all_triplets(matrix)
        block = self.get_buffer(_buffer(name))
        triplets = iterate_block(matrix, block, _ITERATIONS)
        block.copy_(triplets.right)
        return triplets

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


def all_triplets(matrix: Tensor) -> Triplets:
    """The triplets of a matrix (m, n) with m >= n: by its Gram matrix, so only large ones are good.

    In float32 a value is off by up to 1e-7 of the largest one's square.
    """
    squares, rotation = torch.linalg.eigh(matrix.mT @ matrix)  # ascending
    rotation = rotation.flip(1)
    values = squares.flip(0).clamp(min=0).sqrt()
    return Triplets(_left(matrix @ rotation, values), values, rotation)


def iterate_block(matrix: Tensor, right: Tensor, iterations: int) -> Triplets:
    """Move a block towards the leading right singular vectors of a matrix.

    Args:
        matrix: (m, n), m >= n.
        right: The block (n, k), orthonormal.
        iterations: Power iterations, each a product with the matrix and one with its transpose.

    Returns:
        The best triplets within the block. The values are never too large.
    """
    for _ in range(iterations):
        (right,) = orthonormal([matrix.mT @ (matrix @ right)])
    image, k = matrix @ right, right.shape[1]
    (values, *_), (rotation, *_) = rayleigh_ritz([image])
    values, rotation = values[:k].to(matrix), rotation[:k, :k]
    return Triplets(_left(image @ rotation, values), values, right @ rotation)


def _left(images: Tensor, values: Tensor) -> Tensor:
    """Left singular vectors, zeros where a value is zero."""
    return images / values.where(values > 0, 1)


def _buffer(name: str) -> str:
    return name.replace(".", "/")  # a buffer's name has no dots


def _tall(weight: Tensor) -> Tensor:
    """A weight as the matrix (out, in * k * k), a view; transposed if that is wide.

    The singular values are the same, left and right vectors change places, and the vectors that are
    kept are the short ones.
    """
    matrix = weight.view(len(weight), -1)
    return matrix if matrix.shape[0] >= matrix.shape[1] else matrix.mT

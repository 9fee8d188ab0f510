"""The largest singular values of weights by block power iteration: to watch them, to bound them.

Section 4 of the paper watches the three largest, sigma0 to sigma2, of every weight: in a generator
that collapses, sigma0 of a few layers explodes. A block of orthonormal vectors is multiplied by
W^T W again and again, orthogonalized after every product; the values are those of the matrix
restricted to the block (Rayleigh-Ritz). Values that lie close together converge together, at the
rate of the first value outside the block, not at that of their own distance.

Weights change little from one step to the next, so blocks are kept, and a few iterations do.

A kernel (out, in, kh, kw) is the matrix (out, in*kh*kw), not divided by its spectral norm.

Bounds on the largest singular value sigma0 of weights are Section 4.1's, a constant or
r * sg(sigma1), where sigma1 is the second largest singular value and sg stops the gradient. Either
by a penalty

    strength * (sigma0 - bound)^2

or by partial SVD after every update, in PyTorch's layout (out, in):

    W <- W - max(0, sigma0 - bound) u0 v0^T

The bound is on the stored weights, before spectral normalization divides them by sigma0. The paper
found that both stop the growth of sigma0, but saved no run from collapse.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from biggan.errors import require
from biggan.models import Discriminator, Generator
from biggan.training.regularization import regularized_weights

SpectrumAction = Literal["none", "regularize", "clamp"]

WHOLE = 256
"""Columns up to which all triplets are computed: that is exact, and cheap beside a layer's work."""

VALUES = 3
"""How many are wanted: sigma0, sigma1, sigma2."""

BLOCK = 8
"""Vectors in a block; those beyond `VALUES` are there for the speed of convergence."""

_CHANGE = 1e-4  # relative change of a value in an iteration, below which it has converged
_ITERATIONS = 100
_SEED = 0x53564453
# That of a block which was saved and loaded: in another one, products are rounded otherwise.
_LAYOUT = torch.contiguous_format

_FIRST_ITERATIONS = 30  # of power iteration for a bound, from random vectors
_UPDATE_ITERATIONS = 2  # from those of the update before
_ROUNDS = 3  # of a clamp: when one value is lowered another one may be the largest


@dataclass(frozen=True)
class SpectrumConfig:
    """The largest singular value sigma0 of weights, held down."""

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
        require(0 < self.bound < math.inf, "spectrum.bound must be above 0")
        require(
            self.ratio == 0 or 1 <= self.ratio < math.inf,
            "spectrum.ratio must be 0 or at least 1: no largest value is below the second largest",
        )
        require(0 <= self.strength < math.inf, "spectrum.strength must be 0 or above")


class Triplets(NamedTuple):
    """Singular triplets of a matrix (m, n), the largest first: (m, k), (k,), orthonormal (n, k)."""

    left: Tensor
    values: Tensor
    right: Tensor


def weight_matrices(network: nn.Module) -> dict[str, Tensor]:
    """The weight (out, in*kh*kw) of each convolution, linear layer and embedding, by layer."""
    return {
        name: layer.weight.detach().flatten(1)
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear | nn.Embedding)
    }


@torch.no_grad()
def measure(matrices: Mapping[str, Tensor], blocks: dict[str, Tensor]) -> dict[str, list[float]]:
    """The largest singular values of matrices, descending, until they no longer change.

    They are a pure function of the matrices and blocks. Errors are below 1% of `svdvals` on all
    that was measured, mostly far below. The blocks, orthonormal columns (shorter side, BLOCK) or
    fewer, are what is kept from one measurement to the next: changed in place, empty at first.

    Returns:
        By name, three values, or as many as the thinner side of the matrix has; NaN for a matrix
        that holds values that are not finite.
    """
    norms = torch.stack(torch._foreach_norm(list(matrices.values()))).tolist()
    # Zeros have no directions, infinities no values: neither is iterated.
    found: dict[str, list[float]] = {}
    active: dict[str, Tensor] = {}
    for (name, matrix), norm in zip(matrices.items(), norms, strict=True):
        found[name] = [0.0 if norm == 0 else float("nan")] * min(VALUES, *matrix.shape)
        if not 0 < norm < float("inf"):
            continue
        # The block lies on the shorter side.
        wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT
        active[name], short = wide.mT.float(), len(wide)
        block = blocks.get(name)
        if block is None or block.shape != (short, min(BLOCK, short)):
            block = start_block(short, torch.Generator().manual_seed(_SEED))
        blocks[name] = block.to(matrix.device)
    before: dict[str, list[float]] = {}
    for iteration in range(_ITERATIONS + 1):
        if not active:
            break
        images = {name: matrix @ blocks[name] for name, matrix in active.items()}
        values, rotations = _rayleigh_ritz(list(images.values()))
        products = {}
        rows = zip(images.items(), values.tolist(), rotations, strict=True)
        for (name, image), new, rotation in rows:
            short = active[name].shape[1]
            found[name] = new[: min(VALUES, short)]
            complete = short <= BLOCK  # the block is the whole space
            converged = name in before and all(
                abs(a - b) <= _CHANGE * a for a, b in zip(found[name], before[name], strict=True)
            )
            before[name] = found[name]
            if not (complete or converged or iteration == _ITERATIONS):
                width = image.shape[1]
                products[name] = active[name].mT @ (image @ rotation[:width, :width])
        active = {name: active[name] for name in products}
        blocks |= zip(products, _orthonormal(list(products.values())), strict=True)
    return found


def start_block(size: int, random: torch.Generator) -> Tensor:
    """Random orthonormal columns (size, BLOCK) to start from, fewer for a smaller size."""
    basis = torch.linalg.qr(torch.randn(size, min(BLOCK, size), generator=random)).Q
    return basis.clone(memory_format=_LAYOUT)


def iterate_block(matrix: Tensor, right: Tensor, iterations: int) -> Triplets:
    """Move a block towards the leading right singular vectors of a matrix.

    The matrix is (m, n) with m >= n, the block (n, k) and orthonormal. The triplets are the best
    ones within the block; their values are never too large.
    """
    for _ in range(iterations):
        (right,) = _orthonormal([matrix.mT @ (matrix @ right)])
    image, k = matrix @ right, right.shape[1]
    (values, *_), (rotation, *_) = _rayleigh_ritz([image])
    values, rotation = values[:k].to(matrix), rotation[:k, :k]
    return Triplets(_left(image @ rotation, values), values, right @ rotation)


def all_triplets(matrix: Tensor) -> Triplets:
    """The triplets of a matrix (m, n) with m >= n: by its Gram matrix, so only large ones are good.

    In float32 a value is off by up to 1e-7 of the largest one's square.
    """
    squares, rotation = torch.linalg.eigh(matrix.mT @ matrix)  # ascending
    rotation = rotation.flip(1)
    values = squares.flip(0).clamp(min=0).sqrt()
    return Triplets(_left(matrix @ rotation, values), values, rotation)


def _left(images: Tensor, values: Tensor) -> Tensor:
    """Left singular vectors, zeros where a value is zero."""
    return images / values.where(values > 0, 1)


def _rayleigh_ritz(images: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Singular values of matrices restricted to orthonormal blocks, by W Q (rows, block) of each.

    The values (matrices, BLOCK), descending, zeros where a block is smaller; and the rotations
    (matrices, BLOCK, BLOCK) of the blocks to the singular vectors.
    """
    device, dtype = images[0].device, images[0].dtype
    # Squares: in float64, or small values would be lost in the rounding of the largest.
    squares = torch.zeros(len(images), BLOCK, BLOCK, dtype=torch.float64, device=device)
    for square, image in zip(squares, images, strict=True):
        width = image.shape[1]
        wide = image.double()
        square[:width, :width] = wide.mT @ wide
    # Small and many: faster on the CPU, the copies there and back included.
    values, vectors = torch.linalg.eigh(squares.cpu())
    rotations = vectors.flip(-1).to(device, dtype)
    return values.flip(-1).clamp_(min=0).sqrt(), rotations


def _orthonormal(blocks: list[Tensor]) -> list[Tensor]:
    """Orthonormal bases of the columns of each block, all blocks at once."""
    if not blocks:
        return []
    longest = max(len(block) for block in blocks)
    padded = blocks[0].new_zeros(len(blocks), longest, BLOCK)
    for place, block in zip(padded, blocks, strict=True):
        # The columns' lengths are squares of singular values: scaled to 1, none underflows.
        place[: len(block), : block.shape[1]] = block / block.norm(dim=0).clamp_(min=1e-30)
    bases = torch.linalg.qr(padded).Q
    return [
        basis[: len(block), : block.shape[1]].clone(memory_format=_LAYOUT)
        for basis, block in zip(bases, blocks, strict=True)
    ]


class SpectrumBound(nn.Module):
    """Bounds the largest singular values of one network's `regularized_weights`."""

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
        for name, weight in regularized_weights(network).items():
            self._weights[name] = weight
            matrix = _tall(weight.detach())
            if matrix.shape[1] > WHOLE:
                start = start_block(matrix.shape[1], random).to(matrix)
                right = iterate_block(matrix, start, _FIRST_ITERATIONS).right
                self.register_buffer(_buffer(name), right)

    @torch.no_grad()
    def before_update(self) -> Tensor | None:
        """Add the penalty's gradient; its sum over the weights, None for a clamp."""
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

        Not sigma0 alone, or the next value would become sigma0.
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
        triplets = iterate_block(matrix, block, _UPDATE_ITERATIONS)
        block.copy_(triplets.right)
        return triplets

    def _bound(self, triplets: Triplets) -> Tensor | float | None:
        """What sigma0 is held to; None where a weight has no second value to take r of."""
        if not self.config.ratio:
            return self.config.bound
        return self.config.ratio * triplets.values[1] if len(triplets.values) > 1 else None


def _buffer(name: str) -> str:
    return name.replace(".", "/")  # a buffer's name has no dots


def _tall(weight: Tensor) -> Tensor:
    """A weight as the matrix (out, in * k * k), a view; transposed if that is wide.

    The singular values are the same, left and right vectors change places, and the vectors that are
    kept are the short ones.
    """
    matrix = weight.view(len(weight), -1)
    return matrix if matrix.shape[0] >= matrix.shape[1] else matrix.mT

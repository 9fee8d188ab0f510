"""The largest singular values of weights by block power iteration.

Section 4 of the paper watches the three largest, sigma0 to sigma2, of every weight: in a generator
that collapses, sigma0 of a few layers explodes. A block of orthonormal vectors is multiplied by
W W^T again and again, orthogonalized after every product; the values are those of the matrix
restricted to the block (Rayleigh-Ritz). Values that lie close together converge together, at the
rate of the first value outside the block, not at that of their own distance.

Weights change little from one look to the next, so the block is kept, and one or two iterations do.

A kernel (out, in, kh, kw) is the matrix (out, in*kh*kw), not divided by its spectral norm.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

VALUES = 3
"""How many are wanted: sigma0, sigma1, sigma2."""

BLOCK = 8
"""Vectors in a block; those beyond `VALUES` are there for the speed of convergence."""

_CHANGE = 1e-4  # relative change of a value in an iteration, below which it has converged
_ITERATIONS = 100
_SEED = 0x53564453
# That of a block which was saved and loaded: in another one, products are rounded otherwise.
_LAYOUT = torch.contiguous_format


def weight_matrices(network: nn.Module) -> dict[str, Tensor]:
    """The weight (out, in*kh*kw) of every convolution, linear layer and embedding, by layer name.

    Args:
        network: Any network; spectrally normalized layers are among them.
    """
    return {
        name: layer.weight.detach().flatten(1)
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear | nn.Embedding)
    }


def start_block(size: int, random: torch.Generator) -> Tensor:
    """Random orthonormal columns (size, BLOCK) to start from, fewer for a smaller size."""
    basis = torch.linalg.qr(torch.randn(size, min(BLOCK, size), generator=random)).Q
    return basis.clone(memory_format=_LAYOUT)


class SingularValues:
    """The largest singular values of the same matrices at one time after the other.

    They are a pure function of the matrices seen. Errors are below 1% of `svdvals` on all that was
    measured, mostly far below.
    """

    def __init__(self) -> None:
        self.blocks: dict[str, Tensor] = {}
        """Orthonormal columns (min(out, in*kh*kw), BLOCK) or fewer, by layer: what is kept from one
        look to the next, and may be saved and set again."""

    @torch.no_grad()
    def measure(self, matrices: Mapping[str, Tensor]) -> dict[str, list[float]]:
        """The largest singular values, descending.

        Args:
            matrices: (rows, columns) by name; the same names every time.

        Returns:
            By name, three values, or as many as the thinner side of the matrix has; NaN for a
            matrix that holds values that are not finite.
        """
        norms = torch.stack(torch._foreach_norm(list(matrices.values()))).tolist()
        # Zeros have no directions, infinities no values: neither is iterated.
        found, usable = {}, {}
        for (name, matrix), norm in zip(matrices.items(), norms, strict=True):
            found[name] = [0.0 if norm == 0 else float("nan")] * min(VALUES, *matrix.shape)
            if not 0 < norm < float("inf"):
                continue
            # The block lies on the smaller side.
            wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT
            usable[name] = wide.float()
            block = self.blocks.get(name)
            if block is None or block.shape != (len(wide), min(BLOCK, len(wide))):
                block = start_block(len(wide), torch.Generator().manual_seed(_SEED))
            self.blocks[name] = block.to(matrix.device)
        return found | self._iterate(usable)

    def _iterate(self, matrices: Mapping[str, Tensor]) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {}
        active = list(matrices)
        for iteration in range(_ITERATIONS + 1):
            if not active:
                break
            with torch.autocast(matrices[active[0]].device.type, enabled=False):
                images = [matrices[name].mT @ self.blocks[name] for name in active]
                values, rotations = rayleigh_ritz(images)
                going = {}
                for i, (name, new) in enumerate(zip(active, values.tolist(), strict=True)):
                    old, found[name] = found.get(name), new[: min(VALUES, len(matrices[name]))]
                    complete = len(matrices[name]) <= BLOCK  # the block is the whole space
                    converged = old is not None and all(
                        abs(a - b) <= _CHANGE * a for a, b in zip(found[name], old, strict=True)
                    )
                    if not (complete or converged or iteration == _ITERATIONS):
                        width = images[i].shape[1]
                        going[name] = images[i] @ rotations[i, :width, :width]
                active = list(going)
                products = [matrices[name] @ image for name, image in going.items()]
                self.blocks |= dict(zip(active, orthonormal(products), strict=True))
        return found


def rayleigh_ritz(images: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Singular values of matrices restricted to orthonormal blocks, all matrices at once.

    Args:
        images: W^T Q, (columns, block) each.

    Returns:
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


def orthonormal(blocks: list[Tensor]) -> list[Tensor]:
    """Orthonormal bases of the columns of each block, all blocks at once."""
    if not blocks:
        return []
    tallest = max(len(block) for block in blocks)
    padded = blocks[0].new_zeros(len(blocks), tallest, BLOCK)
    for place, block in zip(padded, blocks, strict=True):
        # The columns' lengths are squares of singular values: scaled to 1, none underflows.
        place[: len(block), : block.shape[1]] = block / block.norm(dim=0).clamp_(min=1e-30)
    bases = torch.linalg.qr(padded).Q
    return [
        basis[: len(block), : block.shape[1]].clone(memory_format=_LAYOUT)
        for basis, block in zip(bases, blocks, strict=True)
    ]

"""The largest singular values of every weight of a network, cheaply and again and again.

Section 4 of the paper watches the three largest, sigma0 to sigma2: in a generator that collapses,
sigma0 of a few layers explodes. Here: block power iteration (orthogonal iteration), one block of
vectors a matrix, orthogonalised after every product with W W^T, its values those of the matrix
restricted to the block (Rayleigh-Ritz). Values that lie close together converge together, at the
rate of the block's first value that is left out, not at that of their own distance.

Weights change little from one look to the next, so the block is kept, and one or two iterations do.
A first look takes as many as it needs: every matrix is iterated until its values stand still.

A kernel (out, in, kh, kw) is the matrix (out, in*kh*kw), raw, not divided by its spectral norm.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

VALUES = 3
"""How many are wanted: sigma0, sigma1, sigma2."""

_BLOCK = 8  # vectors; those beyond VALUES are there for the speed of convergence
_CHANGE = 1e-4  # relative change of a value in an iteration, below which it stands still
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


class SingularValues:
    """The largest singular values of the same matrices at one time after the other.

    The start is a pure function of the matrices' shapes, so are all values after it one of the
    matrices seen. They do not depend on it by more than the error: below 1% of `svdvals` on all
    that was measured, mostly far below.
    """

    def __init__(self) -> None:
        self.blocks: dict[str, Tensor] = {}
        """Orthonormal columns (min(out, in*kh*kw), 8) or fewer, by layer: what is kept from one
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
        names = list(matrices)
        norms = torch.stack(torch._foreach_norm(list(matrices.values()))).tolist()
        # Zeros have no directions, infinities no values: neither is iterated.
        found = {
            name: [0.0 if norm == 0 else float("nan")] * min(VALUES, *matrices[name].shape)
            for name, norm in zip(names, norms, strict=True)
        }
        usable = {
            name: _wide(matrices[name].float())
            for name, norm in zip(names, norms, strict=True)
            if 0 < norm < float("inf")
        }
        for name, matrix in usable.items():
            block = self.blocks.get(name)
            if block is None or block.shape != (len(matrix), min(_BLOCK, len(matrix))):
                block = _start(matrix)
            self.blocks[name] = block.to(matrix.device)
        for name, values in self._iterate(usable).items():
            found[name] = values
        return found

    def _iterate(self, matrices: Mapping[str, Tensor]) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {}
        active = list(matrices)
        with torch.autocast(_device_type(matrices), enabled=False):
            for iteration in range(_ITERATIONS + 1):
                if not active:
                    break
                images = [matrices[name].mT @ self.blocks[name] for name in active]
                values, rotations = _ritz(images)
                settled = []
                for name, new in zip(active, values.tolist(), strict=True):
                    wanted = new[: min(VALUES, len(matrices[name]))]
                    old = found.get(name)
                    complete = len(matrices[name]) <= _BLOCK  # the block is the whole space
                    still = old is not None and all(
                        abs(a - b) <= _CHANGE * a for a, b in zip(wanted, old, strict=True)
                    )
                    settled.append(complete or still or iteration == _ITERATIONS)
                    found[name] = wanted
                going = [
                    (name, image @ rotation[: image.shape[1], : image.shape[1]])
                    for name, image, rotation, done in zip(
                        active, images, rotations, settled, strict=True
                    )
                    if not done
                ]
                active = [name for name, _ in going]
                products = [matrices[name] @ image for name, image in going]
                for name, block in zip(active, _orthonormal(products), strict=True):
                    self.blocks[name] = block
        return found


def _wide(matrix: Tensor) -> Tensor:
    """The matrix or its transpose, so that the block lies on the smaller side."""
    return matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT


def _device_type(matrices: Mapping[str, Tensor]) -> str:
    return next(iter(matrices.values())).device.type if matrices else "cpu"


def _start(matrix: Tensor) -> Tensor:
    rows = len(matrix)
    random = torch.Generator().manual_seed(_SEED)
    basis = torch.linalg.qr(torch.randn(rows, min(_BLOCK, rows), generator=random)).Q
    return basis.clone(memory_format=_LAYOUT)


def _ritz(images: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Singular values of matrices restricted to orthonormal blocks, all matrices at once.

    Args:
        images: W^T Q, (columns, block) each.

    Returns:
        The values (matrices, 8), descending, zeros where a block is smaller; and the rotations
        (matrices, 8, 8) of the blocks to the directions that they belong to.
    """
    device = images[0].device
    # Squares: in float64, lest small values drown in the largest one's rounding.
    squares = torch.zeros(len(images), _BLOCK, _BLOCK, dtype=torch.float64, device=device)
    for square, image in zip(squares, images, strict=True):
        width = image.shape[1]
        wide = image.double()
        square[:width, :width] = wide.mT @ wide
    # Small and many: a GPU would take longer for them than the way to the CPU and back.
    values, vectors = torch.linalg.eigh(squares.cpu())
    rotations = vectors.flip(-1).to(device, torch.float32)
    return values.flip(-1).clamp_(min=0).sqrt(), rotations


def _orthonormal(blocks: list[Tensor]) -> list[Tensor]:
    """Orthonormal bases of the columns of each block, all blocks at once."""
    if not blocks:
        return []
    tallest = max(len(block) for block in blocks)
    padded = blocks[0].new_zeros(len(blocks), tallest, _BLOCK)
    for place, block in zip(padded, blocks, strict=True):
        # The columns' lengths are squares of singular values: brought to 1, none underflows.
        place[: len(block), : block.shape[1]] = block / block.norm(dim=0).clamp_(min=1e-30)
    bases = torch.linalg.qr(padded).Q
    return [
        basis[: len(block), : block.shape[1]].clone(memory_format=_LAYOUT)
        for basis, block in zip(bases, blocks, strict=True)
    ]

"""Spectral normalization: every weight divided by an estimate of its largest singular value.

Miyato et al. 2018 (https://arxiv.org/abs/1802.05957), Algorithm 1; BigGAN uses it on every
convolution and linear layer of both networks. The estimate is kept by power iteration: one step a
training forward, warm-started from the step before; none in eval mode, where `u` and `v` are used
as they were stored, so that a saved network gives the same output for ever.

A layer by itself takes its step when it runs. A network's layers take theirs together before the
first of them runs (`SpectralNormNetwork`): a GPU starts two products for each layer then, and for
all that is between them a handful of kernels, however many the layers are.

A kernel of shape (out, in, kh, kw) is taken as the matrix (out, in*kh*kw), as Miyato's code and
every published BigGAN take it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from biggan.nn.convolution import convolve


class Uninitialized:
    """Mixed into a layer of torch: its constructor leaves the parameters as the memory was.

    All values are set by `initialization.py` from one explicit generator, or come from a file. A
    constructor that drew them too would move torch's global stream, and on the `meta` device, where
    a network is laid out before a file fills it, would load a good part of torch's compiler.
    """

    def reset_parameters(self) -> None:
        """Leave the values to `initialization.py`."""


class Embedding(Uninitialized, nn.Embedding):
    """`torch.nn.Embedding`, its values not yet set."""


class Linear(Uninitialized, nn.Linear):
    """`torch.nn.Linear`, its values not yet set."""


class SpectralNorm(Uninitialized, nn.Module):
    """What the three layers below share: the vectors `u` and `v`, and the normalized weight.

    The mixed-in layer has a `weight`, of which the first axis counts the rows of the matrix.
    """

    weight: Tensor
    u: Tensor
    v: Tensor

    def _init_spectral_norm(self, eps: float) -> None:
        rows, columns = self.weight.flatten(1).shape
        self.eps = eps
        self.holds_power_iteration = False
        # v is stored although u determines it: eval mode then needs no matrix-vector product more
        # than sigma itself, and a foreign checkpoint's own v is kept to the last bit.
        self.register_buffer("u", self.weight.new_empty(rows))
        self.register_buffer("v", self.weight.new_empty(columns))

    def iterate_power(self, iterations: int = 1) -> None:
        """Move `u` and `v` towards the leading singular vectors of the weight.

        Args:
            iterations: Number of power iterations, each one product with the matrix and one with
                its transpose.
        """
        iterate_power(self, iterations)

    def sigma(self) -> Tensor:
        """The estimate u^T W v of the largest singular value, differentiable in the weight."""
        # The vectors are copied: a later forward updates them in place, and this forward's graph
        # must keep the values that it was computed with.
        u, v = (self.u.clone(), self.v.clone()) if self.training else (self.u, self.v)
        return torch.dot(u, self.weight.flatten(1) @ v)

    def normalized_weight(self) -> Tensor:
        """The weight divided by `sigma`; in training mode, after one power iteration.

        In the weight's own precision, under autocast too: a sigma of 8 bits would wander.
        """
        with torch.autocast(self.weight.device.type, enabled=False):
            if self.training and not self.holds_power_iteration:
                self.iterate_power()
            sigma = self.sigma()
            # A weight of zeros has nothing to normalize: it stays zero instead of becoming 0 / 0.
            return self.weight / (sigma + (sigma == 0))


class SpectralNormConv2d(SpectralNorm, nn.Conv2d):
    """A convolution of stride 1 that keeps the image's size, with a spectrally normalized kernel.

    Args:
        kernel_size: Odd width of the square kernel; the input is zero-padded by half of it.
        eps: Lower bound of the norm by which `u` and `v` are divided.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        bias: bool = True,
        eps: float = 1e-4,
    ) -> None:
        nn.Conv2d.__init__(
            self, in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias
        )
        self._init_spectral_norm(eps)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x (N, in, H, W) into (N, out, H, W)."""
        padding = self.kernel_size[0] // 2
        return convolve(x, self.normalized_weight(), self.bias, padding=padding)


class SpectralNormLinear(SpectralNorm, nn.Linear):
    """A linear layer with a spectrally normalized weight."""

    def __init__(
        self, in_features: int, out_features: int, *, bias: bool = True, eps: float = 1e-4
    ) -> None:
        nn.Linear.__init__(self, in_features, out_features, bias=bias)
        self._init_spectral_norm(eps)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, in) to (N, out)."""
        return F.linear(x, self.normalized_weight(), self.bias)


class SpectralNormEmbedding(SpectralNorm, nn.Embedding):
    """A table of class vectors, normalized as one (num_embeddings, embedding_dim) matrix."""

    def __init__(self, num_embeddings: int, embedding_dim: int, *, eps: float = 1e-4) -> None:
        nn.Embedding.__init__(self, num_embeddings, embedding_dim)
        self._init_spectral_norm(eps)

    def forward(self, labels: Tensor) -> Tensor:
        """Look up labels: int64 (N,), or class weights (N, num_embeddings), as (N, dim)."""
        weight = self.normalized_weight()
        if labels.is_floating_point():
            return labels @ weight
        return F.embedding(labels, weight)


class SpectralNormNetwork(nn.Module):
    """A network whose layers take their power iteration together.

    Its constructor ends with `join_power_iteration`, its forward begins with `begin_forward`.
    """

    def join_power_iteration(self) -> None:
        """Leave the power iteration of all layers to `begin_forward`."""
        self.holds_power_iteration = False
        for layer in _spectral_norm_layers(self):
            layer.holds_power_iteration = True

    def begin_forward(self) -> None:
        """In training mode, one power iteration of every layer."""
        if self.training and not self.holds_power_iteration:
            iterate_power(self)


def _spectral_norm_layers(network: nn.Module) -> list[SpectralNorm]:
    return [layer for layer in network.modules() if isinstance(layer, SpectralNorm)]


@torch.no_grad()
def iterate_power(network: nn.Module, iterations: int = 1) -> None:
    """Run power iterations on every spectrally normalized layer of a network, or on a single layer.

    Besides training, for weights that were not reached by its steps, such as a moving average:
    their `u` and `v` are those of other weights and must be brought up to date before use.
    """
    layers = _spectral_norm_layers(network)
    for eps in dict.fromkeys(layer.eps for layer in layers):  # one, in a network
        alike = [layer for layer in layers if layer.eps == eps]
        with torch.autocast(alike[0].weight.device.type, enabled=False):
            _iterate_power(alike, iterations, eps)


def _iterate_power(layers: list[SpectralNorm], iterations: int, eps: float) -> None:
    matrices = [layer.weight.flatten(1) for layer in layers]
    stored = [layer.u for layer in layers] + [layer.v for layer in layers]
    us = stored[: len(layers)]
    for _ in range(iterations):
        vs = _normalized([matrix.mT @ u for matrix, u in zip(matrices, us, strict=True)], eps)
        us = _normalized([matrix @ v for matrix, v in zip(matrices, vs, strict=True)], eps)
    if iterations > 0:
        torch._foreach_copy_(stored, us + vs)


def _normalized(vectors: list[Tensor], eps: float) -> list[Tensor]:
    """Each vector divided by its norm, or by eps where that is larger."""
    norms = torch.stack(torch._foreach_norm(vectors)).clamp_(min=eps)
    sizes = [len(vector) for vector in vectors]
    each = torch.cat([norm.expand(size) for norm, size in zip(norms.unbind(), sizes, strict=True)])
    return list((torch.cat(vectors) / each).split(sizes))


@contextmanager
def hold_power_iteration(network: nn.Module) -> Iterator[None]:
    """Within this context, training forwards use `u` and `v` as they are.

    For the later micro-batches of one accumulated step: all of them must see the same weights.
    """
    parts = [
        part for part in network.modules() if isinstance(part, (SpectralNorm, SpectralNormNetwork))
    ]
    held = [part.holds_power_iteration for part in parts]
    for part in parts:
        part.holds_power_iteration = True
    try:
        yield
    finally:
        for part, before in zip(parts, held, strict=True):
            part.holds_power_iteration = before

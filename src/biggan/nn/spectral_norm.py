"""Spectral normalization: every weight divided by an estimate of its largest singular value.

Miyato et al. 2018 (https://arxiv.org/abs/1802.05957), Algorithm 1; BigGAN uses it on every
convolution and linear layer of both networks. The estimate is kept by power iteration: one step a
training forward, warm-started from the step before; none in eval mode, where `u` and `v` are used
as they were stored, so that a saved network gives the same output for ever.

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
from biggan.nn.uninitialized import Uninitialized


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

    @torch.no_grad()
    def iterate_power(self, iterations: int = 1) -> None:
        """Move `u` and `v` towards the leading singular vectors of the weight.

        Args:
            iterations: Number of power iterations, each one product with the matrix and one with
                its transpose.
        """
        matrix = self.weight.flatten(1)
        u, v = self.u, self.v
        for _ in range(iterations):
            v = F.normalize(matrix.mT @ u, dim=0, eps=self.eps)
            u = F.normalize(matrix @ v, dim=0, eps=self.eps)
        self.u.copy_(u)
        self.v.copy_(v)

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
            return self.weight / torch.where(sigma == 0, torch.ones_like(sigma), sigma)


class SpectralNormConv2d(SpectralNorm, nn.Conv2d):
    """A convolution of stride 1 that keeps the image's size, with a spectrally normalized kernel.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Odd width of the square kernel; the input is zero-padded by half of it.
        bias: Whether to add a bias.
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
    """A linear layer with a spectrally normalized weight.

    Args:
        in_features: Width of the input.
        out_features: Width of the output.
        bias: Whether to add a bias.
        eps: Lower bound of the norm by which `u` and `v` are divided.
    """

    def __init__(
        self, in_features: int, out_features: int, *, bias: bool = True, eps: float = 1e-4
    ) -> None:
        nn.Linear.__init__(self, in_features, out_features, bias=bias)
        self._init_spectral_norm(eps)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, in) to (N, out)."""
        return F.linear(x, self.normalized_weight(), self.bias)


class SpectralNormEmbedding(SpectralNorm, nn.Embedding):
    """A table of class vectors, normalized as one (num_embeddings, embedding_dim) matrix.

    Args:
        num_embeddings: Number of classes.
        embedding_dim: Width of a class vector.
        eps: Lower bound of the norm by which `u` and `v` are divided.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, *, eps: float = 1e-4) -> None:
        nn.Embedding.__init__(self, num_embeddings, embedding_dim)
        self._init_spectral_norm(eps)

    def forward(self, labels: Tensor) -> Tensor:
        """Look up labels: int64 (N,), or class weights (N, num_embeddings), as (N, dim)."""
        weight = self.normalized_weight()
        if labels.is_floating_point():
            return labels @ weight
        return F.embedding(labels, weight)


def _spectral_norm_layers(network: nn.Module) -> list[SpectralNorm]:
    return [layer for layer in network.modules() if isinstance(layer, SpectralNorm)]


def iterate_power(network: nn.Module, iterations: int) -> None:
    """Run power iterations on every spectrally normalized layer of a network.

    For weights that were not reached by training steps, such as a moving average: their `u` and
    `v` are those of other weights and must be brought up to date before the network is used.

    Args:
        network: The network whose vectors are updated in place.
        iterations: Power iterations per layer.
    """
    for layer in _spectral_norm_layers(network):
        layer.iterate_power(iterations)


@contextmanager
def hold_power_iteration(network: nn.Module) -> Iterator[None]:
    """Within this context, training forwards use `u` and `v` as they are.

    For the later micro-batches of one accumulated step: all of them must see the same weights.

    Args:
        network: The network whose layers hold still.
    """
    layers = _spectral_norm_layers(network)
    held = [layer.holds_power_iteration for layer in layers]
    for layer in layers:
        layer.holds_power_iteration = True
    try:
        yield
    finally:
        for layer, before in zip(layers, held, strict=True):
            layer.holds_power_iteration = before

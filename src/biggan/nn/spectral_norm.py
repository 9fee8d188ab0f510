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
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from biggan.nn.convolution import convolve
from biggan.nn.matrix_product import linear

_MUCH_SMALLER = 4  # times: the backward pass goes over the input more often than over the weight
_ALIGNMENT = 16  # numbers; 64 bytes in float32


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
        self.image: Tensor | None = None
        """W v, where a network's power iteration just computed it; the next forward takes it."""
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
        u, v = self._vectors()
        return torch.dot(u, self.weight.flatten(1) @ v)

    def normalized_weight(self) -> Tensor:
        """The weight divided by `sigma`; in training mode, after one power iteration.

        In the weight's own precision, under autocast too: a sigma of 8 bits would wander.
        """
        with torch.autocast(self.weight.device.type, enabled=False):
            normalized: Tensor = _Normalize.apply(self.weight, *self._iterated())[0]
            return normalized

    def normalize(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The layer's input and weight, one of them divided by `sigma`: their product is the same.

        On a CPU the input, where it is much smaller than the weight; see `normalized_weight`.
        """
        is_small = _MUCH_SMALLER * x.numel() < self.weight.numel()
        if not is_small or x.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
            return x, self.normalized_weight()
        sigma: Tensor = _Sigma.apply(self.weight, *self._iterated())
        return x / sigma, self.weight

    def _iterated(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """`u`, `v` and, if a power iteration computed it, W v; in training mode after one."""
        if self.training and not self.holds_power_iteration:
            iterate_power(self, keep_images=True)
        image, self.image = self.image, None
        if not self.training:  # of an older forward that failed
            image = None
        return *self._vectors(), image

    def _vectors(self) -> tuple[Tensor, Tensor]:
        """`u` and `v`, which a later forward updates in place.

        In training mode as copies: this forward's graph must keep the values of its own.
        """
        return (self.u.clone(), self.v.clone()) if self.training else (self.u, self.v)


def _sigma(weight: Tensor, u: Tensor, v: Tensor, image: Tensor | None) -> Tensor:
    """u^T W v, by which a weight is divided; of W v, where it is given."""
    sigma = torch.dot(u, weight.flatten(1) @ v if image is None else image)
    # A weight of zeros has nothing to normalize: it stays zero instead of becoming 0 / 0.
    return sigma + (sigma == 0)


class _Sigma(torch.autograd.Function):
    """`_sigma`, of which the gradient is u v^T."""

    generate_vmap_rule = True  # torch.func passes

    @staticmethod
    def forward(weight: Tensor, u: Tensor, v: Tensor, image: Tensor | None) -> Tensor:
        return _sigma(weight, u, v, image)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        del output
        ctx.save_for_backward(*inputs[1:3])
        ctx.shape = inputs[0].shape

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        u, v = ctx.saved_tensors
        return torch.outer(gradients[0] * u, v).view(ctx.shape), *[None] * 3


class _Normalize(torch.autograd.Function):
    """A weight divided by `_sigma`, and that.

    With G the gradient of W / sigma, that of W is G / sigma - <G, W / sigma> / sigma * u v^T. Left
    to autograd, the backward pass goes over the weight three times as often.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        weight: Tensor, u: Tensor, v: Tensor, image: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        sigma = _sigma(weight, u, v, image)
        return weight / sigma, sigma

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*output, *inputs[1:3])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        normalized, sigma, u, v = ctx.saved_tensors
        matrix = gradients[0].flatten(1)
        slope = gradients[1] - torch.dot(matrix.flatten(), normalized.flatten()) / sigma
        return (matrix / sigma).addr_(slope * u, v).view_as(normalized), *[None] * 3


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
        return convolve(*self.normalize(x), self.bias, padding=padding)


class SpectralNormLinear(SpectralNorm, nn.Linear):
    """A linear layer with a spectrally normalized weight."""

    def __init__(
        self, in_features: int, out_features: int, *, bias: bool = True, eps: float = 1e-4
    ) -> None:
        nn.Linear.__init__(self, in_features, out_features, bias=bias)
        self._init_spectral_norm(eps)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, in) to (N, out)."""
        return linear(*self.normalize(x), self.bias)


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
            iterate_power(self, keep_images=True)


def _spectral_norm_layers(network: nn.Module) -> list[SpectralNorm]:
    return [layer for layer in network.modules() if isinstance(layer, SpectralNorm)]


@torch.no_grad()
def iterate_power(network: nn.Module, iterations: int = 1, *, keep_images: bool = False) -> None:
    """Run power iterations on every spectrally normalized layer of a network, or on a single layer.

    Besides training, for weights that were not reached by its steps, such as a moving average:
    their `u` and `v` are those of other weights and must be brought up to date before use. With
    `keep_images` a forward follows, which needs the last products W v again.
    """
    layers = _spectral_norm_layers(network)
    for eps in dict.fromkeys(layer.eps for layer in layers):  # one, in a network
        alike = [layer for layer in layers if layer.eps == eps]
        with torch.autocast(alike[0].weight.device.type, enabled=False):
            images = _iterate_power(alike, iterations, eps)
        if keep_images:
            for layer, image in zip(alike, images, strict=True):
                layer.image = image


def _iterate_power(layers: list[SpectralNorm], iterations: int, eps: float) -> list[Tensor]:
    """See `iterate_power`; W v of each layer, empty after no iteration."""
    matrices = [layer.weight.flatten(1) for layer in layers]
    stored = [layer.u for layer in layers] + [layer.v for layer in layers]
    us = stored[: len(layers)]
    images: list[Tensor] = []
    for _ in range(iterations):
        vs = _normalized([matrix.mT @ u for matrix, u in zip(matrices, us, strict=True)], eps)
        images = [matrix @ v for matrix, v in zip(matrices, vs, strict=True)]
        us = _normalized(images, eps)
    if iterations > 0:
        torch._foreach_copy_(stored, us + vs)
    return images


def _normalized(vectors: list[Tensor], eps: float) -> list[Tensor]:
    """Each vector divided by its norm, or by eps where that is larger."""
    norms = torch.stack(torch._foreach_norm(vectors)).clamp_(min=eps)
    # Aligned as tensors of their own, for which some CPUs round a product with a matrix otherwise.
    zeros = vectors[0].new_zeros(_ALIGNMENT)
    filled = [part for vector in vectors for part in (vector, zeros[: -len(vector) % _ALIGNMENT])]
    sizes = [-(-len(vector) // _ALIGNMENT) * _ALIGNMENT for vector in vectors]
    each = torch.cat([norm.expand(size) for norm, size in zip(norms.unbind(), sizes, strict=True)])
    parts = (torch.cat(filled) / each).split(sizes)
    return [part[: len(vector)] for part, vector in zip(parts, vectors, strict=True)]


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

"""The non-local block of SA-GAN (Zhang et al. 2019, https://arxiv.org/abs/1805.08318).

The widths and the pooling follow the code that its authors and BigGAN's released, not the SA-GAN
paper's text: queries and keys of C/8 channels, values of C/2, keys and values max-pooled 2x2, no
scaling of the logits, no biases.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from biggan.nn.functions import Function, in_forward_mode, must_be_plain, with_batch_first
from biggan.nn.matrix_product import add_matrix_product, matrix_product
from biggan.nn.spectral_norm import SpectralNormConv2d

_WEIGHTS = 1 << 19  # at a time: more would be fetched from memory anew by every operation


class SelfAttention2d(nn.Module):
    """x + gamma * attention(x), where gamma is a learned scalar that starts at zero.

    Args:
        channels: Channels of the input and output, at least 8.
        eps: Epsilon of the spectral normalization of the four 1x1 convolutions.
    """

    def __init__(self, channels: int, *, eps: float = 1e-4) -> None:
        super().__init__()
        self.theta = SpectralNormConv2d(channels, channels // 8, 1, bias=False, eps=eps)
        self.phi = SpectralNormConv2d(channels, channels // 8, 1, bias=False, eps=eps)
        self.g = SpectralNormConv2d(channels, channels // 2, 1, bias=False, eps=eps)
        self.o = SpectralNormConv2d(channels // 2, channels, 1, bias=False, eps=eps)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Attend over all positions of x (N, C, H, W); H and W are even."""
        query = _tokens(self.theta(x))  # (N, HW, C/8)
        key = _tokens(F.max_pool2d(self.phi(x), 2))  # (N, HW/4, C/8)
        value = _tokens(F.max_pool2d(self.g(x), 2))  # (N, HW/4, C/2)
        on_cpu = x.device.type == "cpu"
        if on_cpu and not (_is_traced() or _is_watched() or torch.is_autocast_enabled("cpu")):
            attended = attend(query, key, value)  # (N, HW, C/2)
        else:
            if on_cpu:
                # Zeros change no logit, and with equal widths the kernel that holds no (HW, HW/4)
                # matrix of weights takes over: at 64x64 positions that is 17 MB an image.
                query, key = (F.pad(y, (0, value.shape[-1] - y.shape[-1])) for y in (query, key))
            query, key, value = (y.unsqueeze(1) for y in (query, key, value))  # one head
            attended = F.scaled_dot_product_attention(query, key, value, scale=1.0).squeeze(1)
        attended = attended.mT.unflatten(2, x.shape[2:])  # (N, C/2, H, W)
        return x + self.gamma * self.o(attended)


def _tokens(x: Tensor) -> Tensor:
    """Positions of x (N, C, H, W) in a row: (N, H * W, C)."""
    return x.flatten(2).mT.contiguous()


def _is_traced() -> bool:
    return torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined]


def _is_watched() -> bool:
    """Whether operations are counted or their tensors are fake; `_Attend` has thousands of them."""
    return torch._C._len_torch_dispatch_stack() > 0


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(query key^T) value, for query (N, P, d), key (N, K, d) and value (N, K, e)."""
    if query.device.type == "cpu" and not _is_traced() and not in_forward_mode():
        result: Tensor = _Attend.apply(query, key, value)
        return result
    if (torch.is_grad_enabled() or in_forward_mode()) and not _is_traced():
        # The library's kernel has no second derivatives everywhere.
        return torch.softmax(query @ key.mT, dim=-1) @ value
    return F.scaled_dot_product_attention(query, key, value, scale=1.0)


class _Attend(Function):
    """See `attend`. Weights are not kept for the gradients, but computed again."""

    @staticmethod
    def forward(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        result = query.new_empty(*query.shape[:2], value.shape[2])
        for image, part, weights in _weights(query, key):
            matrix_product(weights, value[image], out=result[image, part])
        return result

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs, output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        query, key, value, result = ctx.saved_tensors
        (gradient,) = gradients
        if must_be_plain(gradient):
            weights = torch.softmax(query @ key.mT, dim=-1)
            scores = gradient @ value.mT
            scores = weights * (scores - (weights * scores).sum(-1, keepdim=True))
            return scores @ key, scores.mT @ query, weights.mT @ gradient
        of_query = torch.empty_like(query)
        # (N, d, K) and (N, e, K): the small factor of their products is the transposed one.
        of_key, of_value = (x.new_zeros(x.mT.shape) for x in (key, value))
        for image, part, weights in _weights(query, key):
            passed = gradient[image, part]
            add_matrix_product(of_value[image], passed.T, weights)
            # With `out`, autocast does not lower the precision.
            scores = matrix_product(passed, value[image].T, out=torch.empty_like(weights))
            scores.sub_((passed * result[image, part]).sum(-1, keepdim=True)).mul_(weights)
            matrix_product(scores, key[image], out=of_query[image, part])
            add_matrix_product(of_key[image], query[image, part].T, scores)
        return of_query, of_key.mT, of_value.mT

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor) -> tuple[Tensor, int]:
        result = _Attend.apply(*with_batch_first(info, in_dims, inputs))
        return result.unflatten(0, (info.batch_size, -1)), 0


def _weights(query: Tensor, key: Tensor) -> Iterator[tuple[int, slice, Tensor]]:
    """Image, positions and softmax(query key^T) of a part, in memory that the next one takes."""
    positions = query.shape[1]
    rows = min(positions, max(1, _WEIGHTS // key.shape[1]))
    memory = query.new_empty(rows, key.shape[1])
    for image, columns in enumerate(key.mT.contiguous()):
        for start in range(0, positions, rows):
            part = slice(start, min(start + rows, positions))
            weights = matrix_product(query[image, part], columns, out=memory[: part.stop - start])
            yield image, part, torch.softmax(weights, dim=-1, out=weights)

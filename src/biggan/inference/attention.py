"""Attention on a CPU, some positions of an image at a time, also for its gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from biggan.inference.differentiable import (
    Function,
    in_forward_mode,
    must_be_plain,
    with_batch_first,
)

_WEIGHTS = 1 << 19  # at a time: more would be fetched from memory anew by every operation


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(query key^T) value, for query (N, P, d), key (N, K, d) and value (N, K, e)."""
    is_traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined]
    if query.device.type == "cpu" and not is_traced and not in_forward_mode():
        result: Tensor = _Attend.apply(query, key, value)
        return result
    if (torch.is_grad_enabled() or in_forward_mode()) and not is_traced:
        # The library's kernel has no second derivatives everywhere.
        return torch.softmax(query @ key.mT, dim=-1) @ value
    return F.scaled_dot_product_attention(query, key, value, scale=1.0)


class _Attend(Function):
    """See `attend`. Weights are not kept for the gradients, but computed again."""

    @staticmethod
    def forward(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        result = query.new_empty(*query.shape[:2], value.shape[2])
        for image, part, weights in _weights(query, key):
            torch.mm(weights, value[image], out=result[image, part])
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
        of_query, of_key, of_value = (x.new_zeros(x.shape) for x in (query, key, value))
        for image, part, weights in _weights(query, key):
            passed = gradient[image, part]
            of_value[image].addmm_(weights.T, passed)
            # With `out`, autocast does not lower the precision.
            scores = torch.mm(passed, value[image].T, out=torch.empty_like(weights))
            scores.sub_((passed * result[image, part]).sum(-1, keepdim=True)).mul_(weights)
            torch.mm(scores, key[image], out=of_query[image, part])
            of_key[image].addmm_(scores.T, query[image, part])
        return of_query, of_key, of_value

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
            weights = torch.mm(query[image, part], columns, out=memory[: part.stop - start])
            yield image, part, torch.softmax(weights, dim=-1, out=weights)

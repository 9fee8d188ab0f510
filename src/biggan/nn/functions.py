"""What functions with derivatives of their own share: `torch.autograd.Function`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad


class Function(torch.autograd.Function):
    """An `autograd.Function` that is applied faster."""

    @classmethod
    def apply(cls, *inputs: Any) -> Any:
        """See `torch.autograd.Function.apply`, which inspects the signature of `forward` each time.

        For a small layer that would take as long as its convolution.
        """
        if torch._C._are_functorch_transforms_active():
            return super().apply(*inputs)
        inputs = torch._functorch.utils.unwrap_dead_wrappers(inputs)
        return super(torch.autograd.Function, cls).apply(*inputs)  # type: ignore[misc]


def in_forward_mode() -> bool:
    """Whether forward-mode derivatives are taken.

    Then an `autograd.Function` must not save tensors: nested, its derivatives would be wrong
    (https://github.com/pytorch/pytorch/issues/197867).
    """
    return forward_ad._current_level >= 0


def must_be_plain(gradient: Tensor) -> bool:
    """Whether a backward pass must be standard operations: its own derivatives, `torch.vmap`."""
    functorch = torch._C._functorch
    return (
        torch.is_grad_enabled()
        or functorch.is_functorch_wrapped_tensor(gradient)
        or functorch.is_legacy_batchedtensor(gradient)
    )


def with_batch_first(
    info: Any, in_dims: Iterable[int | None], inputs: Iterable[Tensor]
) -> Iterator[Tensor]:
    """For `torch.vmap`: its dimension and the batch's as one, the first."""
    for x, dim in zip(inputs, in_dims, strict=False):
        batched = x.expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
        yield batched.flatten(0, 1)

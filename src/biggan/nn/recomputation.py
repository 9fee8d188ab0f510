"""Activation checkpointing: what a block computed is dropped, and computed again when needed.

Chen et al. 2016 (https://arxiv.org/abs/1604.06174), by PyTorch's own `checkpoint`. A second forward
of these layers must not count as one: spectral norms would iterate again and normalize by another
sigma than the first forward did, and BatchNorm would enter the batch into its averages twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from biggan.nn.conditional_batch_norm import StandingBatchNorm2d
from biggan.nn.spectral_norm import hold_power_iteration


def run_block(block: nn.Module, *inputs: Any, recompute: bool) -> Tensor:
    """Run a block; with `recompute`, keep nothing of it but its inputs for the backward pass.

    The result and its gradients are the same to the bit. Between the two passes no other forward
    may change the block's weights or spectral-norm vectors.

    Args:
        block: Any module of this package's layers.
        inputs: Its arguments.
        recompute: Whether to compute what the backward pass needs again, for a third more work.
    """
    if not (recompute and torch.is_grad_enabled()):
        return block(*inputs)
    return checkpoint(  # nothing here draws random numbers
        block,
        *inputs,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=lambda: (nullcontext(), _repeating(block)),
    )


@contextmanager
def _repeating(block: nn.Module) -> Iterator[None]:
    """Within this context a training forward changes no buffer of the block."""
    norms = [layer for layer in block.modules() if isinstance(layer, StandingBatchNorm2d)]
    momenta = [layer.momentum for layer in norms]
    with hold_power_iteration(block):
        for layer in norms:
            layer.momentum = 0.0
        try:
            yield
        finally:
            for layer, momentum in zip(norms, momenta, strict=True):
                layer.momentum = momentum

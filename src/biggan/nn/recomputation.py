"""Activation checkpointing: what a block computed is dropped, and computed again when needed.

Chen et al. 2016 (https://arxiv.org/abs/1604.06174), by PyTorch's own `checkpoint`. A second forward
of these layers must not count as one: spectral norms would iterate again and normalize by another
sigma than the first forward did, and BatchNorm would enter the batch into its averages twice.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from biggan.nn.conditional_batch_norm import StandingBatchNorm2d
from biggan.nn.spectral_norm import hold_power_iteration


def run_block(block: nn.Module, *inputs: Any) -> Tensor:
    """Run a block and keep nothing of it but its inputs for the backward pass.

    The result and its gradients, of any order, are the same to the bit. Between the passes no other
    forward may change the block's weights or spectral-norm vectors.
    """
    if not torch.is_grad_enabled():
        return block(*inputs)
    return checkpoint(  # nothing here draws random numbers
        block,
        *inputs,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=lambda: (nullcontext(), _Repeating(block)),
    )


class _Repeating:
    """Within this context a training forward changes no buffer of the block.

    Entered once for a gradient, again for a gradient of it: so no context of a generator function,
    which can be entered but once.
    """

    def __init__(self, block: nn.Module) -> None:
        self._block = block

    def __enter__(self) -> None:
        norms = [m for m in self._block.modules() if isinstance(m, StandingBatchNorm2d)]
        self._momenta = [(layer, layer.momentum) for layer in norms]
        for layer in norms:
            layer.momentum = 0.0
        self._held = hold_power_iteration(self._block)
        self._held.__enter__()

    def __exit__(self, *error: object) -> None:
        self._held.__exit__(None, None, None)
        for layer, momentum in self._momenta:
            layer.momentum = momentum

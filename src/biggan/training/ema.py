"""The moving average of the generator's weights, from which the paper samples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from biggan.errors import require
from biggan.models import Generator


@dataclass(frozen=True)
class EmaConfig:
    """The moving average of the generator's weights, which is what a run makes."""

    decay: float = 0.9999
    """Weight of the past at each step."""
    start: int = 0
    """Up to this step the average is a copy of the weights."""

    def __post_init__(self) -> None:
        require(0 <= self.decay < 1, "ema.decay must be at least 0 and below 1")
        require(self.start >= 0, "ema.start must be 0 or above")


@torch.no_grad()
def update_ema(ema: Generator, generator: Generator, config: EmaConfig, step: int) -> None:
    """Move the average towards the generator.

    Parameters are averaged; buffers (BatchNorm's moving averages, power iteration's vectors) are
    copied: an average of them belongs to no network. They are computed anew for the average's own
    weights before it is sampled (`export.finish`).

    Args:
        ema: The average, changed in place.
        generator: The network that was just updated.
        config: Decay and start.
        step: Generator updates done before this one.
    """
    decay = config.decay if step >= config.start else 0.0
    averages: list[Tensor] = list(ema.parameters())
    values: list[Tensor] = list(generator.parameters())
    torch._foreach_lerp_(averages, values, 1 - decay)
    torch._foreach_copy_(list(ema.buffers()), list(generator.buffers()))

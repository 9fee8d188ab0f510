"""The moving average of the generator's weights, from which the paper samples."""

from __future__ import annotations

import torch
from torch import Tensor

from biggan.models import Generator
from biggan.training.settings import EmaConfig


@torch.no_grad()
def update_ema(ema: Generator, generator: Generator, config: EmaConfig, step: int) -> None:
    """Move the average towards the generator.

    Parameters are averaged; buffers (BatchNorm's moving averages, power iteration's vectors) are
    copied: an average of them belongs to no network. Whoever samples from the average first brings
    them up to date for its weights (`standing_statistics.finish`).

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

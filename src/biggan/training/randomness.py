"""Random numbers as a pure function of (seed, what for, step).

Nothing about them needs saving: a resumed run draws what an uninterrupted one would have drawn.
They are drawn on the CPU for the whole global batch, so that they depend neither on the device nor
on how many processes share the batch.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import torch


class Purpose(IntEnum):
    """What random numbers are for. The values are part of every run's meaning: never reuse one."""

    GENERATOR_WEIGHTS = 1
    DISCRIMINATOR_WEIGHTS = 2
    DISCRIMINATOR_STEP = 3
    GENERATOR_STEP = 4
    STATISTICS = 5
    AUGMENTATION = 6
    WATCH = 7
    ATTEMPT = 8
    HELD_OUT = 9
    INSTANCE_NOISE = 10
    DROPOUT = 11
    SPECTRUM = 12


def derive_seed(seed: int, purpose: Purpose, *position: int) -> int:
    """A seed in [0, 2**32) for one purpose at one position, such as a step."""
    return int(np.random.SeedSequence([seed, purpose, *position]).generate_state(1)[0])


def random_generator(seed: int, purpose: Purpose, *position: int) -> torch.Generator:
    """A generator on the CPU for one purpose at one position, such as a step."""
    return torch.Generator().manual_seed(derive_seed(seed, purpose, *position))

"""Paths between two points of a generator's input: the noise and the class.

As in DeepMind's notebook both are interpolated linearly, the class as a mix of one-hot vectors,
which is the same mix of class embeddings. `slerp` moves the noise along a great circle instead, so
that its length passes smoothly from one end's to the other's and does not shrink in the middle.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from biggan.errors import InputError

Path = Literal["linear", "slerp"]
PATHS: tuple[Path, ...] = get_args(Path)


def interpolate_noise(
    start: NDArray[np.float64], end: NDArray[np.float64], steps: int, path: Path = "linear"
) -> NDArray[np.float64]:
    """Noise from `start` to `end`, both ends included exactly.

    Args:
        start: (num, dim).
        end: (num, dim).
        steps: Points on each path, at least 2.
        path: `linear`, or `slerp` (spherical; Shoemake 1985).

    Returns:
        (num, steps, dim).

    Raises:
        InputError: Fewer than 2 steps, or an unknown path.
    """
    if path not in PATHS:
        raise InputError(f"the path must be one of {', '.join(PATHS)}, not {path!r}")
    t = _fractions(steps)[:, None]  # (steps, 1)
    a, b = start[:, None], end[:, None]  # (num, 1, dim)
    if path == "linear":
        return a * (1 - t) + b * t
    lengths = np.linalg.norm(a, axis=-1, keepdims=True), np.linalg.norm(b, axis=-1, keepdims=True)
    cosine = np.sum(a * b, axis=-1, keepdims=True) / (lengths[0] * lengths[1])
    angle = np.arccos(np.clip(cosine, -1, 1))  # (num, 1, 1)
    sine = np.sin(angle)
    # (Anti)parallel ends span no plane: there the arc is the straight line.
    degenerate = sine < 1e-6
    safe = np.where(degenerate, 1.0, sine)
    from_a = np.where(degenerate, 1 - t, np.sin((1 - t) * angle) / safe)
    from_b = np.where(degenerate, t, np.sin(t * angle) / safe)
    return from_a * a + from_b * b


def interpolate_labels(start: int, end: int, num_classes: int, steps: int) -> Tensor:
    """Class weights from one class to another, both ends included exactly.

    Returns:
        float32 (steps, num_classes), each row summing to 1.

    Raises:
        InputError: Fewer than 2 steps.
    """
    t = torch.from_numpy(_fractions(steps)).float()[:, None]  # (steps, 1)
    ends = F.one_hot(torch.tensor([start, end]), num_classes).float()
    return ends[0] * (1 - t) + ends[1] * t


def _fractions(steps: int) -> NDArray[np.float64]:
    if steps < 2:
        raise InputError(f"a path needs at least 2 steps, not {steps}")
    return np.linspace(0, 1, steps)

"""The tables of a recipe that are about stability."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from biggan.errors import require

CollapseAction = Literal["report", "stop", "rollback"]
SpectrumAction = Literal["none", "regularize", "clamp"]


@dataclass(frozen=True)
class WatchConfig:
    """Signals of the state of both networks, written to signals.jsonl; they change no result."""

    every: int = 20
    """Steps from one line of signals to the next; 0 for none."""
    held_out: float = 0.0
    """Part of the real images that is kept from training, to see whether D knows those that it was
    trained on by heart; 0 for none."""

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        require(self.every >= 0, "watch.every must be 0 or above")
        require(0 <= self.held_out < 1, "watch.held_out must be at least 0 and below 1")


@dataclass(frozen=True)
class CollapseConfig:
    """What is done when the signals say that a run has collapsed."""

    action: CollapseAction = "report"
    """`report` it and go on; `stop`; or `rollback`, go on from the last checkpoint before it."""
    rollbacks: int = 3
    """How often a run may roll back before it stops."""
    g_lr: float = 1.0
    """What the generator's learning rate is multiplied by at each rollback."""
    d_lr: float = 1.0
    """What the discriminator's learning rate is multiplied by at each rollback."""

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        require(
            self.action in get_args(CollapseAction),
            f"collapse.action must be one of {', '.join(get_args(CollapseAction))}",
        )
        require(self.rollbacks >= 1, "collapse.rollbacks must be at least 1")
        for name in ("g_lr", "d_lr"):
            require(0 < getattr(self, name) < math.inf, f"collapse.{name} must be above 0")


@dataclass(frozen=True)
class SpectrumConfig:
    """The largest singular value sigma0 of weights, held down (Section 4.1)."""

    generator: SpectrumAction = "none"
    """`none`; `regularize`, by a penalty; or `clamp`, after every update."""
    discriminator: SpectrumAction = "none"
    """The same for the discriminator."""
    bound: float = 1.0
    """The constant sigma_reg or sigma_clamp; used where `ratio` is 0."""
    ratio: float = 0.0
    """r of the bound r * sg(sigma1), sigma1 the second largest singular value; 0 for a constant."""
    strength: float = 1e-2
    """Weight of the penalty."""

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        for name in ("generator", "discriminator"):
            require(
                getattr(self, name) in get_args(SpectrumAction),
                f"spectrum.{name} must be one of {', '.join(get_args(SpectrumAction))}",
            )
        require(0 < self.bound < math.inf, "spectrum.bound must be above 0")
        require(0 <= self.ratio < math.inf, "spectrum.ratio must be 0 or above")
        require(0 <= self.strength < math.inf, "spectrum.strength must be 0 or above")


@dataclass(frozen=True)
class R1Config:
    """R1 gradient penalty (Mescheder et al. 2018; Section 4.2, equation 4)."""

    gamma: float = 0.0
    """Weight of the penalty (gamma / 2) E ||grad D(real)||^2; 0 for none."""

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        require(0 <= self.gamma < math.inf, "r1.gamma must be 0 or above")

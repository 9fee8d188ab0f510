"""The tables of a recipe that are about stability."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from biggan.errors import quoted, require

CollapseAction = Literal["report", "stop", "rollback"]
SpectrumAction = Literal["none", "regularize", "clamp"]
Frozen = Literal["none", "generator", "discriminator"]


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
    """r of the bound r * sg(sigma1), sigma1 the second largest singular value, 1 or above; 0 for a
    constant."""
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
        require(
            self.ratio == 0 or 1 <= self.ratio < math.inf,
            "spectrum.ratio must be 0 or at least 1: no largest value is below the second largest",
        )
        require(0 <= self.strength < math.inf, "spectrum.strength must be 0 or above")


@dataclass(frozen=True)
class R1Config:
    """R1 gradient penalty (Mescheder et al. 2018; Section 4.2, equation 4)."""

    gamma: float = 0.0
    """Weight of the penalty (gamma / 2) E ||grad D(real)||^2; 0 for none."""

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        require(0 <= self.gamma < math.inf, "r1.gamma must be 0 or above")


@dataclass(frozen=True)
class DropoutConfig:
    """Dropout on what the discriminator's last layer sees (Appendix F)."""

    keep: float = 1.0
    """Probability of keeping a feature; 1 for no dropout, the paper's is 0.8."""

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        require(0 < self.keep <= 1, "dropout.keep must be above 0 and at most 1")


@dataclass(frozen=True)
class InstanceNoiseConfig:
    """Gaussian noise on all that the discriminator sees (Soenderby et al. 2017)."""

    std: float = 0.0
    """Standard deviation at the start, where pixels are in [-1, 1]; 0 for none."""
    until: int = 0
    """Step at which it has fallen to 0, linearly; 0 for a constant."""

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        require(0 <= self.std < math.inf, "instance_noise.std must be 0 or above")
        require(self.until >= 0, "instance_noise.until must be 0 or above")


@dataclass(frozen=True)
class LossConfig:
    """The discriminator's hinge loss."""

    margin: float = 1.0
    """Output from which on an image costs nothing (Section 4.2 tries others than 1)."""

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        require(0 < self.margin < math.inf, "loss.margin must be above 0")


@dataclass(frozen=True)
class InterventionConfig:
    """What changes from a step on, until a later intervention changes it again (Appendix G)."""

    step: int
    """Steps that are done when it takes effect."""
    g_lr: float = 0.0
    """The generator's learning rate from then on; 0 for as before."""
    d_lr: float = 0.0
    """The discriminator's learning rate from then on; 0 for as before."""
    d_steps: int = 0
    """Discriminator updates per step from then on; 0 for as before."""
    freeze: Frozen | Literal[""] = ""
    """Which network is no longer updated; `none` for both updated again, empty for as before."""

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        require(self.step >= 0, "the step of an intervention must be 0 or above")
        for name in ("g_lr", "d_lr"):
            require(
                0 <= getattr(self, name) < math.inf,
                f"{name} of the intervention at step {self.step} must be above 0",
            )
        require(
            self.d_steps >= 0, f"d_steps of the intervention at step {self.step} must be above 0"
        )
        require(
            self.freeze in ("", *get_args(Frozen)),
            f"freeze of the intervention at step {self.step} must be one of "
            f"{', '.join(get_args(Frozen))}, not {quoted(self.freeze)}",
        )
        require(
            bool(self.changes()),
            f"the intervention at step {self.step} changes nothing: give it g_lr, d_lr, d_steps or "
            "freeze",
        )

    def changes(self) -> dict[str, Any]:
        """What it changes, by name, and to what."""
        return {name: value for name, value in asdict(self).items() if value and name != "step"}

    def to_dict(self) -> dict[str, Any]:
        """As a recipe holds it: what stays as before is left out."""
        return {"step": self.step, **self.changes()}

"""The tables of a recipe that are about supervision, and what interventions make of a run.

The paper took checkpoints from 10,000 to 20,000 steps before a collapse and went on from them with
other learning rates, more discriminator steps, or one network frozen (Section 4.2, Appendix G). A
recipe says so in [[interventions]]; those that are still to come may be added to a run that is
under way. Adam keeps its moments.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from biggan.errors import require


@dataclass(frozen=True)
class WatchConfig:
    """Signals of the state of both networks, written to signals.jsonl; they change no result."""

    every: int = 20
    """Steps from one line of signals to the next; 0 for none."""
    held_out: float = 0.0
    """Part of the real images that is kept from training, to see whether D has memorized those that
    it was trained on; 0 for none."""

    def __post_init__(self) -> None:
        require(self.every >= 0, "watch.every must be 0 or above")
        require(0 <= self.held_out < 1, "watch.held_out must be at least 0 and below 1")


@dataclass(frozen=True)
class CollapseConfig:
    """What is done when the signals say that a run has collapsed.

    The thresholds of the rules are constants of `collapse.py`, not settings.
    """

    action: Literal["report", "stop", "rollback"] = "report"
    """`report` it and go on; `stop`; or `rollback`, go on from the last checkpoint before it."""
    rollbacks: int = 3
    """How often a run may roll back before it stops."""
    g_lr: float = 1.0
    """Factor of the generator's learning rate at each rollback."""
    d_lr: float = 1.0
    """Factor of the discriminator's learning rate at each rollback."""

    def __post_init__(self) -> None:
        require(self.rollbacks >= 1, "collapse.rollbacks must be at least 1")
        for name in ("g_lr", "d_lr"):
            require(0 < getattr(self, name) < math.inf, f"collapse.{name} must be above 0")


@dataclass(frozen=True)
class EvaluationConfig:
    """Evaluation on schedule, of the averaged generator and untruncated noise."""

    every: int = 0
    """Steps from one evaluation to the next, a multiple of `checkpoint_every`; 0 for none. The
    last step's generator is evaluated as well."""
    num: int = 10_000
    """Images to generate for it."""
    metrics: str = "fid,is"
    """What to measure; the generator with the smallest `fid` is kept as best.safetensors."""
    keep_best: int = 0
    """How many of the best generators, by the distance, to keep in generators/."""
    extractor: str = "inception"
    """Whose features are compared: `inception`, its weights file, or a classifier's file."""
    data: str = ""
    """Images to compare with; empty for those of the training."""

    def __post_init__(self) -> None:
        require(self.every >= 0, "evaluation.every must be 0 or above")
        require(self.keep_best >= 0, "evaluation.keep_best must be 0 or above")
        require(10 <= self.num <= 10_000_000, "evaluation.num must be between 10 and 10,000,000")


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
    freeze: Literal["", "none", "generator", "discriminator"] = ""
    """Which network is no longer updated; `none` for both updated again, empty for as before."""

    def __post_init__(self) -> None:
        require(self.step >= 0, "the step of an intervention must be 0 or above")
        for name in ("g_lr", "d_lr", "d_steps"):
            require(
                0 <= getattr(self, name) < math.inf,
                f"{name} of the intervention at step {self.step} must be above 0",
            )
        require(
            bool(self.changes()),
            f"the intervention at step {self.step} changes nothing: give it g_lr, d_lr, d_steps or "
            "freeze",
        )

    def changes(self) -> dict[str, Any]:
        """New values by name; without those that stay as before."""
        return {name: value for name, value in asdict(self).items() if value and name != "step"}


@dataclass(frozen=True)
class Regime:
    """How a step is done: learning rates, updates of the discriminator, and the frozen network."""

    g_lr: float
    d_lr: float
    d_steps: int
    frozen: Literal["none", "generator", "discriminator"] = "none"

    @property
    def updates_d(self) -> bool:
        """Whether the discriminator is updated."""
        return self.frozen != "discriminator"

    @property
    def updates_g(self) -> bool:
        """Whether the generator is updated."""
        return self.frozen != "generator"

    @property
    def real_batches(self) -> int:
        """Batches of real images that a step takes: a frozen discriminator is shown one."""
        return self.d_steps if self.updates_d else 1

    def after(self, intervention: InterventionConfig) -> Regime:
        """The regime from an intervention on."""
        return Regime(
            intervention.g_lr or self.g_lr,
            intervention.d_lr or self.d_lr,
            intervention.d_steps or self.d_steps,
            intervention.freeze or self.frozen,
        )

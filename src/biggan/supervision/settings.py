"""The tables of a recipe that are about supervision."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from biggan.errors import quoted, require

CollapseAction = Literal["report", "stop", "rollback"]
Frozen = Literal["none", "generator", "discriminator"]


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
    """What is done when the signals say that a run has collapsed."""

    action: CollapseAction = "report"
    """`report` it and go on; `stop`; or `rollback`, go on from the last checkpoint before it."""
    rollbacks: int = 3
    """How often a run may roll back before it stops."""
    g_lr: float = 1.0
    """Factor of the generator's learning rate at each rollback."""
    d_lr: float = 1.0
    """Factor of the discriminator's learning rate at each rollback."""

    def __post_init__(self) -> None:
        require(
            self.action in get_args(CollapseAction),
            f"collapse.action must be one of {', '.join(get_args(CollapseAction))}",
        )
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
    extractor: str = "inception"
    """Whose features are compared: `inception`, its weights file, or a classifier's file."""
    data: str = ""
    """Images to compare with; empty for those of the training."""

    def __post_init__(self) -> None:
        require(self.every >= 0, "evaluation.every must be 0 or above")
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
    freeze: Frozen | Literal[""] = ""
    """Which network is no longer updated; `none` for both updated again, empty for as before."""

    def __post_init__(self) -> None:
        at = f"of the intervention at step {self.step}"
        require(self.step >= 0, "the step of an intervention must be 0 or above")
        for name in ("g_lr", "d_lr", "d_steps"):
            require(0 <= getattr(self, name) < math.inf, f"{name} {at} must be above 0")
        require(
            self.freeze in ("", *get_args(Frozen)),
            f"freeze {at} must be one of {', '.join(get_args(Frozen))}, not {quoted(self.freeze)}",
        )
        require(
            bool(self.changes()),
            f"the intervention at step {self.step} changes nothing: give it g_lr, d_lr, d_steps or "
            "freeze",
        )

    def changes(self) -> dict[str, Any]:
        """New values by name; without those that stay as before."""
        return {name: value for name, value in asdict(self).items() if value and name != "step"}

    def to_dict(self) -> dict[str, Any]:
        """As a recipe holds it; without what stays as before."""
        return {"step": self.step, **self.changes()}

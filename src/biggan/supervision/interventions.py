"""Interventions: what changes in the middle of a run (Section 4.2, Appendix G).

The paper took checkpoints from 10,000 to 20,000 steps before a collapse and went on from them with
other learning rates, more discriminator steps, or one network frozen. A recipe says so in
[[interventions]]; those that are still to come may be added to a run that is under way. Adam keeps
its moments.
"""

from __future__ import annotations

from dataclasses import dataclass

from biggan.supervision.settings import Frozen, InterventionConfig
from biggan.training.config import TrainConfig


@dataclass(frozen=True)
class Regime:
    """How a step is done: learning rates, updates of the discriminator, and the frozen network."""

    g_lr: float
    d_lr: float
    d_steps: int
    frozen: Frozen

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


def regimes(config: TrainConfig) -> dict[int, Regime]:
    """Every regime of a recipe by its first step, in order."""
    settings = config.optimizer
    found = {0: Regime(settings.g_lr, settings.d_lr, config.d_steps, "none")}
    for intervention in config.interventions:
        found[intervention.step] = list(found.values())[-1].after(intervention)
    return found


def regime_at(config: TrainConfig, step: int) -> Regime:
    """The regime of the step that follows `step` others."""
    return [regime for start, regime in regimes(config).items() if start <= step][-1]


def steps_by_regime(config: TrainConfig, steps: int) -> list[tuple[Regime, int]]:
    """How many of the first `steps` steps are done under each regime."""
    found = regimes(config)
    ends = [*list(found)[1:], steps]
    return [
        (regime, min(end, steps) - start)
        for (start, regime), end in zip(found.items(), ends, strict=True)
        if start < steps
    ]


def real_batches_before(config: TrainConfig, step: int) -> int:
    """Batches of real images that the first `step` steps take."""
    return sum(regime.real_batches * steps for regime, steps in steps_by_regime(config, step))

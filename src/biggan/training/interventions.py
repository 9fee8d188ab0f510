"""Interventions: what changes in the middle of a run (Section 4.2, Appendix G).

The paper took checkpoints from 10,000 to 20,000 steps before a collapse and went on from them with
other learning rates, more discriminator steps, or one network frozen. A recipe says so in
[[interventions]]; those that are still to come may be added to a run that is under way. Adam keeps
its moments.
"""

from __future__ import annotations

from dataclasses import dataclass

from biggan.stability.settings import Frozen, InterventionConfig
from biggan.training.config import TrainConfig
from biggan.training.state import TrainState
from biggan.training.survival import Survival


@dataclass(frozen=True)
class Regime:
    """What a step is done with."""

    g_lr: float
    """Learning rate of the generator."""
    d_lr: float
    """Learning rate of the discriminator."""
    d_steps: int
    """Discriminator updates per step, while it is updated."""
    frozen: Frozen
    """Which network is not updated."""

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
        """The regime that an intervention makes of this one."""
        return Regime(
            intervention.g_lr or self.g_lr,
            intervention.d_lr or self.d_lr,
            intervention.d_steps or self.d_steps,
            intervention.freeze or self.frozen,
        )


def regimes(config: TrainConfig) -> dict[int, Regime]:
    """Every regime of a recipe by the step from which on it holds, in order; the first from 0."""
    settings = config.optimizer
    found = {0: Regime(settings.g_lr, settings.d_lr, config.d_steps, "none")}
    for intervention in config.interventions:
        found[intervention.step] = list(found.values())[-1].after(intervention)
    return found


def regime_at(config: TrainConfig, step: int) -> Regime:
    """The regime of the step that is done when `step` are."""
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
    """Batches of real images that the first `step` steps take: where the next one's begin."""
    return sum(regime.real_batches * steps for regime, steps in steps_by_regime(config, step))


def begin_step(state: TrainState, config: TrainConfig, survival: Survival) -> Regime:
    """Bring the optimizers under the regime of the step to come, and record what changed.

    All processes call it at the beginning of every step.

    Args:
        state: Whose learning rates are set; the gradients of a frozen network are forgotten.
        config: The recipe, as the attempt has it.
        survival: Keeps the record of the run's events.

    Returns:
        The step's regime.
    """
    regime = regime_at(config, state.step)
    for optimizer, rate, is_updated in (
        (state.g_optimizer, regime.g_lr, regime.updates_g),
        (state.d_optimizer, regime.d_lr, regime.updates_d),
    ):
        for group in optimizer.param_groups:
            group["lr"] = rate
        if not is_updated:
            optimizer.zero_grad()
    for intervention in config.interventions:
        if intervention.step == state.step:
            changes = intervention.changes()
            text = ", ".join(f"{name} = {value}" for name, value in changes.items())
            reason = f"The recipe asks for {text} from step {state.step} on."
            survival.record(state, "intervention", reason, changes)
    return regime

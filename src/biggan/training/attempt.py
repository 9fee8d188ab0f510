"""Which attempt of a run this is: a run that rolls back must not repeat its fate.

After a rollback the same weights go on with other noise, other batches and, if the recipe says so,
other learning rates. All of that is a pure function of the recipe and the attempt, so that a kill
changes nothing.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from biggan.errors import require
from biggan.stability.settings import CollapseConfig
from biggan.training.config import TrainConfig
from biggan.training.randomness import Purpose, derive_seed


@dataclass(frozen=True)
class Attempt:
    """One attempt of a run; saved with its state."""

    number: int = 0
    """Rollbacks before it."""
    g_lr: float = 1.0
    """What the generator's learning rate is multiplied by."""
    d_lr: float = 1.0
    """What the discriminator's learning rate is multiplied by."""

    def __post_init__(self) -> None:
        """Refuse what no run saves."""
        is_attempt = type(self.number) is int and 0 <= self.number < 2**32
        rates = self.g_lr, self.d_lr
        positive = all(isinstance(rate, int | float) and 0 < rate < math.inf for rate in rates)
        require(is_attempt and positive, "an attempt is a number and two factors above 0")

    def following(self, settings: CollapseConfig) -> Attempt:
        """The attempt after one more rollback."""
        return Attempt(self.number + 1, self.g_lr * settings.g_lr, self.d_lr * settings.d_lr)

    def applied_to(self, config: TrainConfig) -> TrainConfig:
        """The recipe as this attempt trains: for the first one, the recipe."""
        if self.number == 0:
            return config
        optimizer = dataclasses.replace(
            config.optimizer,
            g_lr=config.optimizer.g_lr * self.g_lr,
            d_lr=config.optimizer.d_lr * self.d_lr,
        )
        interventions = tuple(
            dataclasses.replace(each, g_lr=each.g_lr * self.g_lr, d_lr=each.d_lr * self.d_lr)
            for each in config.interventions
        )
        seed = derive_seed(config.seed, Purpose.ATTEMPT, self.number)
        return dataclasses.replace(
            config, seed=seed, optimizer=optimizer, interventions=interventions
        )
